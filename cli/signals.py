"""Ctrl-C, SIGTERM and SIGHUP: a command that must stop restores and releases what it holds."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["StopRequest", "leave", "stop_signals", "watch_parent"]

REMIND = 1.0  # seconds after which a lost request is repeated


class StopRequest:
    """The request to stop this process, repeated until a KeyboardInterrupt has arrived.

    While the library trains, it checks for a request after each batch, because an exception
    inside a callback of C code is lost. At other times, or on a second signal,
    KeyboardInterrupt is raised at once.
    """

    def __init__(self) -> None:
        self._requested = False
        self._lock = threading.Lock()
        self._heard = threading.Event()

    def handle(self, number: int, frame: Any) -> None:
        """The handler of SIGINT."""
        first = self._first()
        if first:
            threading.Thread(target=self._remind, daemon=True).start()
        if not (first and _library("is_pending")):
            raise KeyboardInterrupt

    def forward(self, number: int, frame: Any) -> None:
        """The handler of the other signals: calls that of SIGINT, which may delay it."""
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            handler(signal.SIGINT, frame)
        else:
            self.handle(number, frame)

    def send(self) -> None:
        """Request a stop from another thread."""
        if not self._requested:
            _interrupt_main()

    def check(self) -> None:
        """Raise KeyboardInterrupt if a stop was requested and no exception has arrived.

        An exception raised during an import may be lost.
        """
        if self._requested and not self._heard.is_set():
            raise KeyboardInterrupt

    def heard(self) -> None:
        """The request has arrived: do not repeat it."""
        self._heard.set()

    def _first(self) -> bool:
        with self._lock:
            first, self._requested = not self._requested, True
        return first

    def _remind(self) -> None:
        while not self._heard.wait(REMIND):
            if _library("is_pending") or not _library("is_recording"):
                _interrupt_main()


def _library(state: str) -> bool:
    """A state of `keras_lr._util.interrupts`; False if that was not imported."""
    module = sys.modules.get("keras_lr._util.interrupts")
    return module is not None and getattr(module, state)()


def leave(code: int) -> None:
    """End this process at once; the shutdown of a backend takes seconds."""
    for child in multiprocessing.active_children():  # data loaders
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """In the block Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt, and none is lost.

    Signals that the process ignores from its start, as with `nohup`, stay ignored.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers = {signal.SIGINT: stop.handle, signal.SIGTERM: stop.forward}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = stop.forward
    previous = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    try:
        yield stop
    finally:
        stop.heard()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt_main() -> None:
    if hasattr(signal, "pthread_kill"):  # it interrupts a blocking wait
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


def watch_parent(stop: StopRequest, patience: float) -> None:
    """Stop this process when its parent closes stdin or dies.

    Args:
        stop: The request to send then.
        patience: Seconds until the process exits after that.
    """

    def watch() -> None:
        parent = os.getppid()
        while os.getppid() == parent and not _closed(1.0):
            pass
        stop.send()
        threading.Event().wait(patience)
        os._exit(130)

    threading.Thread(target=watch, daemon=True).start()


def _closed(seconds: float) -> bool:
    """Whether stdin reaches its end within these seconds."""
    import select

    if os.name != "nt" and not select.select([0], [], [], seconds)[0]:
        return False
    return not os.read(0, 1)
