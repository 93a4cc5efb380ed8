"""`./justw forfeit`: go on where a log is not as it is on record, and write down what was given up by that.

    decision.py     pure: what is wrong with a partition, and where it goes on
    books.py        makes the decision hold, in one transaction, and counts what is lost
    taking_over.py  where progress is gone and rows are there: begins anew, and makes the books from the rows
    flag_state.py   what anomaly_flags has learned goes along, or begins anew
    __main__.py     asks, shows, and does it

A flow that finds its log changed refuses to start, since it cannot know what is right. This is how somebody who does
tells it. Nothing is ever given up in silence: `forfeits` has each decision, and `verify` explains the ledger by it.
"""
