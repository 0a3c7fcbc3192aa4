"""`TimedCallback`: a policy whose curve may follow the clock instead of the count of updates."""

from __future__ import annotations

import warnings
from typing import Any

from keras_lr._util import checks
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.steering import Length
from keras_lr.steering.clock import Budget, Clock, Timed, now


class TimedCallback(SteeringCallback):
    """A policy with the argument `minutes`.

    Attributes:
        minutes: The time budget of its curve; None if the curve counts updates.
        updates: How many updates of the last `fit` the budget was; None without one.
    """

    minutes: float | None = None
    updates: int | None = None
    _ends_fit = True  # or the training goes on after the budget
    _budget: Budget | None = None

    def _follow_clock(self, minutes: float | None, **others: Any) -> None:
        """Keep the argument; `others` are arguments that count updates, which exclude it."""
        if minutes is None:
            return
        self.minutes = checks.number("minutes", minutes, above=0)
        self._budget = Budget(self.minutes, self._ends_fit)
        self.ends_after = self._budget if self._ends_fit else None
        for name, value in others.items():
            if value is not None:
                raise ValueError(
                    f"Only one of {name} and minutes can be given; got {name}={value!r} and "
                    f"minutes={minutes!r}."
                )

    @property
    def _clock(self) -> Clock:
        assert self._budget is not None  # noqa: S101
        return self._session.run.clocks[self._budget]

    def _timed(self, curve: Any) -> Timed:
        """A curve over the `TICKS` of the budget."""
        assert self._budget is not None  # noqa: S101
        return Timed(curve, self._budget)

    def begin(self, length: Length) -> None:
        self.updates = None
        if self.minutes is not None and self._session.run.by_hand:
            raise ValueError(
                f"minutes needs fit, which reads the clock before each step; got minutes="
                f"{self.minutes!r} in a training loop of your own. Count updates instead."
            )

    def remember(self) -> dict[str, Any]:
        if self.minutes is None:
            return {}
        return {"minutes": self.minutes, "clock": self._clock.state(now())}

    def recall(self, memory: dict[str, Any]) -> None:
        if self.minutes is None or "minutes" not in memory:
            return
        self._clock.load(memory["clock"])
        if memory["minutes"] != self.minutes:
            warnings.warn(
                f"A resumed run should have its planned budget; {type(self).__name__} planned "
                f"minutes={memory['minutes']!r}, and the run continues with {self.minutes!r}. The "
                "rest of the curve gets what is left of the new budget.",
                UserWarning,
                stacklevel=2,
            )

    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        if self.ends_after is not None and self._clock.is_over(now()):
            self._unsynced_model.stop_training = True  # it was validated after the last batch

    def on_train_end(self, logs: Any = None) -> None:
        if self.minutes is not None and self._session.run.patch is not None:
            self._report(self.minutes)
        super().on_train_end(logs)

    def _report(self, minutes: float) -> None:
        name, clock, time = type(self).__name__, self._clock, now()
        passed = f"{clock.passed(time) / 60:.3g} minutes"
        if clock.skipped:
            warnings.warn(
                f"The budget of {name} should be longer than the first training step, which "
                f"compiles; got minutes={minutes!r}, which were over when it ended. The curve was "
                "left out. Pass more minutes.",
                UserWarning,
                stacklevel=2,
            )
        elif clock.is_over(time):
            end = clock.end
            self.updates = (
                self._session.updates_of(self._steered)
                if self._ends_fit or end is None
                else int(self._steered.bindings[0].update_of(end))
            )
            if (self.params or {}).get("verbose"):
                print(f"{name}: {minutes:g} minutes were {self.updates} updates.")
        elif not self._unsynced_model.stop_training:  # the epochs are over
            way_out = ": the budget stops it" if self._ends_fit else ", or fewer minutes"
            warnings.warn(
                f"The training should last as long as the budget of {name}; got "
                f"minutes={minutes!r}, and the epochs ended after {passed}, at "
                f"{clock.share(time):.0%} of the curve. Pass more epochs to fit{way_out}.",
                UserWarning,
                stacklevel=2,
            )
