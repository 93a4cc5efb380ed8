"""The window core: from one partition's log to the rollups of its windows.

It is fed, and it answers. All that it knows stands in the log: readings, their event times, offsets, append times, and
ticks. It owns no clock, no socket and no engine, so batches, workers, restarts and replays cannot change an answer.

    windows = Windows(settings, progress, workers)      # progress: Progress.begin(0), or as it was committed
    outcome = windows.feed(log_slice)                   # closed rollups, late readings, counts, progress


Theory of operation
===================

**Windows** tumble: [start, end), ``length`` long, aligned to the epoch. A reading belongs to that of its event time.
Each *record* of the log (a message, a tick, a refusal) is judged, then it is asked whether windows close:

1. *Refused* is a message more than ``clock_skew_max`` ahead of its own append time, or ``event_age_max`` behind it.
2. *Late* is a reading whose window had closed before its record. Its row is revised by the store.
3. All other readings wait, as rows, in the window they belong to.
4. *Closing*: the next window closes, and then the one after it is asked, in order, as long as one of three rules holds.

Say the next window ends at E, and B = E + ``allowed_lateness``. The time of a reading is min(event time, append time):
a clock that runs ahead cannot lead the log. Over the records so far, the window closes

- by *ticks*, when all ingest workers have ticked at or past B: they say that all they received before is in the log;
- by *quiet*, when some reading at or past B was appended ``quiet`` or more before this record, and so was every reading
  of the window (one without readings has nothing that could be quiet);
- by *patience*, when some reading at or past B was appended ``patience`` or more before this record.

Live, ticks close a window as soon as its lateness has passed, in quiet partitions too. While a backlog drains
there are none, and event times say nothing about who is still to come: the window goes when it has gone quiet. ::

    12:00                    12:01      B = 12:01:10
      [─────── window ─────────)          │
      •     •    •      •    •            ◦                         event times
      │     │    │      │     ╲           │
    ──●─────●────●──────●──────●──────────●───T──────●──────────▶   the log, by append time
                               │              │      │
                           12:01:05    12:01:11      12:01:20
                 its last reading     closed by      closed by quiet,
                       is appended     a tick        had nobody ticked

A fast clock can be the ◦ that quiet and patience need, but while honest readings keep coming nothing is quiet. Nor is
it believed at once: if it is the first to be read after a long silence, those whom the silence cut have ``quiet`` to
come back. (Where the log falls silent a second time, amid a backlog, the window it cuts does close.) A slow or absent
worker holds ticks back; patience bounds how long any of this may last. Until something has closed, the next window is
the earliest that holds a reading. Closing never goes back.

**The watermark** that people are shown is ``closed_until`` + ``allowed_lateness``.

**Ticks** count for configured workers only, each from its first on, at min(its time, its append time). A tick acts at
its own record, not at its slice.

**Duplicates** are found when the window closes: readings equal in device, metric, event time and bits of the value. The
value belongs to identity because a coarse clock gives several true readings one time. A repetition after the
window closed is a late reading, also within one slice; whether it is new is for the store to say.

**Buffer, then reduce.** Rows wait in columns, some 11 to 24 bytes a reading, and a window is reduced once, in a
canonical order, so that no cutting or thread count changes a bit. ``buffer_rows_max`` bounds them; reaching it stops
the flow.

**Resume.** ``Progress`` says how far the log is accounted for (``position``), and the lowest offset that still matters
(``resume``): the first row of the oldest open rows. A new process is fed from ``resume``. Below ``position`` it only
refills windows that are open, judging by the limits that held then (``judged``); from there on all is new. The closing
rule's state, a latest append a window and an earliest append a boundary, is a fold over those same rows. ::

    offsets    ──────────┬───────────────────────────┬──────────────────▶
                      resume      refill only     position     account

**The laws** that tests hold: conservation; cuts, crashes and placement are invisible; rows equal one group by where
disorder is within the allowed lateness; partials combine; closing never goes back, and one wrong clock makes nobody
else's reading late; settings may change between runs. See ``tests/dataflows/windowing``.

The modules, from the log on: ``columns`` (frames as arrays), ``limits`` and ``judged`` (1 and 2), ``records`` and
``ticks`` (the log as the rule reads it), ``closing`` (4), ``names`` and ``rows`` (3), ``canonical`` and ``reduction``
(rows become rollups), ``core`` (all of it).
"""

from dataflows.windowing.core import Windows

__all__ = ["Windows"]
