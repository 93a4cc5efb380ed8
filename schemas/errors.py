"""The one error that is meant for the person who runs the system.

Three kinds of wrong are kept apart. A programmer's error is an ``assert``. The world's error (a broken
payload) is a value: a ``Refused`` with a reason. An operator's error (a wrong setting, a server that is
away, a missing table) is an ``OperatorError``: one message that says what happened and what to do.
"""


class OperatorError(Exception):
    """Something the operator can put right; ``str()`` is the whole message, and names no secret.

    The process that raises it has written nothing that is not accounted for. Entry points print the
    message alone, without a traceback, and exit non-zero.
    """


class FencedOff(OperatorError):
    """Another process has claimed this partition since; this one has written nothing and must stop."""


class ServerAway(OperatorError):
    """A server does not answer, and may again: starting once more is worth a try, without anybody's hand."""
