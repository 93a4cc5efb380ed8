"""What people say of their devices and metrics: site, time zone, position, labels; units and CF standard names.

    lines.py      a CSV file, read and checked line by line, and written
    store.py      the tables devices and metrics: changed, and read
    __main__.py   `./justw devices import|export|list`

Rule: nothing of it is joined when rows are written, only when people read (the views), so that a replay stays exact.
"""
