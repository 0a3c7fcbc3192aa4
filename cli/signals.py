"""Ctrl-C, SIGTERM and SIGHUP: a search that is asked to end gives back what it is at work on."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Asked", "leave", "polite", "watch_parent"]

REMIND = 1.0  # seconds after which a request that nobody has heard is made once more


class Asked:
    """Whether this process was asked to end, and makes sure that it hears of it.

    While the library trains, it looks after each batch whether it was asked to end, because what
    is raised within a callback of C code is lost. Elsewhere, and for what takes long or comes a
    second time, KeyboardInterrupt is raised at once.
    """

    def __init__(self) -> None:
        self._asked = False
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
        """The handler of the others: it goes through that of SIGINT, which may hold it back."""
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            handler(signal.SIGINT, frame)
        else:
            self.handle(number, frame)

    def ask(self) -> None:
        """Ask from another thread; once is enough."""
        if not self._asked:
            _interrupt_main()

    def check(self) -> None:
        """Raise KeyboardInterrupt if this process was asked to end and did not hear of it.

        What is raised while a module is imported may be lost, too.
        """
        if self._asked and not self._heard.is_set():
            raise KeyboardInterrupt

    def heard(self) -> None:
        """The work has ended: remind nobody."""
        self._heard.set()

    def _first(self) -> bool:
        with self._lock:
            first, self._asked = not self._asked, True
        return first

    def _remind(self) -> None:
        while not self._heard.wait(REMIND):
            if _library("is_pending") or not _library("is_recording"):
                _interrupt_main()


def _library(question: str) -> bool:
    """Ask the library, if it was imported."""
    module = sys.modules.get("keras_lr._util.interrupts")
    return module is not None and getattr(module, question)()


def leave(code: int) -> None:
    """End this process, without the seconds in which a backend is taken down."""
    for child in multiprocessing.active_children():  # which load data
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def polite() -> Iterator[Asked]:
    """In the block Ctrl-C, SIGTERM and SIGHUP all raise KeyboardInterrupt, and none is lost.

    Those that the process was started to ignore, as `nohup` does, stay ignored.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    handlers = {signal.SIGINT: asked.handle, signal.SIGTERM: asked.forward}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = asked.forward
    previous = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    try:
        yield asked
    finally:
        asked.heard()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt_main() -> None:
    if hasattr(signal, "pthread_kill"):  # which wakes it from a wait
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


def watch_parent(asked: Asked, patience: float) -> None:
    """Ask this process to end when the one that started it closes stdin or dies.

    Args:
        patience: Seconds that it has then.
    """

    def watch() -> None:
        parent = os.getppid()
        while os.getppid() == parent and not _closed(1.0):
            pass
        asked.ask()
        threading.Event().wait(patience)
        os._exit(130)

    threading.Thread(target=watch, daemon=True).start()


def _closed(seconds: float) -> bool:
    """Whether stdin comes to its end within so many seconds."""
    import select

    if os.name != "nt" and not select.select([0], [], [], seconds)[0]:
        return False
    return not os.read(0, 1)
