"""What ``anomaly_flags`` has learned, where the log that it learned from was given up.

Rule: a state knows devices and times, and nothing of offsets but where the log goes on. So it is carried over to where
the flow goes on: windows that were judged are not judged again, lost ones never were, detectors and episodes go on.
Where devices lie in other partitions than before, a partition would miss those that left it: there all begin anew, and
what stood open is closed.

The state on record is minutes older than what was told. Where the log between is lost, an episode that closed in it
stands open again, under its own id, until it is calm, and one that opened in it is closed (cause ``settings``).
"""

from connectors import timescale_flags
from connectors.timescale_connection import Connection
from dataflows.anomalies import keeping
from dataflows.anomalies.judge import Judge
from infra.forfeit.decision import Wrong


def go_on(connection: Connection, place: timescale_flags.Place, resume: int, length_ms: int, anew: bool) -> None:
    """Let the state of a partition be as of ``resume``: what it is, or nothing."""
    if anew or not timescale_flags.carry(connection, place, resume):
        timescale_flags.keep(connection, place, keeping.snapshot(Judge((), length_ms), resume))


def said(wrongs: set[Wrong]) -> str:
    """What becomes of what was learned, for a person."""
    if Wrong.GROWN in wrongs:
        return "what was learned of the series is begun anew: they lie in other partitions now"
    return "what was learned of the series is kept; minutes that are given up are never judged"
