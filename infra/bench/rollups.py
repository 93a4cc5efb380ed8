"""The cases of `./justw bench rollups`: from Kafka to rows in PostgreSQL, and the idiomatic flow on the same log."""

from collections.abc import Sequence

from infra.bench.case import Case

KAFKA = "infra.bench.windows_kafka"
MESSAGES = 20_000_000


def cases(messages: int = MESSAGES) -> Sequence[Case]:
    made = []
    for devices in (1_000, 100_000):
        group = f"From Kafka, four metrics a message, {devices:,} devices"
        few = {"messages": max(messages // 50, 1_000), "devices": devices}
        made.append(Case(group, "idiomatic Bytewax, one process", KAFKA, "idiomatic", few, base=True))
        for processes in (1, 2):
            arguments = {"messages": messages, "devices": devices, "processes": processes}
            made.append(
                Case(group, f"`minute_rollups`, {processes} process{'es' * (processes > 1)}", KAFKA, "ours", arguments)
            )
    return made
