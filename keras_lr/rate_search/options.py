"""The options of a search: checked, and filled in for a model and its data."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from keras_lr._keras.metrics import direction_of
from keras_lr._util import checks
from keras_lr.rate_search.jobs import DIMENSIONS, POLICIES, Setting
from keras_lr.rate_search.plan import Design
from keras_lr.rate_search.policies import constant_only, current_momentum, has_momentum
from keras_lr.rate_search.split import usual_fraction
from keras_lr.schedules.scaling import usual_rule
from keras_lr.steering import innermost_optimizers

if TYPE_CHECKING:
    from keras_lr.rate_search.data import Data
from keras_lr.rate_search.runner import Runner

MOMENTA = (0.8, 0.9, 0.95, 0.98)
WARMUPS = (0.0, 0.1, 0.3)
BETAS_2 = (0.9, 0.95, 0.99, 0.999)
DECAYS = (0.0, 0.1, 1.0, 10.0)  # in units of the compiled weight decay
MOST_RUNS, MORE_RUNS = 8, 12  # default of max_runs: for the rate, and for each of `also`
UNKNOWN_RULE = "sqrt"  # of other optimizers: half way between none and "linear"
_UNRECORDED = ("timeout", "heartbeat", "verbose")  # may differ between processes of one search


@dataclass(frozen=True)
class Options:
    """The options of `search`, checked. `search` documents them and holds their defaults.

    To add an option: an argument of `search`, a field and a check here, a line in the options of
    `keras-lr search`. The record and the report take the fields from here.
    """

    low: float | None
    high: float | None
    fraction: float | None
    epochs: int
    fine_rounds: int
    points: int
    final_seeds: int
    max_runs: int | None
    also: Mapping[str, Sequence[Any] | None] | Iterable[str]
    objective: str
    mode: str
    pruner: str
    validation_split: float
    seed: int
    timeout: float | None
    heartbeat: int
    verbose: str | int

    @classmethod
    def among(cls, arguments: Mapping[str, Any]) -> Options:
        """The options among the arguments of `search`.

        Raises:
            ValueError, TypeError: If one is out of its range or of the wrong type.
        """
        return cls(**{each.name: arguments[each.name] for each in fields(cls)})

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                checks.number(name, getattr(self, name), above=0.0)
        if (self.low is None) != (self.high is None):
            raise ValueError(
                "low and high must be given together; got "
                f"low={self.low!r} and high={self.high!r}. Leave both out for a range test."
            )
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(
                f"low must be below high; got low={self.low!r} and high={self.high!r}."
            )
        if self.fraction is not None:
            checks.number("fraction", self.fraction, above=0.0, most=1.0)
        least = {"epochs": 1, "fine_rounds": 0, "final_seeds": 1, "heartbeat": 1}
        for name, bound in least.items():
            checks.count(name, getattr(self, name), bound)
        if checks.count("points", self.points, 3) % 2 == 0:
            raise ValueError(
                "points must be odd, so that the rates lie evenly around the best; got "
                f"{self.points!r}."
            )
        if self.max_runs is not None:
            checks.count("max_runs", self.max_runs)
        checks.choice("mode", self.mode, ("auto", "min", "max"))
        checks.choice("pruner", self.pruner, ("median", "halving", "none"))
        checks.number("validation_split", self.validation_split, above=0.0, below=1.0)
        checks.count("seed", self.seed, 0)
        if self.timeout is not None:
            checks.number("timeout", self.timeout, above=0.0)
        checks.log_entry("objective", self.objective)
        checks.verbosity(self.verbose, auto=True)
        object.__setattr__(self, "also", _dimensions(self.also))

    def design(self, runner: Runner, batch_size: int | None) -> Design:
        """The layout of the rounds, with the usual values for this model and these data.

        Raises:
            ValueError: If the model or the data do not allow an option.
        """
        model, data = runner.model, runner.data
        fraction = self.fraction
        if fraction is None:
            fraction = 1.0 if data.rows is None else usual_fraction(data.rows)
        if data.rows is None and fraction < 1.0 and data.batches is None:
            raise ValueError(
                f"fraction must be 1 for data of unknown length; got {fraction!r}. Pass "
                "steps_per_epoch, or arrays."
            )
        rows = None if data.rows is None else fraction * data.rows
        also: dict[str, tuple[Any, ...]] = {}
        assert isinstance(self.also, Mapping)  # noqa: S101  __post_init__ made it one
        for name, values in self.also.items():
            if name in ("policy", "warmup", "momentum") and constant_only(model.optimizer):
                _check_constant(name, values, model.optimizer)
            else:
                usual = _usual_values(name, values, runner, batch_size, rows)
                also[name] = tuple(values or usual)
        optimizer = innermost_optimizers(model.optimizer)[0]
        momentum = current_momentum(model.optimizer) if "momentum" in also else None
        beta_2 = float(optimizer.beta_2) if "beta_2" in also else None
        mode = direction_of(model, self.objective) if self.mode == "auto" else self.mode
        return Design(
            fine_rounds=self.fine_rounds,
            points=self.points,
            fraction=fraction,
            epochs=self.epochs,
            final_seeds=self.final_seeds,
            maximize=mode == "max",
            seed=self.seed,
            also=also,
            base=Setting(1.0, momentum, batch_size, beta_2=beta_2),
            max_runs=self.max_runs or MOST_RUNS + MORE_RUNS * len(also),
            velocity=hasattr(optimizer, "momentum"),
            batch_rule=usual_rule(model.optimizer) or UNKNOWN_RULE,
        )

    def recorded(self, design: Design) -> dict[str, Any]:
        """The options that are equal in all processes of a search, as the record holds them."""
        options = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in _UNRECORDED:
            del options[name]
        return {
            **options,
            "fraction": design.fraction,
            "also": {name: list(values) for name, values in design.also.items()},
            "mode": "max" if design.maximize else "min",
            "batch_size": design.base.batch_size,
        }


def _usual_values(
    name: str,
    given: Sequence[Any] | None,
    runner: Runner,
    batch_size: int | None,
    rows: float | None,
) -> Iterable[Any]:
    """The values of a dimension to try if none are given.

    Args:
        given: The given values, which are checked; or None.
        rows: Rows of the first round; None for a data set.

    Raises:
        ValueError: If the optimizer or the data do not have the dimension.
    """
    model, data = runner.model, runner.data
    if name == "momentum":
        if not has_momentum(model.optimizer):
            raise ValueError(
                "also='momentum' needs an optimizer with a momentum above 0; got "
                f"{type(model.optimizer).__name__}. Compile it with momentum=0.9, or "
                "leave momentum out of also."
            )
        return sorted({current_momentum(model.optimizer), *MOMENTA})
    if name == "batch_size":
        if rows is None or batch_size is None:
            raise ValueError(
                "also='batch_size' needs arrays as x; got a data set with batches of its "
                f"own ({type(data.x).__name__})."
            )
        for size in given or ():
            runner.check_batches(size)
        return usual_sizes(runner, batch_size, rows)
    if name == "policy":
        return usual_policies(data)
    if name == "beta_2":
        beta_2 = _compiled(model, name, "an optimizer like Adam", "Compile it with Adam")
        return sorted({beta_2, *BETAS_2})
    if name == "weight_decay":
        way_out = "Compile it with weight_decay=0.004, for instance"
        decay = _compiled(model, name, "an optimizer with a weight decay above 0", way_out)
        return [decay * factor for factor in DECAYS]
    return WARMUPS


def _compiled(model: Any, name: str, needed: str, way_out: str) -> float:
    """A number of the optimizer that is above 0 in each of its groups.

    Raises:
        ValueError: If there is none.
    """
    inner = innermost_optimizers(model.optimizer)
    for each in inner:
        if name in getattr(each, "constants", ()):
            raise ValueError(
                f"also={name!r} needs an optimizer whose {name} may be set from outside; got "
                f"{type(each).__name__}. Leave {name} out of also."
            )
    values: list[Any] = [getattr(each, name, None) for each in inner]
    if not all(isinstance(each, float) and each > 0 for each in values):
        kinds = " and ".join(dict.fromkeys(type(each).__name__ for each in inner))
        raise ValueError(
            f"also={name!r} needs {needed}; got {kinds} with {name}={values[0]!r}. {way_out}, or "
            f"leave {name} out of also."
        )
    return float(values[0])


def _check_constant(name: str, values: Any, optimizer: Any) -> None:
    """Refuse a dimension that steers, for an optimizer that takes only a constant rate."""
    kind = type(innermost_optimizers(optimizer)[0]).__name__
    if name == "policy" and values in (None, ("constant",)):
        warnings.warn(
            f"{kind} trains at a constant rate, so the search asks for the rate alone. Pass "
            "also=() to ask for no policy.",
            UserWarning,
            stacklevel=2,
        )
        return
    raise ValueError(
        f"also={name!r} needs an optimizer whose rate may change during a run; got {kind}, which "
        f"trains at a constant rate. Leave {name} out of also."
    )


def usual_policies(data: Data) -> tuple[str, ...]:
    """All policies; the constant rate alone for data of unknown length."""
    return POLICIES if data.rows is not None or data.batches is not None else POLICIES[:1]


def usual_sizes(runner: Runner, batch_size: int, rows: float) -> list[int]:
    """Half to four times the batch size: those with at least four batches of equal shares."""
    most = max(batch_size, int(rows) // 4)

    def fits(size: int) -> bool:
        try:
            runner.check_batches(size)
        except ValueError:
            return False
        return size <= most

    usual = [max(1, batch_size // 2), batch_size, 2 * batch_size, 4 * batch_size]
    return [size for size in dict.fromkeys(usual) if fits(size)]


def _dimensions(also: Any) -> dict[str, tuple[Any, ...] | None]:
    """`also` as a dictionary from dimensions to values; None stands for the usual values."""
    if isinstance(also, str):
        also = (also,)
    if not isinstance(also, Iterable):
        raise TypeError(
            f"also must be names, or a mapping from names to values; got {also!r}. Pass () to ask "
            "for the rate alone."
        )
    if not isinstance(also, Mapping):
        also = dict.fromkeys(also)
    wanted: dict[str, tuple[Any, ...] | None] = {}
    for name, values in also.items():
        name = {"warm_up": "warmup"}.get(str(name).replace("-", "_"), str(name).replace("-", "_"))
        checks.choice("also", name, DIMENSIONS)
        if values is None:
            wanted[name] = None
            continue
        if isinstance(values, str) or not isinstance(values, Iterable) or not list(values):
            raise TypeError(f"also[{name!r}] must be a list of at least one value; got {values!r}.")
        wanted[name] = tuple(dict.fromkeys(_value_of(name, value) for value in values))
    return wanted


def _value_of(dimension: str, value: Any) -> Any:
    if dimension == "batch_size":
        return checks.count(dimension, value)
    if dimension == "policy":
        return checks.choice(dimension, value, POLICIES)
    if dimension == "weight_decay":
        return checks.number(dimension, value, least=0.0)
    if dimension in ("momentum", "beta_2"):
        return checks.number(dimension, value, above=0.0, below=1.0)
    return checks.number(dimension, value, least=0.0, below=1.0)
