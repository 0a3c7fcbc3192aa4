"""Ctrl-C: recorded where a library may swallow it, delayed where it would leave work half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_pending = False  # whether Ctrl-C came and was not yet handled
_recorders = 0  # open blocks of `recorded_interrupts`


def check_interrupt() -> None:
    """Raise KeyboardInterrupt if Ctrl-C came within `recorded_interrupts` and is still pending.

    Python raises it wherever the main thread is. In a callback of C code, in a finalizer or in a
    thread pool it is printed and dropped. Long work therefore calls this after each batch.
    """
    if _pending:
        clear_interrupt()
        raise KeyboardInterrupt


def is_pending() -> bool:
    """Whether Ctrl-C came within `recorded_interrupts` and was not yet handled."""
    return _pending


def is_recording() -> bool:
    """Whether a block of `recorded_interrupts` is open, which calls `check_interrupt`."""
    return _recorders > 0


def clear_interrupt() -> None:
    """Ctrl-C was handled: `check_interrupt` does not raise it again."""
    global _pending
    _pending = False


@contextmanager
def recorded_interrupts() -> Iterator[None]:
    """In the block Ctrl-C does what it did before, and is recorded for `check_interrupt`."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return

    def record(number: int, frame: Any) -> None:
        global _pending
        _pending = True
        previous(number, frame)

    global _recorders
    _recorders += 1
    signal.signal(signal.SIGINT, record)
    try:
        yield
    finally:
        _recorders -= 1
        signal.signal(signal.SIGINT, previous)
        clear_interrupt()


@contextmanager
def uninterrupted(patience: int | None = None) -> Iterator[None]:
    """Delay Ctrl-C until the block is done, then deliver it.

    Args:
        patience: How many presses are delayed; the next one is delivered at once. None delays all.
    """
    main = threading.current_thread() is threading.main_thread()
    # None: the handler was not installed from Python, so it could not be restored from here.
    if not main or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    delayed: list[tuple[Any, Any]] = []

    def delay(number: int, frame: Any) -> None:
        if patience is not None and len(delayed) >= patience and callable(previous):
            delayed.clear()
            previous(number, frame)
        else:
            delayed.append((number, frame))

    previous = signal.signal(signal.SIGINT, delay)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if delayed and callable(previous):
            previous(*delayed[-1])
