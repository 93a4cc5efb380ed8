"""`./justw forfeit --settings FILE [--at beginning|position|end] [--yes]`: go on with a log that was refused."""

import argparse
import sys
from collections.abc import Mapping, Sequence

from connectors import timescale_connection
from connectors.checkpoint import Standing
from connectors.kafka import KafkaLog
from connectors.timescale import TimescaleStore
from infra.forfeit import flag_state, taking_over
from infra.forfeit.books import Given, hold, lost_by
from infra.forfeit.decision import At, Decision, Found, Undecided, decide
from infra.settings_option import add_settings_option, chosen_settings
from infra.sql import table
from schemas.errors import OperatorError
from schemas.progress import Anchor
from schemas.settings import Settings

GROUP = "ionwax-forfeit"  # of the client library's making; it holds no positions


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./justw forfeit",
        description="Go on with a log that is not as it is on record, and write down what is given up by that.",
    )
    parser.add_argument(
        "--at",
        choices=("beginning", "position", "end"),
        help="where another log is begun: its records are new, the same as on record, or of no interest",
    )
    parser.add_argument("--flow", metavar="NAME", help="another flow than flow.name of the settings")
    parser.add_argument("--topic", metavar="NAME", help="the topic that it reads (of flags output.topic, else kafka's)")
    parser.add_argument("--yes", action="store_true", help="do it; without, only say what would be done")
    add_settings_option(parser)
    chosen = parser.parse_args(arguments)
    settings = chosen_settings(chosen, "KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")
    begins = begin_anew(settings, chosen.at, chosen.yes, chosen.flow, chosen.topic)
    if begins is not None:
        print(*table(["partition", "begins at"], [list(one) for one in sorted(begins.items())]), sep="\n")
        return _said(chosen.yes)
    decisions, given = forfeit(settings, chosen.at, chosen.yes, chosen.flow, chosen.topic)
    if not decisions:
        print("nothing to give up: the log is as it is on record")
        return 0
    header = ["partition", "what is wrong", "goes on at", "offsets given up", "readings lost"]
    rows = [[p, one.wrong, one.position, given[p].offsets, given[p].lost] for p, one in sorted(decisions.items())]
    print(*table(header, rows), sep="\n")
    if any(one.offsets < 0 for one in given.values()):
        print("(below 0: the log gives offsets a second time, and what they hold now is counted as new)")
    if chosen.flow == settings.flags.name:
        print(flag_state.said({one.wrong for one in decisions.values()}))
    return _said(chosen.yes)


def _said(yes: bool) -> int:
    print("done, and written down in forfeits" if yes else "nothing was changed: give --yes to do it")
    return 0


def begin_anew(
    settings: Settings, at: At | None, yes: bool, flow: str | None = None, topic: str | None = None
) -> Mapping[int, int] | None:
    """Where each partition begins of a flow whose progress is gone; None where it is not. Raises ``OperatorError``."""
    its = taking_over.Flow.of(settings, *_chosen(settings, flow, topic))
    if its is None or not taking_over.is_gone(settings, its):
        return None
    log = KafkaLog(settings.kafka, its.topic, GROUP)
    bounds = {partition: log.bounds(partition) for partition in log.partitions()}
    return taking_over.take_over(settings, its, log.identity(), bounds, at, yes)


def _chosen(settings: Settings, flow: str | None, topic: str | None) -> tuple[str, str]:
    """Which flow, and what it reads, where that is not said."""
    flow = flow or settings.flow.name
    return flow, topic or (settings.output.topic if flow == settings.flags.name else settings.kafka.events_topic)


def forfeit(
    settings: Settings, at: At | None, yes: bool, flow: str | None = None, topic: str | None = None
) -> tuple[Mapping[int, Decision], Mapping[int, Given]]:
    """Decide for every partition, and where ``yes`` let it hold. Raises ``OperatorError``."""
    flow, topic = _chosen(settings, flow, topic)
    log = KafkaLog(settings.kafka, topic, GROUP)
    standing = _standing(settings, flow, topic)
    if not standing:
        raise OperatorError(f"flow {flow} has no progress for topic {topic}: there is nothing to give up")
    topic_id = log.identity()
    bounds = {partition: log.bounds(partition) for partition in log.partitions()}
    decisions = {}
    for partition, one in sorted(standing.items()):
        if partition not in bounds:
            raise OperatorError(f"{topic} has no partition {partition} any more; Kafka cannot shrink a topic by itself")
        low, high = bounds[partition]
        found = Found(topic_id, low, high, len(bounds), _anchor(log, partition, one))
        try:
            decision = decide(one, found, at)
        except Undecided as undecided:
            raise OperatorError(
                f"Partition {partition} of {topic}: {undecided.wrong}. Only you can know what its records are: give "
                f"--at beginning (all are new), --at position (those before offset {one.progress.position} are counted "
                "already) or --at end (none is to be counted)."
            ) from None
        if decision is not None:
            decisions[partition] = decision
    of_windows = flow == settings.flow.name  # no other flow keeps readings open
    lost = {p: lost_by(settings, log, p, standing[p], one) if of_windows else 0 for p, one in decisions.items()}
    if not yes:
        moves = {p: decision.position - standing[p].progress.position for p, decision in decisions.items()}
        return decisions, {p: Given(moves[p], lost[p]) for p in decisions}
    lows = {partition: low for partition, (low, _) in bounds.items()}
    together = {p: (decision, lost[p]) for p, decision in decisions.items()}
    return decisions, hold(settings, flow, topic, topic_id, lows, standing, together)


def _standing(settings: Settings, flow: str, topic: str) -> Mapping[int, Standing]:
    """What is on record; of the settings' own flow it is refused where the settings do not fit it."""
    output, shape = settings.output.table, f"windows of {settings.windows.length_secs} s"
    if flow != settings.flow.name:
        with timescale_connection.connect_or_say(settings.database.conninfo, "ionwax forfeit") as connection:
            row = connection.execute("select output, shape from progress where flow = %s limit 1", [flow]).fetchone()
        output, shape = row or (output, shape)
    store = TimescaleStore(settings.database, flow, output, shape)
    try:
        return store.standing(topic)
    finally:
        store.close()


def _anchor(log: KafkaLog, partition: int, standing: Standing) -> Anchor | None:
    anchor = standing.progress.anchor
    return None if anchor is None else log.anchor(partition, anchor.offset)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"forfeit: {error}")
