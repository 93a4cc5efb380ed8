"""What runs in a demo: servers, topics, tables, dataflows, maintenance, a fleet; in which order it starts, and stops.

Rule: the fleet begins as soon as the broker is there, and says its history before ingest begins: devices that had been
offline, whose readings wait at the broker. Live ticks would otherwise close minutes that history is still filling.

Stopping goes with the stream: the fleet, then ingest (which drains what it has), then the rollups (which account for
all of the log), then the flags, then the servers. What does not stop in time is killed.
"""

import fcntl
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import yaml

from connectors import kafka_topics
from infra.demo.doorstep import subscribe_ahead
from infra.demo.figures import Watch, latest_report
from infra.demo.wish import Wish
from infra.duration import spoken
from infra.embedded.child import Child, Command
from infra.embedded.kafka import KafkaBroker
from infra.embedded.mqtt import MqttBroker
from infra.embedded.postgres import PostgresServer
from infra.embedded.server import Server
from infra.embedded.unprivileged import account_if_root, temporary_directory
from infra.migrations import migrate
from infra.running import SETTINGS
from schemas.errors import OperatorError
from schemas.settings_file import load

ROOT: Final = Path(__file__).resolve().parents[2]
DEMO_SETTINGS: Final = ROOT / "infra" / "settings" / "demo.yaml"
RULES: Final = Path(__file__).with_name("rules.yaml")
DATAFLOWS: Final = ("ingest", "minute_rollups", "anomaly_flags")
MAINTAIN: Final = (sys.executable, "-m", "infra.maintain", "--every", "15s", "--letters")
LOCK: Final = "demo.lock"
HISTORY_SECS_MAX: Final = 120.0
BEFORE_SECS: Final = 16_200  # ahead of the history, once a minute and device: novelty warms up for 250 minutes
CAUGHT_UP_SECS_MAX: Final = 5.0
HASTE: Final = {"epoch_interval_ms": 50, "progress_every_secs": 1}
"""Where the demo's settings are not those of demo.yaml: a reading's way into the log is short, and one sees it move."""

CREDENTIALS: Final = {"username": "MQTT_USERNAME", "password": "MQTT_PASSWORD", "ca_file": "MQTT_CA_FILE"}
PASSED_ON: Final = ("HOME", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", *CREDENTIALS.values())
"""What of our own environment a child is given, beside the addresses."""


class Topology:
    """Use as a context: inside it everything runs; when it ends nothing does. ``say`` hears each step as it is done."""

    def __init__(self, wish: Wish, say: Callable[[str, str, str], None]) -> None:
        self.wish = wish
        self.started = time.monotonic()
        self.data = _own_directory()
        self.children: dict[str, Child] = {}
        self.watch: Watch | None = None
        self.fleet_log = self.data / "fleet.log"
        self.asked_to_stop = False
        self.stopping = False
        self.hurry = False
        self.logs_kept = False
        self._say = say
        self._servers: list[Server] = []

    @property
    def addresses(self) -> dict[str, str]:
        """Where to find it all, by the names of the environment."""
        return {
            "MQTT_URL": self.wish.mqtt or self._mqtt.url,
            "KAFKA_BOOTSTRAP_SERVERS": self._kafka.bootstrap_servers,
            "DATABASE_URL": self._postgres.conninfo,
            SETTINGS: str(self._settings_path),
        }

    @property
    def watched(self) -> Watch:
        assert self.watch is not None, "not started"
        return self.watch

    @property
    def described(self) -> list[tuple[str, str]]:
        """Name and version of each server, and its address."""
        found = [(f"{server.title} {server.version}", server.address) for server in self._servers]
        return [("your own MQTT broker", self.wish.mqtt), *found] if self.wish.mqtt else found

    def __enter__(self) -> "Topology":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Starting

    def _start(self) -> None:
        self._settings_path = self._write_settings()
        self._say("logs", str(self.data), "")
        self._begin_servers()
        if not self.wish.mqtt:
            self._await(self._mqtt, self._mqtt.url)
        self._settings = load(self._settings_path, os.environ | {"MQTT_URL": self.wish.mqtt or self._mqtt.url})
        subscribe_ahead(self._settings.mqtt)
        if not self.wish.mqtt:
            self._start_fleet()
        self._await(self._postgres, self._postgres.address)
        migrate(self._postgres.conninfo)
        self._await(self._kafka, self._kafka.bootstrap_servers)
        self.settings = load(self._settings_path, os.environ | self.addresses)
        kafka_topics.ensure(self.settings)
        if not self.wish.mqtt:
            self._await_history()
        for name in DATAFLOWS:
            self._start_dataflow(name)
        self._start_child("maintain", MAINTAIN, "hours, days, partitions", grace_secs=2.0)
        self.watch = Watch(self.settings, self.fleet_log, self.started)
        self.watch.start()

    def _write_settings(self) -> Path:
        """demo.yaml with what is particular here."""
        document = yaml.safe_load(DEMO_SETTINGS.read_text())
        document["flow"] |= HASTE
        document["flags"]["rules_file"] = str(RULES)
        if self.wish.mqtt:
            document["mqtt"] |= {
                # Not the session of an ingest that somebody runs there; and none that outlives the demo for long.
                "client_id": f"ionwax-demo-{os.getpid()}-{int(time.time())}",
                "session_expiry_secs": 60,
                **({"topic": self.wish.topic} if self.wish.topic else {}),
                **{key: f"${{{name}}}" for key, name in CREDENTIALS.items() if os.environ.get(name)},
            }
            document["flags"]["alerts"] = False  # it is not our broker to publish to
        path = self.data / "settings.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def _begin_servers(self) -> None:
        self._kafka = KafkaBroker(self.data / "kafka", say=self._progress)
        self._postgres = PostgresServer(self.data / "postgres", say=self._progress)
        self._mqtt = MqttBroker(self.data / "mqtt", say=self._progress)
        for server in (self._kafka, self._postgres, *(() if self.wish.mqtt else (self._mqtt,))):
            self._servers.append(server)
            server.begin()

    def _progress(self, words: str) -> None:
        self._say("", words, "")

    def _await(self, server: Server, where: str) -> None:
        server.await_ready()
        self._say(f"{server.title} {server.version}", where, self._time())

    def _start_fleet(self) -> None:
        wish = self.wish
        arguments = [
            *("--mqtt", self._mqtt.url, "--topic", self._settings.mqtt.topic, "--devices-per-user", str(wish.devices)),
            *("--history", str(wish.history_secs), "--before", str(BEFORE_SECS if wish.history_secs else 0)),
            *("--forever", "--faults", wish.faults, "--seed", str(wish.seed)),
            *("--report", "json", *(("--record", str(wish.record.absolute())) if wish.record else ())),
        ]
        said = f"{wish.devices} devices" + (
            f", the last {spoken(wish.history_secs)} first" if wish.history_secs else ""
        )
        self._start_child("fleet", [sys.executable, "-m", "infra.load", *arguments], said, grace_secs=12.0)

    def _await_history(self) -> None:
        """Return when all of the history is with the broker."""
        deadline = time.monotonic() + HISTORY_SECS_MAX
        while (told := latest_report(self.fleet_log)) is None or told["history_done_secs"] is None:
            self.check()
            if time.monotonic() > deadline:
                raise OperatorError(f"the fleet did not send its history within {HISTORY_SECS_MAX:.0f} s")
            time.sleep(0.05)

    def _start_dataflow(self, name: str) -> None:
        factory = f"dataflows.{name}:flow({str(self._settings_path)!r})"
        argv = (sys.executable, "-m", "bytewax.run", factory, "-s", "1")
        self._start_child(name, argv, "bytewax dataflow", grace_secs=10.0)

    def _start_child(self, name: str, argv: Sequence[str], said: str, grace_secs: float) -> None:
        place = self.data / name
        place.mkdir()
        log = self.data / f"{name}.log"
        command = Command(name, argv, cwd=place, log=log, env=self._environment(), grace_secs=grace_secs)
        self.children[name] = Child(command)
        self._say(name, said, self._time())

    def _environment(self) -> dict[str, str]:
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return passed | self.addresses | {"PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}

    def _time(self) -> str:
        return f"{time.monotonic() - self.started:.1f} s"

    # Watching

    def check(self) -> None:
        """Raise an ``OperatorError`` where a process ended by itself, with the end of its log; logs are kept then."""
        try:
            for child in self.children.values():
                if child.exit_code is not None:
                    raise child.failure()
            for server in self._servers:
                server.check()
        except OperatorError:
            self.logs_kept = True
            raise

    # Stopping

    def stop(self) -> None:
        """Stop everything, in the order of the stream. Once ``hurry`` is set, what does not stop at once is killed."""
        self.stopping = True
        for gently, by_force in self._ends():
            step = threading.Thread(target=gently)
            step.start()
            forced = False
            while step.is_alive():
                step.join(0.05)
                if self.hurry and not forced:
                    by_force()
                    forced = True
        self._remove_data()

    def _ends(self) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
        healthy = all(child.exit_code is None for child in self.children.values())
        for name in ("fleet", *DATAFLOWS, "maintain"):
            if name == "minute_rollups" and healthy and self.watch:
                yield self._await_end_of_log, lambda: None
            if name in self.children:
                yield self.children[name].stop, self.children[name].kill
        if self.watch:
            yield self.watch.close, lambda: None
        yield self._stop_servers, self._kill_servers

    def _await_end_of_log(self) -> None:
        """Give the rollups the time to account for all that ingest left in the log."""
        assert self.watch
        deadline = time.monotonic() + CAUGHT_UP_SECS_MAX
        asked = self.watch.figures.secs
        while not self.hurry and time.monotonic() < deadline and self.children["minute_rollups"].exit_code is None:
            now = self.watch.figures
            if now.secs > asked and all(place.position == place.end for place in now.places.values()):
                return
            time.sleep(0.05)

    def _stop_servers(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.stop(), self._servers))

    def _kill_servers(self) -> None:
        for server in self._servers:
            server.kill()

    def _remove_data(self) -> None:
        """Remove all, or all but the logs where somebody will want to read them."""
        for server in self._servers:
            if self.logs_kept and server.log.exists():
                shutil.copy(server.log, self.data / f"{type(server).__name__}.log")
            server.erase()
        for path in self.data.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        (self.data / LOCK).unlink(missing_ok=True)
        if not self.logs_kept:
            shutil.rmtree(self.data, ignore_errors=True)


def _own_directory() -> Path:
    """A new directory, locked while this process lives; those that a killed demo left behind are removed."""
    made = temporary_directory(account_if_root())
    fcntl.flock(os.open(made / LOCK, os.O_CREAT | os.O_WRONLY), fcntl.LOCK_EX)  # open for as long as we live
    for other in made.parent.glob(f"ionwax-*/{LOCK}"):
        with suppress(OSError), other.open() as theirs:  # not ours, still held, or gone meanwhile
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(other.parent)
    return made
