"""A wire to an MQTT broker that can be cut, or made to lose what the client says."""

import contextlib
import socket
import threading
from urllib.parse import urlsplit

PUBACK = 0x40


class Wire:
    """A TCP relay on loopback; ``connections`` counts those it carried. ``mute``: the client's words are swallowed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (str(parts.hostname), parts.port or 1883)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = 0
        self.mute = False
        self._said = bytearray()  # by the client
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

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._server)
            except OSError:
                return
            self.connections += 1
            self._open += [client, server]
            threading.Thread(target=self._carry, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if from_client:
                    self._said += data
                if not (from_client and self.mute):
                    target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def pubacks(self) -> int:
        """How many PUBACKs the client has sent, over a wire that was not cut."""
        count = at = 0
        while at < len(self._said):
            length, shift, start = 0, 0, at + 1
            while True:
                length |= (self._said[start] & 0x7F) << shift
                shift, start = shift + 7, start + 1
                if self._said[start - 1] < 0x80:
                    break
            count += self._said[at] == PUBACK
            at = start + length
        return count
