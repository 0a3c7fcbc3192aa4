"""Holding Ctrl-C back where it would leave something half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uninterrupted(patience: int | None = None) -> Iterator[None]:
    """Hold Ctrl-C back until the block is done, then let it through.

    Args:
        patience: How many are held back; the next one goes through at once. None holds back all.
    """
    main = threading.current_thread() is threading.main_thread()
    # None: a handler that was not installed from Python, which could not be put back from here.
    if not main or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    pending: list[tuple[Any, Any]] = []

    def hold(number: int, frame: Any) -> None:
        if patience is not None and len(pending) >= patience and callable(previous):
            pending.clear()
            previous(number, frame)
        else:
            pending.append((number, frame))

    previous = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if pending and callable(previous):
            previous(*pending[-1])
