"""Dead letters: read, listed, and sent again.

    letter.py     one letter, and all of them, read back from Kafka
    __main__.py   `./justw dead-letters`: lists and counts them
    redrive.py    `./justw redrive`: sends them through today's decoder, back into the log
    again.py      what today's decoder makes of one
    sent.py       which were sent again, kept in the database
    noting.py     `./justw maintain --letters`: counts them by device and minute, for the view `gaps`

Rule: a letter is never changed and never deleted; what was sent again is remembered beside it.
"""
