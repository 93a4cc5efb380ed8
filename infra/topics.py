"""`./justw topics`: make the Kafka topics that are missing, and compare those that exist with the settings."""

import argparse
import sys
from collections.abc import Sequence

from connectors import kafka_topics
from infra.settings_option import add_settings_option, chosen_settings
from schemas.errors import OperatorError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./justw topics", description=__doc__)
    add_settings_option(parser)
    parser.add_argument("--check", action="store_true", help="only compare; make nothing")
    chosen = parser.parse_args(arguments)
    settings = chosen_settings(chosen, "KAFKA_BOOTSTRAP_SERVERS")
    if chosen.check:
        findings = kafka_topics.compare(settings.kafka, kafka_topics.wanted(settings))
    else:
        findings = kafka_topics.ensure(settings)
    for finding in findings:
        state = "made" if finding.made else "; ".join(finding.wrong) or "as it should be"
        print(f"{finding.topic.name:<20} {finding.topic.partitions:>3} partitions   {state}")
    return 1 if any(finding.wrong for finding in findings) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"topics: {error}")
