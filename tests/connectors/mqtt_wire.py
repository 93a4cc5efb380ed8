"""A wire to an MQTT broker that can be cut, held down, or made to lose what the client says."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

PUBACK = 0x40


class Wire:
    """A TCP relay on loopback; ``connections`` counts those it carried.

    ``mute``: the client's words are swallowed. ``down``: whoever comes is sent away.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (str(parts.hostname), parts.port or 1883)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = 0
        self.mute = False
        self.down = False
        self._said: list[bytearray] = []  # by the client, a connection each
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_error: object) -> None:
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection that is open now."""
        while self._open:
            with contextlib.suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Nobody gets through, and nobody is left."""
        self.down = True
        self.cut()
        yield
        self.down = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
                if self.down:
                    client.close()
                    continue
                server = socket.create_connection(self._server)
            except OSError:
                return
            self.connections += 1
            self._open += [client, server]
            self._said.append(said := bytearray())
            threading.Thread(target=self._carry, args=(client, server, said), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, None), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, said: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if said is not None:
                    said += data
                if said is None or not self.mute:
                    target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def pubacks(self) -> int:
        """How many PUBACKs the client has sent."""
        return sum(_pubacks(bytes(said)) for said in self._said)


def _pubacks(said: bytes) -> int:
    """How many are in what was said on one connection; what a cut left of a packet counts as it begins."""
    count = at = 0
    while at < len(said):
        count += said[at] == PUBACK
        length, shift, at = 0, 0, at + 1
        while at < len(said):
            length |= (said[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if said[at - 1] < 0x80:
                break
        at += length
    return count
