"""A wire to a database that can be cut where it hurts: before a COMMIT arrives, or before its answer does."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Cut = Literal["request", "answer"]
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


class Wire:
    """A TCP relay on loopback. ``cut_commits``: what to do to the next COMMITs that pass. ``down``: refuse everyone."""

    def __init__(self, conninfo: str) -> None:
        given = conninfo_to_dict(conninfo)
        self._server = (str(given["host"]), int(given["port"] or 5432))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.conninfo = make_conninfo(conninfo, host="127.0.0.1", port=self._listening.getsockname()[1])
        self.cut_commits: list[Cut] = []
        self.cuts = 0
        self.down = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection that is open now."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self.down:
                client.close()
                continue
            server = socket.create_connection(self._server)
            self._open += [client, server]
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        """What the client says; a COMMIT to be cut is dropped, or delivered and its answer swallowed."""
        with contextlib.suppress(OSError):
            while said := client.recv(65_536):
                if COMMIT in said and self.cut_commits:
                    self.cuts += 1
                    if self.cut_commits.pop(0) == "answer":
                        self._open.remove(client)  # marks it: nothing goes back any more
                        server.sendall(said)
                        server.shutdown(socket.SHUT_WR)  # the server answers, then sees us leave
                        return
                    break
                server.sendall(said)
        for one in (client, server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while answered := server.recv(65_536):
                if client in self._open:
                    client.sendall(answered)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wire(conninfo: str) -> Iterator[Wire]:
    made = Wire(conninfo)
    try:
        yield made
    finally:
        made.close()
