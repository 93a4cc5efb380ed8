"""An MQTT broker (rumqttd, from the `iotcore` wheel) as a child process of its own.

Rule: loopback only.
"""

import socket
import sys
from pathlib import Path

from infra.embedded.child import Command
from infra.embedded.ports import LOOPBACK
from infra.embedded.server import Server

_ROOT = Path(__file__).resolve().parents[2]
_CONFIG = """\
id = 0

[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "v5"
listen = "{listen}"
next_connection_delay_ms = 0

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 4194304
max_inflight_count = 1000
dynamic_filters = true
"""


class MqttBroker(Server):
    """rumqttd, which keeps sessions and messages in memory."""

    title = "MQTT broker"
    version = "rumqttd 0.20"

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        return f"mqtt://{self.address}"

    def command(self) -> Command:
        config = self.data / "rumqttd.toml"
        config.write_text(_CONFIG.format(listen=self.address))
        return Command(
            title=self.title,
            argv=[sys.executable, "-m", "infra.embedded.mqtt", str(config)],
            cwd=self.data,
            log=self.log,
            env={"PYTHONPATH": str(_ROOT)},
        )

    def answers(self) -> bool:
        """Whether the port is open."""
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        except OSError:
            return False
        return True


if __name__ == "__main__":
    from iotcore.iotcore import IotCoreBroker

    IotCoreBroker(config_path=sys.argv[1]).run_forever()
