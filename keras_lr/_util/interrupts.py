"""Ctrl-C: noted where a library may swallow it, held back where it would leave a half."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_noted = False  # whether Ctrl-C came and nobody has heard it yet
_noting = 0  # blocks of `noted` that are open


def check() -> None:
    """Raise KeyboardInterrupt if Ctrl-C came within `noted` and has not been heard yet.

    Python raises it wherever the main thread is; in a callback of C code, of a finalizer or of a
    thread pool it is printed and dropped. Long work calls this after each batch.
    """
    if _noted:
        heard()
        raise KeyboardInterrupt


def waiting() -> bool:
    """Whether Ctrl-C came within `noted` and has not been heard yet."""
    return _noted


def noting() -> bool:
    """Whether somebody calls `check`."""
    return _noting > 0


def heard() -> None:
    """Ctrl-C has reached who it was meant for."""
    global _noted
    _noted = False


@contextmanager
def noted() -> Iterator[None]:
    """In the block Ctrl-C does what it did before, and is noted, for `check` to see."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return

    def note(number: int, frame: Any) -> None:
        global _noted
        _noted = True
        previous(number, frame)

    global _noting
    _noting += 1
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        _noting -= 1
        signal.signal(signal.SIGINT, previous)
        heard()


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
