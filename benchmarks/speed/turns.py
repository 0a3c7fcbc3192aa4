"""Run several `fit`s alternately, an epoch each, in one process, so that load affects all alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import keras
import numpy as np


class Turns(keras.callbacks.Callback):
    """Waits for its turn before each epoch, and measures the epoch before."""

    def __init__(self):
        super().__init__()
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)

    def on_epoch_begin(self, epoch, logs=None):
        self.hand_over()

    def on_train_end(self, logs=None):
        self.hand_over()

    def hand_over(self):
        # Seconds of the process, in which nothing else runs meanwhile.
        self.ended = np.array([time.process_time(), time.perf_counter()])
        self.done.release()
        self.go.acquire()
        self.begun = np.array([time.process_time(), time.perf_counter()])


class Contender:
    """A `fit` in its own thread that advances one epoch at a time.

    Args:
        fit: Called with a callback, which must be the first of `fit`, so that the work of other
            callbacks at the end of an epoch is counted.
    """

    def __init__(self, fit: Callable[[Turns], None]) -> None:
        self.turns = Turns()
        self.failed: BaseException | None = None

        def run() -> None:
            try:
                fit(self.turns)
            except BaseException as error:
                self.failed = error
            self.turns.done.release()

        # If one fails, the others that wait do not keep the process.
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        self._wait()

    def _wait(self) -> None:
        self.turns.done.acquire()
        if self.failed:
            raise self.failed

    def epoch(self) -> np.ndarray:
        """CPU and wall seconds of the next epoch."""
        self.turns.go.release()
        self._wait()
        return self.turns.ended - self.turns.begun

    def finish(self) -> None:
        self.turns.go.release()
        self.thread.join()
