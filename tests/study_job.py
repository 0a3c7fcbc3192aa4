"""A process that takes part in a study, told what to do: a line of JSON in, a line out.

It loads the study's module alone: without Keras it starts in a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Peer:
    """Such a process, from the side of the test. `tell` it, then `hear` the answer."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, *command: object) -> Peer:
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return self

    def hear(self, seconds: float = 60.0):
        alarm = threading.Timer(seconds, self._process.kill)
        alarm.start()
        line = self._process.stdout.readline()
        alarm.cancel()
        assert line, "the process ended, or said nothing in time"
        answer = json.loads(line)
        if isinstance(answer, dict):
            raise AssertionError(answer["error"])
        return answer

    def ask(self, *command: object):
        return self.tell(*command).hear()

    def kill(self) -> None:
        """With SIGKILL, as the system does that is out of memory."""
        self._process.kill()
        self._process.wait(10)
        self._process.stdin.close()
        self._process.stdout.close()


def job(number: int):
    from keras_lr.rate_search.jobs import Job, Setting

    return Job("coarse", Setting(number * 1e-3), 0, 0.5, 3)


def opened(storage, name="digits", identity=None, **options):
    from keras_lr.rate_search.study import Study

    identity = {"model": {"layers": "a"}, "data": {"rows": "8"}, **(identity or {})}
    options = {"maximize": False, "pruner": "none", "objective": "val_loss", **options}
    return Study(storage, name, identity, heartbeat=1, **options)


def outcome(job, value=0.5, ended="finished", history=None):
    from keras_lr.rate_search.jobs import Outcome

    return Outcome(job, ended, value, {"val_loss": [value]} if history is None else history, 1.5)


class Part:
    """What a test can ask of the process."""

    def __init__(self) -> None:
        self.study = None
        self.trials = {}

    def grace(self, heartbeats):
        from keras_lr.rate_search import study

        study.GRACE = heartbeats

    def open(self, storage, at=0.0):
        wait_until(at)
        self.study = opened(storage)
        return self.study.resumed

    def begin(self, number):
        trial = self.study.begin(job(number))
        if trial is not None:
            self.trials[number] = trial.__enter__()
        return trial is not None

    def race(self, numbers, at, spacing):
        """Begin each job at its moment, the same in all processes; which ones were ours?"""
        ours = []
        for place, number in enumerate(numbers):
            wait_until(at + place * spacing)
            if self.begin(number):
                ours.append(number)
        return ours

    def finish(self, numbers, at, spacing):
        """End each of our trials at its moment, or look for others' work; what was dropped?"""
        from keras_lr.rate_search.trial import Taken

        dropped = []
        for place, number in enumerate(numbers):
            wait_until(at + place * spacing)
            if number not in self.trials:
                self.begin(number)
                continue
            trial = self.trials.pop(number)
            try:
                trial.end(outcome(job(number)))
            except Taken:
                dropped.append(number)
            trial.__exit__(None, None, None)
        return dropped


def wait_until(at):
    while time.time() < at:
        time.sleep(0.0005)


def main() -> None:
    for name in ("keras_lr", "keras_lr.rate_search", "keras_lr.schedules"):
        package = types.ModuleType(name)
        package.__path__ = [str(ROOT / name.replace(".", "/"))]
        sys.modules[name] = package
    part = Part()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = getattr(part, name)(*arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    os._exit(0)  # without giving anything back


if __name__ == "__main__":
    main()
