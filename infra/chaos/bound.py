"""Become a command whose life is bound to the process that started it: ``bound.py PARENT COMMAND…``.

Run as a script, standard library only. Guarantee, on Linux: when PARENT is killed by any means, kill -9 included, the
kernel kills this process. (It is bound to the thread that started it: that has to be the parent's main one.)
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # it was too late
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])
