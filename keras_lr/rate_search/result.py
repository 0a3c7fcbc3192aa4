"""The result of a search."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_lr._util import checks
from keras_lr._util.files import atomic_write
from keras_lr._util.json import jsonable, read_saved
from keras_lr.rate_search.answer import Answer
from keras_lr.rate_search.jobs import POLICIES, Job, Outcome, Setting
from keras_lr.rate_search.policies import python_for
from keras_lr.rate_search.rounds import Round
from keras_lr.rate_search.words import ENDINGS

if TYPE_CHECKING:
    import pandas

_KIND = "search"
_FORMAT_VERSION = 3  # 3: `tried`, `regret` and `sensitivity` of the answer
_OLDEST_VERSION = 2


@dataclass(frozen=True)
class Search:
    """The answer of a search, and everything that was tried.

    Two searches are equal if they would be saved alike.

    Attributes:
        answer: The best setting, the interval of its rate, and warnings.
        rounds: The rounds, each with its jobs and their outcomes.
        objective: The log entry that was optimized.
        maximize: Whether a higher objective is better.
        range_test: The result of the range test at the beginning: `low`, `high`, `suggestion`
            and the curve (`learning_rates`, `losses`); None if `low` and `high` were given.
        settings: The arguments of the search.
        storage: Where its record is, without passwords.
        study: The name of the record in the storage.
        provenance: Model, data, optimizer, backend and versions.

    >>> from keras_lr.rate_search import Answer, Setting
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

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, Search) else NotImplemented

    def _repr_html_(self) -> str:
        """The picture and the answer, which notebooks show."""
        from keras_lr.rate_search.report import fragment

        return fragment(self)

    @property
    def learning_rate(self) -> float:
        """The best rate, fitted through all finished runs (see `Answer`).

        The largest one of a policy that changes the rate.
        """
        return self.answer.setting.learning_rate

    @property
    def low(self) -> float:
        """The lowest rate that is as good, within the noise of the runs (see `Answer`)."""
        return self.answer.low

    @property
    def high(self) -> float:
        """The highest rate that is as good, within the noise of the runs (see `Answer`)."""
        return self.answer.high

    @property
    def setting(self) -> Setting:
        """The best setting: rate, momentum, batch size, warm-up, policy, ..."""
        return self.answer.setting

    @property
    def regret(self) -> tuple[float, float]:
        """How much worse the objective is at `low` and at `high`, in its units."""
        return self.answer.regret

    @property
    def sensitivity(self) -> tuple[float, float]:
        """How much worse the objective is at a third of the rate and at three times the rate.

        In units of the objective; infinite if such a rate diverges.
        """
        return self.answer.sensitivity

    @property
    def lr_sensitivity(self) -> float:
        """How much worse the objective is in the mean over three decades around the rate.

        In units of the objective; a rate costs at most what no training costs (Wortsman et al.
        2023, arXiv 2309.14322). An estimate by the parabola through the runs, which are near the
        best rate. NaN for an objective that is not one of validation.
        """
        return self.answer.lr_sensitivity

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to trust the answer less."""
        return self.answer.warnings

    @property
    def outcomes(self) -> list[Outcome]:
        """All runs that ended, once each, in the order of the rounds.

        A run that two rounds asked for is listed with the first one.
        """
        runs: dict[tuple[str, int], Outcome] = {}
        for each in self.rounds:
            for outcome in each.outcomes:
                runs.setdefault((outcome.job.key, outcome.number), outcome)
        return list(runs.values())

    def rows(self) -> list[dict[str, Any]]:
        """A row for each setting in each round, in the order of rounds and rates.

        `value` is the mean of the objective over the seeds, NaN if a run diverged; `spread` is
        its standard deviation, NaN for one run; `ended` is the worst ending of the runs; `best`
        marks the best setting that was trained, from which the answer was fitted.
        """
        rows = []
        for each in self.rounds:
            scores = sorted(each.scores, key=lambda score: score.setting.learning_rate)
            for score in scores:
                rows.append(
                    {
                        "round": each.name,
                        **asdict(score.setting),
                        "weight_decay": score.setting.weight_decay,
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
                        and score.setting == self.answer.tried,
                    }
                )
        return rows

    def table(self) -> pandas.DataFrame:
        """`rows` as a pandas `DataFrame`.

        Raises:
            ImportError: If pandas is not installed.
        """
        import pandas

        return pandas.DataFrame(self.rows())

    def python(self) -> str:
        """Lines of Python that train with the answer."""
        known = self.provenance
        return python_for(
            self.answer.setting,
            settable=known.get("settable_rate", True),
            cycles=known.get("has_momentum", True),
        )

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the objective and the curves of a round; see `keras_lr.plotting.plot_search`."""
        from keras_lr.plotting import plot_search

        return plot_search(self, ax, **options)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML file with the plots, the tables, the settings and how to repeat it.

        Returns:
            `path`, as a `Path`.

        Raises:
            OSError: If it cannot be written.
        """
        from keras_lr.rate_search.report import write_report

        return write_report(self, path)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it: null for NaN, text for an infinite loss."""
        return jsonable(
            {
                "format": f"keras-lr {_KIND}",
                "version": _FORMAT_VERSION,
                "learning_rate": self.learning_rate,
                "low": self.low,
                "high": self.high,
                "setting": asdict(self.setting),
                "tried": asdict(self.answer.tried or self.setting),
                "objective": self.objective,
                "maximize": self.maximize,
                "value": self.answer.mean,
                "spread": self.answer.spread,
                "round": self.answer.round,
                "finished": self.answer.finished,
                "warnings": list(self.warnings),
                "regret": _saved_pair(self.answer.regret),
                "sensitivity": _saved_pair(self.answer.sensitivity),
                "lr_sensitivity": self.answer.lr_sensitivity,
                "python": self.python(),
                "table": self.rows(),
                "rounds": [
                    {
                        "name": each.name,
                        "fraction": each.fraction,
                        "spacing": each.spacing,
                        "jobs": [_job_content(job) for job in each.jobs],
                    }
                    for each in self.rounds
                ],
                "runs": [
                    {
                        "number": outcome.number,
                        **_job_content(outcome.job),
                        "ended": outcome.ended,
                        "value": outcome.value,
                        "history": {
                            name: [str(each) if math.isinf(each) else each for each in values]
                            for name, values in outcome.history.items()
                        },
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
        """Write the search as a JSON file, whole or not at all; `load` reads it.

        Returns:
            `path`, as a `Path`.

        Raises:
            OSError: If it cannot be written.
        """
        return atomic_write(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Search:
        """Read a search that `save` wrote: equal to the saved one, without its record.

        Raises:
            ValueError: If the file is not such a search, is damaged, or has another version.
            OSError: If it cannot be read.
        """
        return read_saved(path, _KIND, _OLDEST_VERSION, _FORMAT_VERSION, cls._of)

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> Search:
        """The inverse of `to_dict`."""
        outcomes = [_outcome(each) for each in content["runs"]]
        rounds = [
            Round(
                _text("the name of a round", each["name"]),
                checks.number("fraction", each["fraction"], above=0.0, most=1.0),
                checks.number("spacing", each["spacing"], above=0.0),
                jobs := [_job(job) for job in each["jobs"]],
                _of_jobs(jobs, outcomes),
                checks.flag("maximize", content["maximize"]),
            )
            for each in content["rounds"]
        ]
        if not {each.job for each in outcomes} <= {job for each in rounds for job in each.jobs}:
            raise ValueError("a run belongs to no round")
        answer = Answer(
            setting=_setting(content["setting"]),
            low=checks.number("low", content["low"], above=0.0),
            high=checks.number("high", content["high"], above=0.0),
            mean=_number(content["value"]),
            spread=_number(content["spread"]),
            round=_text("round", content["round"]),
            finished=checks.flag("finished", content["finished"]),
            warnings=tuple(_text("a warning", each) for each in content["warnings"]),
            tried=_setting(content["tried"] if content["version"] > 2 else content["setting"]),
            regret=_pair(content.get("regret")),
            sensitivity=_pair(content.get("sensitivity")),
            lr_sensitivity=_number(content.get("lr_sensitivity")),
        )
        test = content["range_test"]
        if test is not None:
            curve = {name: list(map(_number, test[name])) for name in ("learning_rates", "losses")}
            test = {**test, **curve}
        return cls(
            answer,
            rounds,
            _text("objective", content["objective"]),
            checks.flag("maximize", content["maximize"]),
            test,
            dict(content["settings"]),
            _text("storage", content["storage"]),
            _text("study", content["study"]),
            dict(content["provenance"]),
        )


def _job_content(job: Job) -> dict[str, Any]:
    return {
        "round": job.round,
        **asdict(job.setting),
        "seed": job.seed,
        "fraction": job.fraction,
        "epochs": job.epochs,
    }


def _job(content: Mapping[str, Any]) -> Job:
    return Job(
        _text("round", content["round"]),
        _setting(content),
        checks.count("seed", content["seed"], 0),
        checks.number("fraction", content["fraction"], above=0.0, most=1.0),
        checks.count("epochs", content["epochs"]),
    )


def _of_jobs(jobs: list[Job], outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes of the jobs of a round: its own, or those that another round shares with it.

    Before keys were free of the round, both rounds trained the same run.
    """
    shared = {each.job.key: each for each in outcomes}
    own = {each.job: each for each in outcomes}
    found = ((job, own.get(job, shared.get(job.key))) for job in jobs)
    return [replace(each, job=job) for job, each in found if each is not None]


def _setting(content: Mapping[str, Any]) -> Setting:
    momentum, size = content["momentum"], content["batch_size"]
    beta_2, product = content.get("beta_2"), content.get("rate_decay")
    return Setting(
        checks.number("learning_rate", content["learning_rate"], above=0.0),
        None if momentum is None else checks.number("momentum", momentum),
        None if size is None else checks.count("batch_size", size),
        checks.number("warmup", content["warmup"], least=0.0),
        checks.choice("policy", content["policy"], POLICIES),
        None if beta_2 is None else checks.number("beta_2", beta_2, above=0.0, below=1.0),
        None if product is None else checks.number("rate_decay", product, least=0.0),
    )


def _outcome(content: Mapping[str, Any]) -> Outcome:
    return Outcome(
        _job(content),
        checks.choice("ended", content["ended"], ENDINGS),
        _number(content["value"]),
        {str(name): list(map(_number, values)) for name, values in content["history"].items()},
        checks.number("seconds", content["seconds"]),
        checks.count("number", content["number"], -1),
    )


def _number(value: Any) -> float:
    """The inverse of `to_dict` for numbers: null is NaN, an infinite number is its name."""
    return math.nan if value is None else float(value)


def _saved_pair(pair: tuple[float, float]) -> list[float | str]:
    return [str(each) if math.isinf(each) else each for each in pair]


def _pair(content: Any) -> tuple[float, float]:
    """The inverse of `_saved_pair`; NaN for a file that has none."""
    low, high = (None, None) if content is None else content
    return _number(low), _number(high)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text; got {value!r}")
    return value
