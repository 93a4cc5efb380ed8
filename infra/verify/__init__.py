"""`./justw verify`: is every reading accounted for exactly once? Asked of the database, the log, and a fleet's record.

    ledger.py     the ledger's equations, the log's bounds and identity, and the days, without reading the log
    archive.py    the raw archive, where it runs: its ledger and rows, and late readings looked up in it
    replay.py     --deep: the log read again by plain Python that shares no code with the dataflow, row by row
    sent.py       --sent FILE: what a fleet's record says, found in the log or in the dead letter

Rule: changes nothing, anywhere. Exit status 1 says that something is not explained, and the lines above it say which
partition, day and offsets.
"""
