"""`./justw load`: a simulated fleet against any MQTT 5 broker, with an exact record of what it sent.

Ends by itself, on Ctrl-C and on SIGTERM; then waits up to ten seconds for the last acknowledgements. Exit status 0
means that the broker acknowledged everything, 1 that it did not. User and password are those of MQTT_USERNAME and
MQTT_PASSWORD.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from threading import Event
from typing import Final

import msgspec

from infra.duration import seconds, spoken
from infra.fleet.plan import RATES, TOPIC, Plan, parse_faults
from infra.fleet.run import Tally, now_ms, run_fleet
from schemas.errors import OperatorError
from schemas.settings import MqttSettings

DEFAULT_URL: Final = "mqtt://127.0.0.1:1883"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="./justw load", description="A simulated fleet against any MQTT 5 broker, at QoS 1."
    )
    where = made.add_argument_group("where")
    where.add_argument("--mqtt", metavar="URL", help=f"mqtt://host:1883 or mqtts://host (MQTT_URL, else {DEFAULT_URL})")
    where.add_argument("--topic", default=TOPIC, metavar="TEMPLATE", help="may name {user} and {device_id}")
    where.add_argument("--ca-file", metavar="FILE", help="whom to trust, where the system does not")
    where.add_argument("--cert-file", metavar="FILE", help="client certificate")
    where.add_argument("--key-file", metavar="FILE", help="its key")
    what = made.add_argument_group("what")
    what.add_argument("--users", type=int, default=1, metavar="N")
    what.add_argument("--devices-per-user", type=int, default=24, metavar="N")
    what.add_argument("--rate", type=float, default=None, metavar="N", help="messages a second, of all (one a device)")
    what.add_argument("--for", dest="for_secs", type=seconds, default=60.0, metavar="TIME", help="60s, 10m, 1h (60s)")
    what.add_argument(
        "--history", type=seconds, default=0.0, metavar="TIME", help="send this past first, at full speed"
    )
    what.add_argument(
        "--before",
        type=seconds,
        default=0.0,
        metavar="TIME",
        help="and ahead of it this, once a minute, without faults",
    )
    what.add_argument("--forever", action="store_true", help="until stopped, instead of --for")
    what.add_argument("--format", choices=("json", "protobuf"), default="json")
    what.add_argument(
        "--faults", default="none", metavar="LIST", help=f"all, none, or NAME[=SHARE],… of {', '.join(RATES)}"
    )
    what.add_argument("--window", type=seconds, default=60.0, metavar="TIME", help="of the dataflow: says what is late")
    what.add_argument("--lateness", type=seconds, default=10.0, metavar="TIME", help="that the dataflow allows (10s)")
    what.add_argument("--seed", type=int, default=1, metavar="N", help="equal seeds measure and fail alike")
    how = made.add_argument_group("how")
    how.add_argument("--record", metavar="FILE", help="an exact record of what was sent (infra/fleet/record.py)")
    how.add_argument("--in-flight", type=int, default=4_000, metavar="N", help="messages not acknowledged, at most")
    how.add_argument(
        "--report", choices=("text", "json"), default="text", help="json: one line of counters each half second"
    )
    return made


def plan(chosen: argparse.Namespace, start_ms: int) -> Plan:
    return Plan(
        start_ms=start_ms,
        seed=chosen.seed,
        users=chosen.users,
        devices_per_user=chosen.devices_per_user,
        rate=chosen.users * chosen.devices_per_user if chosen.rate is None else chosen.rate,
        for_secs=None if chosen.forever else chosen.for_secs,
        history_secs=chosen.history,
        before_secs=chosen.before,
        format=chosen.format,
        faults=parse_faults(chosen.faults),
        topic=chosen.topic,
        lateness_secs=chosen.lateness,
        window_secs=chosen.window,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    mqtt = MqttSettings(
        url=chosen.mqtt or os.environ.get("MQTT_URL") or DEFAULT_URL,
        username=os.environ.get("MQTT_USERNAME") or None,
        password=os.environ.get("MQTT_PASSWORD") or None,
        ca_file=chosen.ca_file,
        cert_file=chosen.cert_file,
        key_file=chosen.key_file,
    )
    asked = plan(chosen, now_ms())
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_then_die(stop))
    report = _report_json if chosen.report == "json" else _Line(asked)
    tally = run_fleet(mqtt, asked, chosen.record, stop=stop, report=report, in_flight_max=chosen.in_flight)
    if chosen.report == "text":
        print(summary(tally, chosen.record))
    return 0 if tally.sent == tally.acked else 1


def _stop_then_die(stop: Event) -> Callable[[int, object], None]:
    def told(number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(128 + number)  # the record stands as it is
        stop.set()

    return told


def _report_json(tally: Tally) -> None:
    print(msgspec.json.encode(tally).decode(), flush=True)


class _Line:
    """One line that renews itself on a terminal; elsewhere a line each ten seconds."""

    def __init__(self, asked: Plan) -> None:
        self._plan = asked
        self._terminal = sys.stderr.isatty()
        self._next_secs = 0.0
        self._last = (0.0, 0)

    def __call__(self, tally: Tally) -> None:
        before_secs, before = self._last
        rate = (tally.acked - before) / max(tally.secs - before_secs, 1e-9)
        behind = f"  {spoken(tally.behind_ms / 1_000)} behind" if tally.behind_ms > 2_000 else ""
        phase = "history" if tally.history_done_secs is None else "live"
        text = f"{phase:<8}{tally.sent:>10,} sent  {tally.acked:>10,} acknowledged  {rate:>8,.0f}/s{behind}"
        if self._terminal:
            print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)
            self._last = (tally.secs, tally.acked)
        elif tally.secs >= self._next_secs:
            print(text, file=sys.stderr, flush=True)
            self._next_secs = tally.secs + 10
            self._last = (tally.secs, tally.acked)


def summary(tally: Tally, record: str | None) -> str:
    """What was sent and what became of it, in a few lines."""
    rows = [
        ("sent", f"{tally.sent:,} messages in {tally.secs:.1f} s, {tally.sent / max(tally.secs, 1e-9):,.0f}/s"),
        ("acknowledged", f"{tally.acked:,}"),
    ]
    if tally.refused:
        rows.append(("refused", f"{tally.refused:,} by the broker"))
    if tally.unanswered:
        rows.append(("unanswered", f"{tally.unanswered:,}"))
    if tally.resent:
        rows.append(("sent again", f"{tally.resent:,} after {tally.reconnects} reconnects"))
    if tally.faults:
        rows.append(("with faults", ", ".join(f"{count:,} {name}" for name, count in tally.faults.most_common())))
    if record:
        rows.append(("record", record))
    lead = "\r" + " " * 78 + "\r" if sys.stderr.isatty() and sys.stdout.isatty() else ""
    return lead + "\n".join(f"{name:<13} {value}" for name, value in rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"load: {error}")
