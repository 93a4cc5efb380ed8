"""Dead letters: what could not be used, as it came, with the reason and where it was.

The payload is the record's value, untouched. One above the size limit is cut to its first 64 KB, and headers tell its
``original-size`` and ``sha256``. Headers are text in UTF-8; ``detail`` is for a person and bounded.
"""

import hashlib
from typing import Final

from dataflows.decoding.reasons import Flaw, Reason
from schemas.log import Refused
from schemas.record import Headers, Record

CUT_BYTES: Final = 65_536
DETAIL_CHARS_MAX: Final = 2_000


def dead_letter(
    topic: str,
    payload: bytes,
    flaw: Flaw,
    where: Headers,
    payload_bytes_max: int,
    timestamp_ms: int | None = None,
) -> Record:
    """The record for ``topic``; ``where`` are the headers that tell the payload's origin."""
    headers = (("reason", flaw.reason.encode()), ("detail", header_text(flaw.detail)), *where)
    if len(payload) > payload_bytes_max:
        size, digest = str(len(payload)).encode(), hashlib.sha256(payload).hexdigest().encode()
        headers = (*headers, ("original-size", size), ("sha256", digest))
        payload = payload[:CUT_BYTES]
    return Record(topic, payload, headers=headers, timestamp_ms=timestamp_ms)


def dead_letter_from_log(
    topic: str, refused: Refused, source_topic: str, partition: int, payload_bytes_max: int
) -> Record:
    """The record for what a dataflow could not use of ``source_topic``, found again by partition and offset.

    Kafka stamps it with the time of writing: a backlog's own time could be older than the dead letters' retention.
    """
    where = (
        ("source-topic", header_text(source_topic)),
        ("source-partition", str(partition).encode()),
        ("source-offset", str(refused.offset).encode()),
    )
    flaw = Flaw(Reason(refused.reason), refused.detail)
    return dead_letter(topic, refused.payload, flaw, where, payload_bytes_max)


def header_text(text: str) -> bytes:
    """``text`` as a header's bytes: bounded, and UTF-8 whatever it holds."""
    return text[:DETAIL_CHARS_MAX].encode(errors="backslashreplace")
