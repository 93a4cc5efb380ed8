"""The rule for device ids and metric names: 1 to 256 bytes of UTF-8 without control characters.

Control characters are Unicode's category Cc: U+0000 to U+001F and U+007F to U+009F.
"""

import re
from typing import Final

NAME_BYTES_MAX: Final = 256
KNOWN_NAMES_MAX: Final = 65_536
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


def flaw_in(name: str) -> str | None:
    """What breaks the rule in ``name``, in words; None where nothing does."""
    if not name:
        return "is empty"
    if len(name) > NAME_BYTES_MAX:  # at least a byte a character: a megabyte needs no look
        return f"is longer than {NAME_BYTES_MAX} bytes"
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError:
        return "holds a lone surrogate, which is not UTF-8"
    if size_bytes > NAME_BYTES_MAX:
        return f"is {size_bytes} bytes long, more than {NAME_BYTES_MAX}"
    if control := _CONTROL.search(name):
        return f"holds the control character U+{ord(control[0]):04X}"
    return None


class Names:
    """Answers ``flaw_in`` again and again: remembers names that were right, KNOWN_NAMES_MAX of them at most."""

    def __init__(self) -> None:
        self.right: set[str] = set()

    def flaw_in(self, name: str) -> str | None:
        """What ``flaw_in`` says. Callers in a hurry look into ``right`` first."""
        if name in self.right:
            return None
        flaw = flaw_in(name)
        if flaw is None:
            if len(self.right) >= KNOWN_NAMES_MAX:
                self.right.clear()
            self.right.add(name)
        return flaw
