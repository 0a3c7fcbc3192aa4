"""What a search found."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_lr._util.files import atomic_write
from keras_lr._util.json import jsonable
from keras_lr.rate_search.plan import Answer, Outcome, Round, Setting

if TYPE_CHECKING:
    import pandas

_FORMAT = "keras-lr search"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Search:
    """The answer of a search, and everything that was tried.

    Attributes:
        answer: The best setting, the interval of its rate, and what makes it less sure.
        rounds: The rounds, each with its jobs and their outcomes.
        objective: The entry of the logs that counted.
        maximize: Whether it should rise.
        range_test: What the range test at the beginning said: `low`, `high`, `suggestion` and
            the curve (`learning_rates`, `losses`); None where the bounds were given.
        settings: The arguments of the search.
        storage: Where its record is, without passwords.
        study: Its name there.
        provenance: Model, data, optimizer, backend and versions.

    >>> from keras_lr.rate_search.plan import Answer, Setting
    >>> answer = Answer(Setting(0.01), 0.005, 0.02, 0.31, 0.01, "fine 2", True)
    >>> search = Search(answer, [], "val_loss", False)
    >>> search.learning_rate, search.low, search.high
    (0.01, 0.005, 0.02)
    >>> search
    <Search of 0 runs: learning rate 0.01, from 0.005 to 0.02, val_loss 0.31>
    """

    answer: Answer
    rounds: list[Round]
    objective: str
    maximize: bool
    range_test: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    storage: str = ""
    study: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        runs = len(self.outcomes)
        rates = f"{self.learning_rate:.3g}, from {self.low:.3g} to {self.high:.3g}"
        value = f"{self.objective} {self.answer.mean:.4g}"
        return f"<Search of {runs} run{'s'[: runs != 1]}: learning rate {rates}, {value}>"

    @property
    def learning_rate(self) -> float:
        """The best rate; of one-cycle and cosine the largest one."""
        return self.answer.setting.learning_rate

    @property
    def low(self) -> float:
        """Lower end of the rates that did as well, within the noise of the seeds."""
        return self.answer.low

    @property
    def high(self) -> float:
        """Upper end of them."""
        return self.answer.high

    @property
    def setting(self) -> Setting:
        """The best setting: rate, momentum, batch size, warm-up and policy."""
        return self.answer.setting

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the answer less sure."""
        return self.answer.warnings

    @property
    def outcomes(self) -> list[Outcome]:
        """All runs that ended, in the order of the rounds."""
        return [outcome for each in self.rounds for outcome in each.outcomes]

    def rows(self) -> list[dict[str, Any]]:
        """The table: a row for each setting in each round, in the order of rounds and rates.

        `value` is the mean of the objective over the seeds, `spread` its standard deviation,
        `ended` the worst end of its runs, `best` marks the answer. NaN stands for what there is
        not: the value where a run diverged, the spread of one run.
        """
        rows = []
        for each in self.rounds:
            scores = sorted(each.scores, key=lambda score: score.setting.learning_rate)
            for score in scores:
                rows.append(
                    {
                        "round": each.name,
                        **asdict(score.setting),
                        "fraction": each.fraction,
                        "runs": len(score.outcomes),
                        "value": score.mean,
                        "spread": score.spread,
                        "ended": score.ended,
                        "epochs": max(
                            len(next(iter(o.history.values()), [])) for o in score.outcomes
                        ),
                        "seconds": sum(outcome.seconds for outcome in score.outcomes),
                        "best": each.name == self.answer.round
                        and score.setting == self.answer.setting,
                    }
                )
        return rows

    def table(self) -> pandas.DataFrame:
        """`rows` as a table of pandas.

        Raises:
            ImportError: If pandas is not installed.
        """
        import pandas

        return pandas.DataFrame(self.rows())

    def python(self) -> str:
        """Python that trains with the answer."""
        known = self.provenance
        return in_python(
            self.answer.setting,
            settable=known.get("settable_rate", True),
            cycles=known.get("has_momentum", True),
        )

    def plot(self, axes: Any = None) -> Any:
        """Draw it, see `keras_lr.plotting.plot_search`."""
        from keras_lr.plotting import plot_search

        return plot_search(self, axes)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML file with the pictures, the table, the settings and how to do it again.

        Raises:
            OSError: If it cannot be written.
        """
        from keras_lr.rate_search.report import write_report

        return write_report(self, path)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it: null for NaN."""
        return jsonable(
            {
                "format": _FORMAT,
                "version": _FORMAT_VERSION,
                "learning_rate": self.learning_rate,
                "low": self.low,
                "high": self.high,
                "setting": asdict(self.setting),
                "objective": self.objective,
                "maximize": self.maximize,
                "value": self.answer.mean,
                "spread": self.answer.spread,
                "finished": self.answer.finished,
                "warnings": list(self.warnings),
                "python": self.python(),
                "table": self.rows(),
                "runs": [
                    {
                        "number": outcome.number,
                        "round": outcome.job.round,
                        **asdict(outcome.job.setting),
                        "seed": outcome.job.seed,
                        "fraction": outcome.job.fraction,
                        "ended": outcome.ended,
                        "value": outcome.value,
                        "history": outcome.history,
                        "seconds": outcome.seconds,
                    }
                    for outcome in self.outcomes
                ],
                "range_test": self.range_test,
                "settings": self.settings,
                "storage": self.storage,
                "study": self.study,
                "provenance": self.provenance,
            }
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as a JSON file.

        Raises:
            OSError: If it cannot be written.
        """
        return atomic_write(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")


def in_python(setting: Setting, *, settable: bool = True, cycles: bool = True) -> str:
    """Lines of Python that train a compiled model `model` as a setting says.

    Args:
        setting: What to train with.
        settable: Whether the optimizer has one number for its rate; not if it was compiled with a
            schedule, or is a `MultiOptimizer`.
        cycles: Whether it has a momentum that one-cycle can cycle.

    >>> print(in_python(Setting(0.003, policy="one-cycle", batch_size=64)))
    model.fit(x, y, batch_size=64, callbacks=[keras_lr.OneCycle(max_lr=0.003)])
    >>> print(in_python(Setting(0.003)))
    model.optimizer.learning_rate = 0.003
    model.fit(x, y)
    >>> print(in_python(Setting(0.003), settable=False))
    model.fit(x, y, callbacks=[keras_lr.ScheduleLR(keras_lr.schedules.ConstantSchedule(0.003))])
    """
    rate, momentum = setting.learning_rate, setting.momentum
    lines: list[str] = []
    callbacks: list[str] = []
    arguments = ["x", "y"]
    if setting.batch_size:
        arguments.append(f"batch_size={setting.batch_size}")
    beside = "" if momentum is None else f", momentum={momentum:g}"
    if setting.policy == "one-cycle":
        cycle = ""
        if momentum is not None:
            low, high = cycled(momentum)
            cycle = f", base_momentum={low:g}, max_momentum={high:g}"
        elif not cycles:
            cycle = ", cycle_momentum=False"
        callbacks.append(f"keras_lr.OneCycle(max_lr={rate:g}{cycle})")
    elif setting.policy == "cosine":
        size = setting.batch_size
        batches = f"-(-len(x) // {size})" if size else "len(x)"
        lines.append("epochs = 10")
        lines.append(
            f"decay = keras.optimizers.schedules.CosineDecay({rate:g}, epochs * {batches})"
        )
        arguments.append("epochs=epochs")
        callbacks.append(f"keras_lr.ScheduleLR(decay{beside})")
    elif momentum is not None or not settable:
        constant = f"keras_lr.schedules.ConstantSchedule({rate:g})"
        callbacks.append(f"keras_lr.ScheduleLR({constant}{beside})")
    else:
        lines.append(f"model.optimizer.learning_rate = {rate:g}")
    if setting.warmup and setting.policy != "one-cycle":
        callbacks.append(f"keras_lr.WarmUp(fraction={setting.warmup:g})")
    if callbacks:
        arguments.append(f"callbacks=[{', '.join(callbacks)}]")
    return "\n".join([*lines, f"model.fit({', '.join(arguments)})"])


def cycled(momentum: float) -> tuple[float, float]:
    """The ends between which one-cycle takes a momentum: the usual 0.1 apart, from 0 up."""
    return (round(momentum - 0.1, 6) if momentum > 0.1 else 0.0), momentum
