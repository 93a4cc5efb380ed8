"""What a dataflow process answers over HTTP, in a thread of its own: ``/metrics`` and ``/ready``.

Guarantee: costs nothing while nobody asks. ``/ready`` is 200 while ``connectors.health`` has no reason against it,
else 503; the reasons are in its JSON. On loopback unless the settings say otherwise; nothing here shows a secret, and
nothing can be changed through it.
"""

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Final

import msgspec
from prometheus_client import disable_created_metrics
from prometheus_client.exposition import choose_encoder

from connectors import epochs
from connectors.health import HEALTH, Limits
from connectors.metering import REGISTRY
from connectors.share import read_share
from schemas.errors import OperatorError
from schemas.settings import MetricsSettings

ANSWER_SECS_MAX: Final = 10.0  # a client that does not go on is let go
LOOK_SECS: Final = 3600.0  # the thread sleeps until somebody asks

_serving = threading.Event()


def serve(settings: MetricsSettings, flow: str, share: str = "0/1") -> None:
    """Serve this process's metrics and health from now on, and print where. Once a process; later calls do nothing.

    ``share`` "i/n" is that of an independent process, which adds i to a port that is given. Raises ``OperatorError``
    where the address cannot be had.
    """
    if _serving.is_set():
        return
    HEALTH.flow = flow
    HEALTH.limits = Limits(settings.epoch_age_max_secs, settings.commit_age_max_secs)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # nobody asks when a counter was made
    port = settings.port + epochs.process_index() + read_share(share)[0]
    try:
        server = _Server((settings.host, port if settings.port else 0))
    except (OSError, OverflowError) as error:
        raise OperatorError(
            f"metrics.port {port} on {settings.host} cannot be had: {error}. Another dataflow with the same settings "
            "file? Give this one another METRICS_PORT, or 0 for a free one."
        ) from None
    _serving.set()
    threading.Thread(target=server.serve_forever, args=[LOOK_SECS], name="metrics", daemon=True).start()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    say(f"{flow}: metrics and health on http://{host}:{server.server_port}")


def say(words: str) -> None:
    """To standard error, where a supervisor and a person look for it."""
    print(words, file=sys.stderr, flush=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 16

    def __init__(self, address: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Answer)

    def server_bind(self) -> None:
        """As HTTPServer's, without asking a name server for our name, which can take long."""
        TCPServer.server_bind(self)
        self.server_port = self.socket.getsockname()[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


class _Answer(BaseHTTPRequestHandler):
    timeout = ANSWER_SECS_MAX
    server_version = "ionwax"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept") or "")
            self._answer(200, content_type, encode(REGISTRY))
        elif path == "/ready":
            report = HEALTH.report()
            body = {"ready": report.ready, **msgspec.to_builtins(report)}
            self._answer(200 if report.ready else 503, "application/json", msgspec.json.encode(body) + b"\n")
        else:
            self._answer(404, "text/plain; charset=utf-8", b"/metrics\n/ready\n")

    do_HEAD = do_GET

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads that somebody asked."""
