"""How far flows and log are: asked of the servers themselves, not through the wires that are broken."""

from dataclasses import dataclass
from typing import Any, Final

import psycopg

from connectors.kafka import KafkaLog
from infra.chaos.schedule import ARCHIVE, FLAGS
from schemas.errors import OperatorError
from schemas.settings import Settings

CONNECT_SECS: Final = 2
INGEST: Final = "ingest"


@dataclass(frozen=True)
class Asking:
    """``settings`` name the servers, and the flows by their dataflows."""

    settings: Settings

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows; none where the database is away."""
        try:
            with psycopg.connect(self.settings.database.conninfo, connect_timeout=CONNECT_SECS) as connection:
                return connection.execute(query.encode(), values).fetchall()
        except psycopg.OperationalError:
            return []

    def done(self, dataflow: str) -> int:
        """What grows while a dataflow works: offsets in the log, offsets accounted for."""
        return self.log_end(dataflow) if dataflow == INGEST else self.position(dataflow)

    def flow(self, dataflow: str) -> str:
        """What a dataflow is called in ``progress``."""
        others = {ARCHIVE: self.settings.archive.name, FLAGS: self.settings.flags.name}
        return others.get(dataflow, self.settings.flow.name)

    def position(self, dataflow: str) -> int:
        return self._sum("position", dataflow)

    def claims(self, dataflow: str) -> int:
        """How often its partitions were claimed."""
        return 0 if dataflow == INGEST else self._sum("generation", dataflow)

    def log_end(self, dataflow: str) -> int:
        """The end of the log that it reads, of ingest that it writes; -1 where Kafka is away."""
        kafka, topic = self.settings.kafka, self.settings.kafka.events_topic
        log = KafkaLog(kafka, self.settings.output.topic if dataflow == FLAGS else topic, "ionwax-chaos")
        try:
            return sum(log.bounds(partition)[1] for partition in range(kafka.partitions))
        except OperatorError:
            return -1

    def _sum(self, column: str, dataflow: str) -> int:
        query = f"select coalesce(sum({column}), 0) from progress where flow = %s"
        return int((self.rows(query, self.flow(dataflow)) or [(0,)])[0][0])
