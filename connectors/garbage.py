"""When Python looks for reference cycles: less often than by default, in processes that read records by the thousand.

By default the collector looks at all young objects after each 700 that were made and not freed, and a batch of
``confluent_kafka`` messages is thousands, none of which is ever part of a cycle: it took a tenth of the time of
``minute_rollups``. Nothing else is freed later by this: what has no cycle goes at once, by its reference count.
"""

import gc
from typing import Final

YOUNG_MAX: Final = 100_000  # objects of the kind that can form cycles; a batch being read holds some thousands


def collect_rarely() -> None:
    """Leave alone what is there, and look for cycles after each ``YOUNG_MAX`` new objects. For this whole process.

    Call it where a dataflow is made, after its modules were imported: they stay as long as the process does.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 10, 10)
