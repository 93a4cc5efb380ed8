"""`./justw chaos [--minutes N] [--seed S] [--mqtt URL] [--kafka ADDRESS] [--database CONNINFO]`.

Exit status 1 says that something was lost, counted twice, or not as in an undisturbed run; the lines above it say what.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infra.chaos.run import Outcome, Run
from infra.chaos.schedule import ARCHIVE, FLAGS, FLOWS, Act, schedule
from infra.chaos.servers import ADDRESSES, servers
from schemas.errors import OperatorError

FINDINGS_SHOWN_MAX: Final = 60


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./justw chaos", description="Break everything at random, and show that nothing was lost or counted twice."
    )
    parser.add_argument("--minutes", type=float, default=1.0, metavar="N", help="how long things are broken (1)")
    parser.add_argument("--seed", type=int, help="what is broken when; a new one each time by default")
    parser.add_argument("--rate", type=float, default=60.0, metavar="N", help="messages a second (60)")
    parser.add_argument("--archive", action="store_true", help="run and disturb raw_archive, too")
    parser.add_argument("--flags", action="store_true", help="run and disturb anomaly_flags, too")
    parser.add_argument(
        "--supervised", choices=("shares", "cluster"), default="",
        help="run each dataflow by ./justw run --processes 2, and kill its processes and now and then the supervisor",
    )  # fmt: skip
    parser.add_argument("--plan", action="store_true", help="print the schedule, and do nothing")
    parser.add_argument(
        "--outage",
        type=_outage,
        metavar="SERVER=SECS",
        help="instead of the schedule: refuse mqtt, kafka, database or all for so long",
    )
    for name in ADDRESSES:
        parser.add_argument(f"--{name}", metavar="ADDRESS", help="a server of your own; an embedded one by default")
    chosen = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)  # whoever ends it wants nothing left running either
    seed = random.randrange(1_000_000) if chosen.seed is None else chosen.seed
    for_secs = 60.0 * chosen.minutes
    names = (*FLOWS, *([ARCHIVE] if chosen.archive else []), *([FLAGS] if chosen.flags else []))
    acts = schedule(seed, for_secs, names)
    if chosen.outage:
        target, secs = chosen.outage
        acts, for_secs = [Act(10.0, "refuse", target, secs)], secs + 25.0
    print(f"seed {seed}: {len(acts)} acts in {for_secs:.0f} s")
    print(*(f"{act.at_secs:6.1f} s  {act}" for act in acts), sep="\n", end="\n\n", flush=True)
    if chosen.plan:
        return 0
    folder = Path(tempfile.mkdtemp(prefix="ionwax-chaos-"))
    began = time.monotonic()
    try:
        with servers({name: getattr(chosen, name) for name in ADDRESSES}, _say) as found:
            run = Run(found, folder, rate=chosen.rate, names=names, supervised=chosen.supervised, say=_say)
            outcome = run.run(acts, for_secs)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return _told(outcome, seed, folder, time.monotonic() - began)


def _outage(text: str) -> tuple[str, float]:
    target, _, secs = text.partition("=")
    if target not in (*ADDRESSES, "all") or not secs.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: such as kafka=30, of {', '.join(ADDRESSES)} and all")
    return target, float(secs)


def _told(outcome: Outcome, seed: int, folder: Path, secs: float) -> int:
    print(f"\n{sum(outcome.done.values())} acts ({', '.join(f'{n} {kind}' for kind, n in outcome.done.most_common())})")
    if outcome.left:
        print(f"{outcome.left} acts were left out: the machine was too slow for them")
    for name, ends in outcome.ends.items():
        words = ", ".join(f"{n} times with {status}" for status, n in sorted(ends.items()))
        memory = ", ".join(map(str, outcome.resident_mb[name]))
        print(f"{name} ended {words}; took {memory} MB at most before, during and after that")
    print(f"{outcome.sent} messages, {outcome.rows} rows, {outcome.late} late; {outcome.fenced} processes fenced off")
    if FLAGS in outcome.ends:
        print(f"{outcome.alerts} alerts, of both flows of flags")
    for finding in outcome.findings[:FINDINGS_SHOWN_MAX]:
        print(f"✗ {finding}")
    if outcome.findings:
        print(
            f"✗ seed {seed} after {secs:.0f} s: {len(outcome.findings)} findings; logs, settings and record: {folder}"
        )
        return 1
    shutil.rmtree(folder)
    print(f"✓ seed {seed} after {secs:.0f} s: the table equals an undisturbed run's, and verify explains every reading")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OperatorError as error:
        sys.exit(f"chaos: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
