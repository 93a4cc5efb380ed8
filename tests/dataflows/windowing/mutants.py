"""Wrong window cores, each the right one with a line replaced: what the laws must tell from the right one."""

from tests.dataflows.windowing.mutation import Mutant

MUTANTS = (
    Mutant("ticks must be past the boundary, not at it", [("closing", "level >= boundary", "level > boundary")]),
    Mutant(
        "readings must be past the boundary, not at it",
        [("closing", "time[low:high] >= boundary", "time[low:high] > boundary")],
    ),
    Mutant(
        "quiet must last longer than quiet_secs",
        [
            ("closing", "(latest + spans.quiet <= append)", "(latest + spans.quiet < append)"),
            ("closing", "+ spans.quiet <= append:", "+ spans.quiet < append:"),
        ],
    ),
    Mutant(
        "a reading past the boundary is believed at once",
        [
            ("closing", "(earliest + spans.quiet <= append)", "(earliest < NEVER)"),
            ("closing", "if first + spans.quiet <= append)", "if first < NEVER)"),
        ],
    ),
    Mutant(
        "a reading past the boundary is believed after more than quiet_secs",
        [
            ("closing", "(earliest + spans.quiet <= append)", "(earliest + spans.quiet < append)"),
            ("closing", "if first + spans.quiet <= append)", "if first + spans.quiet < append)"),
        ],
    ),
    Mutant(
        "patience must last longer than patience_secs",
        [
            (
                "closing",
                "patience = earliest + spans.patience <= append",
                "patience = earliest + spans.patience < append",
            ),
            ("closing", "first + spans.patience <= append)", "first + spans.patience < append)"),
        ],
    ),
    Mutant(
        "lateness is judged by what had closed before the slice", [("core", "np.array(closed)[passed]", "closed[0]")]
    ),
    Mutant(
        "lateness is judged by what has closed after the slice", [("core", "np.array(closed)[passed]", "closed[-1]")]
    ),
    Mutant(
        "a record that closes a window is itself judged late", [("core", 'place, side="left"', 'place, side="right"')]
    ),
    Mutant(
        "windows close by the maximum of event times",
        [
            (
                "closing",
                "(earliest + spans.quiet <= append) & (latest > LONG_AGO) & (latest + spans.quiet <= append)",
                "(earliest < NEVER) & (latest > LONG_AGO)",
            ),
            ("closing", "if first + spans.quiet <= append)", "if first < NEVER)"),
            ("closing", "self._latest.get(until, NEVER) + spans.quiet <= append:", "until in self._latest:"),
            ("closing", "np.max(level) < boundary\n            and", "False and"),
            ("records", "np.minimum(columns.event, columns.append)", "columns.event"),
        ],
    ),
    Mutant(
        "the time of a reading is its event time, however far ahead",
        [("records", "np.minimum(columns.event, columns.append)", "columns.event")],
    ),
    Mutant(
        "quiet is judged by when the slice arrived, not by append times",
        [
            (
                "closing",
                "held = np.where(records.window[low:high] == window, append, LONG_AGO)",
                "held = np.where(records.window[low:high] == window, newest, LONG_AGO)",
            ),
            ("closing", "pick.reduce(values)", "pick.reduce(values) * 0 + int(np.max(values))"),
        ],
    ),
    Mutant(
        "append time is a maximum, not each record's own",
        [
            (
                "closing",
                "append, level = self._spans, records.append[low:high]",
                "append, level = self._spans, np.maximum.accumulate(records.append)[low:high]",
            ),
            ("closing", "int(records.append[index])", "int(np.max(records.append[: index + 1]))"),
        ],
        law="cuts",
    ),
    Mutant(
        "quiet closes empty windows too",
        [
            ("closing", "(latest > LONG_AGO) & ", ""),
            ("closing", "self._latest.get(until, NEVER)", "self._latest.get(until, LONG_AGO)"),
            (
                "closing",
                "self._latest.get(window, oldest)",
                "self._latest.get(window, LONG_AGO)",
            ),
        ],
    ),
    Mutant(
        "quiet needs no reading at or past the boundary",
        [
            ("closing", "(earliest + spans.quiet <= append) & (latest", "(latest"),
            ("closing", "until + spans.length <= furthest and ", ""),
            ("closing", ", min(known, oldest)) + spans.quiet", ", LONG_AGO) + spans.quiet"),
        ],
    ),
    Mutant(
        "the ticks of a slice are applied before its readings",
        [
            (
                "records",
                "level=np.repeat(levels, np.diff(ticked, prepend=0, append=count + others))",
                "level=np.full(count + others, levels[-1])",
            )
        ],
    ),
    Mutant(
        "the furthest worker's ticks count, not the last's",
        [("ticks", "return min(self._highest", "return max(self._highest")],
    ),
    Mutant(
        "a worker that has never ticked holds closing back",
        [
            (
                "ticks",
                "return min(self._highest.values(), default=LONG_AGO)",
                "return min((self._highest.get(w, LONG_AGO) for w in self._workers), default=LONG_AGO)",
            )
        ],
    ),
    Mutant("ticks of strangers count", [("ticks", "if worker in self._workers:", "if True:")]),
    Mutant(
        "a tick's own time is believed", [("records", "heard.hear(worker, min(ts, append))", "heard.hear(worker, ts)")]
    ),
    Mutant(
        "a tick can take back an earlier one", [("ticks", "max(self._highest.get(worker, LONG_AGO), time)", "time")]
    ),
    Mutant("refused records close nothing", [("core", "[one for one in part.refused if one.whole]", "[]")]),
    Mutant(
        "readings of one time have no order",
        [
            (
                "canonical",
                "reading += np.arange(at + first, at + last, dtype=np.uint64)",
                "reading += np.arange(count - at - first, count - at - last, -1, dtype=np.int64).view(np.uint64)",
            ),
            ("canonical", "(key & index_mask).view(np.int64)", "len(keys) - (key & index_mask).view(np.int64)"),
        ],
    ),
    Mutant(
        "identity leaves out the value", [("canonical", "bits = value.view(np.int64)", "bits = np.zeros(len(value))")]
    ),
    Mutant("identity is by value, not by bits", [("canonical", "bits = value.view(np.int64)", "bits = value")]),
    Mutant(
        "identity leaves out the time",
        [
            (
                "canonical",
                "tied = (series[1:] == series[:-1]) & (time[1:] == time[:-1])",
                "tied = series[1:] == series[:-1]",
            ),
            (
                "canonical",
                "(series[a] == series[b]) & (time[a] == time[b])",
                "(series[a] == series[b])",
            ),
            (
                "canonical",
                "np.lexsort((bits[among], time[among], series[among]))",
                "np.lexsort((bits[among], series[among]))",
            ),
        ],
    ),
    Mutant(
        "duplicates are counted",
        [
            (
                "reduction",
                "map(without_repeats, in_order(",
                "(lambda stretches: stretches)(in_order(",
            )
        ],
    ),
    Mutant("resume is where accounting stands", [("core", "resume=resume,", "resume=part.end,")]),
    Mutant(
        "a resume does not refill",
        [
            ("core", "self._refill(part.messages", "self._judge(part.messages"),
            ("core", "def _refill(", "def _judge(self, messages):\n        pass\n\n    def _refill("),
        ],
        law="crashes",
    ),
    Mutant(
        "a resume refills closed windows",
        [("core", "judged.accepted & (judged.windows >= self._closed())", "judged.accepted")],
        law="crashes",
    ),
    Mutant(
        "a resume leaves the closing rule's state empty", [("core", "self._closing.refill(", "str(")], law="crashes"
    ),
    Mutant(
        "refilled rows are judged by today's limits",
        [("limits", "self._entries = [entry for entry in judged if entry.offset < position]", "self._entries = []")],
        law="settings",
    ),
    Mutant(
        "limits of before are forgotten at once",
        [("limits", "self._entries[1].offset <= offset", "True")],
        law="settings",
    ),
    Mutant(
        "what has closed is forgotten at a crash",
        [("core", "Closing(self._spans, progress.closed_until)", "Closing(self._spans, None)")],
        law="crashes",
    ),
    Mutant(
        "ticks are forgotten at a crash",
        [("core", "Ticks(workers, progress.ticks)", "Ticks(workers, {})")],
        law="crashes",
    ),
    Mutant(
        "open is derived and counts what was refilled",
        [("core", "open=self._rows.count - rows_before", "open=self._rows.count")],
    ),
    Mutant(
        "the first window is the one of the first reading",
        [
            (
                "closing",
                "np.minimum(np.minimum.accumulate(np.where(windows == LONG_AGO, NEVER, windows)), known)",
                "np.full(len(windows), known if known != NEVER else windows[0] if windows[0] != LONG_AGO else NEVER)",
            ),
            ("closing", "known = min(self._latest, default=NEVER)", "known = next(iter(self._latest), NEVER)"),
            ("closing", "start = min(self._latest) if", "start = next(iter(self._latest)) if"),
        ],
    ),
    Mutant("event times equal to the limit are refused", [("limits", "events > near + skew", "events >= near + skew")]),
    Mutant(
        "windows are cut towards zero",
        [
            (
                "judged",
                "columns.event // spans.length * spans.length",
                "np.trunc(columns.event / spans.length).astype(np.int64) * spans.length",
            )
        ],
    ),
    Mutant(
        "metrics are those of the first message",
        [("columns", "(metrics.slice(period) == metrics.slice(0, rest)).all()", "True")],
    ),
    Mutant(
        "a slice about the position is accounted for from its start",
        [("core", "part = _from(part, position)", "part = replace(part, start=position)")],
        law="crashes",
    ),
    Mutant(
        "a resume refills what is not accounted for",
        [("core", 'self._refill(part.messages.filter(pl.col("offset") < position))', "self._refill(part.messages)")],
        law="crashes",
    ),
    Mutant(
        "patience counts from the latest reading past the boundary",
        [("closing", "self._earliest[reached] = min(first,", "self._earliest[reached] = max(first,")],
    ),
)
