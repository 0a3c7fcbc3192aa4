"""What a call costs: time and memory of this process."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def seconds(function: Callable[[], Any]) -> float:
    """Seconds of wall time that a call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def cpu_seconds(function: Callable[[], Any]) -> float:
    """Seconds of processor time, of all threads, that a call takes."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def resident() -> int:
    """Peak resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
