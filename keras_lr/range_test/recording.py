"""What the steps of a run report: recorded batch by batch, read update by update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_lr.range_test.stopping import first_divergence


@dataclass(frozen=True)
class Run:
    """One pass over a list of rates: what its steps reported."""

    learning_rates: np.ndarray
    losses: np.ndarray
    metrics: dict[str, np.ndarray]
    validation: dict[str, np.ndarray] | None
    stop_reason: str


class Recording:
    """The logs of a run while it trains.

    Args:
        learning_rates: The rate of each update.
        ends: Batches that the run has read at the end of each update, as far as that is known.
        monitor: The log entry that is the loss.

    Attributes:
        batches: Batches read so far.
        updates: Updates that they made.
    """

    def __init__(self, learning_rates: np.ndarray, ends: np.ndarray, monitor: str) -> None:
        self.learning_rates = learning_rates
        self.batches = 0
        self.updates = 0
        self._ends = ends
        self._monitor = monitor
        self._parts: list[dict[str, np.ndarray]] = []
        self._checks: list[tuple[int, dict[str, float]]] = []

    def add(self, logs: dict[str, np.ndarray]) -> None:
        """Add the logs of the next batches."""
        self._parts.append(logs)
        self.batches += len(logs[self._monitor])
        self.updates = int(np.searchsorted(self._ends, self.batches, "right"))

    def add_update(self, logs: dict[str, np.ndarray]) -> None:
        """Add the logs of the next batches, which are those of one update."""
        self._ends[self.updates] = self.batches + len(logs[self._monitor])
        self.add(logs)

    def add_check(self, values: dict[str, float]) -> None:
        """Add what was measured on the validation data after the last update."""
        self._checks.append((self.updates, values))

    def rates_of(self, updates: int, most: int) -> np.ndarray:
        """The rate of each of the next batches, of some updates and at most so many batches."""
        end = self._ends[min(self.updates + updates, len(self._ends)) - 1]
        batches = np.arange(self.batches, min(end, self.batches + most))
        return self.learning_rates[np.searchsorted(self._ends, batches, "right")]

    @property
    def complete(self) -> bool:
        """Whether every rate had its update."""
        return self.updates == len(self.learning_rates)

    @property
    def between_updates(self) -> bool:
        """Whether the last batch ended an update."""
        return self.updates > 0 and self.batches == self._ends[self.updates - 1]

    @property
    def finite(self) -> bool:
        """Whether the losses of the batches that were added last are finite."""
        return bool(np.isfinite(self._parts[-1][self._monitor]).all())

    def losses(self) -> np.ndarray:
        """The loss of each update."""
        return self._by_update(self._monitor)

    def result(self, reason: str, stop_factor: float | None) -> Run:
        """The run up to the update that ended it; the loop may have trained a few more."""
        names = list(self._parts[0]) if self._parts else [self._monitor]
        logs = {name: self._by_update(name) for name in names}
        losses = logs.pop(self._monitor)
        kept = len(losses)
        # An accumulation that a loss interrupted is not an update, and all others may be finite.
        if reason == "non_finite" and not np.isfinite(losses).all():
            kept = int(np.argmin(np.isfinite(losses)))
        if stop_factor is not None:
            stop = first_divergence(losses[:kept], stop_factor)
            if stop is not None:
                kept, reason = stop + 1, "diverged"
        return Run(
            self.learning_rates[:kept],
            losses[:kept],
            {name: values[:kept] for name, values in logs.items()},
            self._validation(kept),
            reason,
        )

    def _by_update(self, name: str) -> np.ndarray:
        """The mean over the batches of each update."""
        ends = self._ends[: self.updates]
        if not len(ends):
            return np.empty(0)
        values = np.concatenate([part[name] for part in self._parts])[: ends[-1]]
        starts = np.concatenate([[0], ends[:-1]])
        return np.add.reduceat(values, starts) / np.diff(np.append(starts, ends[-1]))

    def _validation(self, updates: int) -> dict[str, np.ndarray] | None:
        checks = [(update, values) for update, values in self._checks if update <= updates]
        if not checks:
            return None
        at = np.array([update - 1 for update, _ in checks])
        names = [name for name in checks[0][1] if name not in ("loss", self._monitor)]
        found = {"learning_rates": self.learning_rates[at]}
        for key, name in {"loss": self._monitor, **{name: name for name in names}}.items():
            found[key] = np.array([values[name] for _, values in checks])
        return found
