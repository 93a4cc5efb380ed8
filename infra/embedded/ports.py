"""Free loopback ports.

Rule: ports come from below the kernel's ephemeral range. A port from inside it may be taken, between a
server's death and its restart, by any outgoing connection; a client that keeps trying to reach the dead
server can even be given the server's own port as its source, and then talks to itself.
"""

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
_PORT_MIN = 15_000
_EPHEMERAL_MIN = 32_768  # Linux and most others; read from the kernel where it says
_TRIES_MAX = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now; connections in TIME_WAIT do not matter."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A loopback port that nothing listens on; another process may still take it first."""
    ceiling = _ephemeral_port_min()
    for _ in range(_TRIES_MAX):
        port = random.randrange(min(_PORT_MIN, ceiling - 1_000), ceiling)
        if is_free(port):
            return port
    with socket.socket() as probe:  # a machine with an unusual range: let the kernel choose
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _ephemeral_port_min() -> int:
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_MIN
    return max(lowest, 3_000)
