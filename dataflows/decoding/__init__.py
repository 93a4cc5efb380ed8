"""What bytes mean: MQTT payloads to records for the log, and records of the log to frames.

    Arrivals ─decode_arrivals─▶ Record…          (the ingest dataflow)
    LogBatch ─decode_log─▶ LogSlice              (every dataflow that reads raw.events)

Rule: pure. No clock, no I/O, no Bytewax; whatever is needed comes in as an argument.

Guarantee: no payload raises. Each becomes readings, or a ``Reason`` with its original bytes, or both where
some of its metrics are good. What the first function emits, the second decodes to the same readings.

One file a format, registered in ``formats``; a payload format is added with one file and one line there.
"""
