"""What a test runs in a process of its own, to be killed there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any


def in_a_process(act: Callable[[], Any], seconds: float | None = None) -> int:
    """What became of a process that ran ``act``: its exit status, or minus the signal.

    Args:
        seconds: after which it is killed.
    """
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
