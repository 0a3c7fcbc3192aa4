"""The run that is planned, and how its best learning rate differs from that of another run.

The highest rate of a run depends on the shape of its policy, and falls with the length of the run:
faster if the rate is still high at the end. Both are in decades (log10 of a factor) beside the
neutral run: 500 updates, and a policy between a constant rate and one that decays.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from keras_lr._util import checks
from keras_lr.schedule_preview.simulate import rates_at
from keras_lr.schedules import ConstantSchedule, OneCycleSchedule, WarmUpStableDecaySchedule
from keras_lr.schedules.base import evaluate

# Measured with runs of 500 to 8,000 updates: benchmarks/horizon.
NEUTRAL_STEPS = 500
LENGTH_CONSTANT = -0.20  # decades for each 4 times as many updates, at a constant rate
LENGTH_DECAYED = -0.10  # the same, of the peak of a policy that decays to 0
CONSTANT = -0.15  # decades of the best constant rate beside the neutral one
ONE_CYCLE = 0.15  # decades of the best peak of one-cycle beside it

POINTS = 1000  # of a shape
_TAIL = 1e-4  # a share of the sum of all rates; later rates change nothing that counts
_GOLDEN = (5**0.5 - 1) / 2
_MOST_STEPS = 2**24  # schedules count in float32, which has no larger exact integers


def _warm_up_cosine(steps: int) -> LearningRateSchedule:
    warm_up = steps // 20
    return WarmUpStableDecaySchedule(1.0, steps, warm_up, steps - warm_up, decay="cosine")


def _warm_up_stable_decay(steps: int) -> LearningRateSchedule:
    return WarmUpStableDecaySchedule(1.0, steps, steps // 20, steps // 5, decay="linear")


POLICIES = {
    "constant": lambda steps: ConstantSchedule(1.0),
    "one-cycle": lambda steps: OneCycleSchedule(1.0, steps),
    "cosine": _warm_up_cosine,
    "wsd": _warm_up_stable_decay,
}


@dataclass(frozen=True, eq=False, repr=False)
class PlannedRun:
    """A run that is planned: its policy and its length, as far as they are known.

    Attributes:
        policy: The name of the policy: `"constant"`, `"one-cycle"`, `"cosine"`, `"wsd"`, or the
            names of classes; "" if it is unknown.
        total_steps: Updates of the run; None if unknown.
        shape: The rates at evenly spaced updates of the run, relative to the highest; shape
            (1000,). None if the policy is unknown.
    """

    policy: str = ""
    total_steps: int | None = None
    shape: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"PlannedRun({self.name})"

    @property
    def name(self) -> str:
        """The run in words: "one-cycle, 10,000 updates"."""
        length = "" if self.total_steps is None else f"{self.total_steps:,} updates"
        return ", ".join(part for part in (self.policy, length) if part)

    @property
    def sentence(self) -> str:
        """What the policy and the length do to the rate; "" if both are unknown."""
        parts = []
        if self.policy:
            parts.append(f"by {10 ** _of_policy(self):.2g} for the policy ({self.policy})")
        if self.total_steps is not None:
            factor = f"{10 ** _of_length(self):.2g}"
            parts.append(f"by {factor} for the length ({self.total_steps:,} updates)")
        return f"The rate is multiplied {' and '.join(parts)}." if parts else ""

    def to_dict(self) -> dict[str, Any]:
        """Everything as lists and numbers; the shape of a named policy is left out."""
        shape = None if self.shape is None or self.policy in POLICIES else self.shape.tolist()
        return {"policy": self.policy, "total_steps": self.total_steps, "shape": shape}

    @classmethod
    def of(cls, content: dict[str, Any]) -> PlannedRun:
        """The inverse of `to_dict`."""
        policy, steps, shape = (content[name] for name in ("policy", "total_steps", "shape"))
        if policy in POLICIES:
            shape = _named_shape(policy)
        elif shape is not None:
            shape = np.asarray(shape, np.float64)
            if shape.shape != (POINTS,) or not (shape.min() >= 0 < shape.max() <= 1):
                raise ValueError(f"shape must have {POINTS} rates in [0, 1].")
        return cls(
            str(policy), None if steps is None else checks.count("total_steps", steps), shape
        )


def planned_run(
    policy: Any, total_steps: int | None, steps_per_epoch: int | None = None
) -> PlannedRun | None:
    """Describe a run; None if nothing is known about it.

    Args:
        policy: `"constant"`, `"one-cycle"`, `"cosine"` (warm-up over 5% of the run, then a cosine
            to 0), `"wsd"` (the same warm-up, constant, and linear to 0 over the last 20%); a
            schedule of Keras or keras-lr; a callback that sets the rate; a list of these, as for
            `preview`; a `PlannedRun`, for its shape; or None. Only the shape counts: rates
            relative to the highest rate in the run. A callback that waits for a metric, such as
            `ReduceLROnPlateau`, counts as one that never lowers the rate.
        total_steps: Updates of the run, at least 1; None if unknown.
        steps_per_epoch: Updates in an epoch, for callbacks that count epochs.

    Raises:
        ValueError: If an argument is out of range, the policy needs a length that is not given,
            or the rate is 0 in the whole run.
        TypeError: If the policy is none of these.
    """
    if policy is None and total_steps is None:
        return None
    steps = None if total_steps is None else checks.count("total_steps", total_steps)
    if steps_per_epoch is not None:
        steps_per_epoch = checks.count("steps_per_epoch", steps_per_epoch)
    if policy is None:
        return PlannedRun(total_steps=steps)
    if isinstance(policy, PlannedRun):
        return replace(policy, total_steps=steps)
    if isinstance(policy, str):
        policy = checks.choice("policy", policy, POLICIES)
        return PlannedRun(policy, steps, _named_shape(policy))
    parts = list(policy) if isinstance(policy, (list, tuple)) else [policy]
    for part in parts:
        if not isinstance(part, (LearningRateSchedule, keras.callbacks.Callback)):
            names = ", ".join(repr(name) for name in POLICIES)
            raise TypeError(
                f"policy must be {names}, a schedule, a callback or a list of these; got {part!r}."
            )
    name = " + ".join(type(part).__name__ for part in parts)
    if steps is None:
        raise ValueError(
            f"total_steps must be given for {name}, whose shape depends on it; got None. Pass "
            'total_steps, or a named policy such as "one-cycle".'
        )
    return PlannedRun(name, steps, _evaluated(parts, steps, steps_per_epoch))


def transfer_lr(
    learning_rate: float,
    source: PlannedRun | tuple[Any, int | None],
    target: PlannedRun | tuple[Any, int | None],
) -> float:
    """Convert a learning rate that was good in one run to a run of another policy or length.

    The rate of a policy is its highest rate. In a run of 500 updates the best constant rate is
    about half of the best peak of one-cycle. In a run of 4 times as many updates the best constant
    rate is about 0.63 times as high, the best peak of a policy that decays to 0 about 0.8 times.
    Below 500 updates, where nothing was measured, 0.8 holds for every policy.
    These are means over tasks; a single task differs from them by a factor of about 1.5, and more
    for a longer way. Everything else must stay the same. For another batch size see `scale_lr`;
    this function knows nothing of the size of the model.

    Args:
        learning_rate: The highest rate of the source run; above 0.
        source: Policy and updates of the run that the rate is good for: a pair
            `(policy, total_steps)`, or the `planned` run of a `RangeTest`. The policy is
            `"constant"`, `"one-cycle"`, `"cosine"` (warm-up, then a cosine to 0), `"wsd"`
            (warm-up, constant, linear to 0), a schedule of Keras or keras-lr, or a callback of
            keras-lr; of the last two only the shape counts.
        target: Policy and updates of the run to convert it to.

    Returns:
        The highest rate of the target run.

    Raises:
        ValueError: If an argument is out of range, or only one of the runs has a policy or a
            length.
        TypeError: If an argument has the wrong type.

    Sources: the policies from the last-iterate bound of Defazio et al. (2023, arXiv 2310.07831,
    theorem 10), with its logarithm scaled down to what was measured; the lengths as measured. The
    bound alone gives larger steps: a third instead of a half, and 0.5 for 4 times as many updates
    with any policy.

    >>> round(transfer_lr(3e-3, source=("constant", 2_000), target=("one-cycle", 20_000)), 4)
    0.0051
    """
    learning_rate = checks.number("learning_rate", learning_rate, above=0)
    runs = [_run_of("source", source), _run_of("target", target)]
    for what in ("policy", "total_steps"):
        known = [getattr(run, what) not in ("", None) for run in runs]
        if known[0] != known[1]:
            having, lacking = ("source", "target") if known[0] else ("target", "source")
            raise ValueError(
                f"source and target must both have a {what}, or neither; got one for {having} "
                f"and none for {lacking}."
            )
    return learning_rate * 10.0 ** (correction(runs[1]) - correction(runs[0]))


def correction(run: PlannedRun) -> float:
    """Decades from the neutral rate to the best one of a run; an unknown part counts as 0."""
    return _of_policy(run) + _of_length(run)


def shape_bound(shape: np.ndarray) -> float:
    """The best highest rate for a shape, up to a factor that depends on the problem.

    The rate with the lowest bound on the loss of the last iterate of SGD on a convex problem:
    `sqrt(T1 / T2)`, where the bound is `T1 D^2 / rate + T2 G^2 rate`. An update at rate 0 changes
    nothing, so it does not count.

    Args:
        shape: Rates of all updates of a run relative to the highest, in [0, 1], one of them 1.

    Source: Defazio et al., "Optimal Linear Decay Learning Rate Schedules and Further Refinements"
    (2023, arXiv 2310.07831), theorem 10; Schaipp et al. (2025, arXiv 2501.18965), theorem 1.

    >>> round(shape_bound(np.ones(4)) ** -2, 4)  # constant: T * (1 + 1 + 1/2 + 1/3), T updates
    11.3333
    """
    rates = shape[shape > 0.0]
    total = float(rates.sum())
    later = np.cumsum(rates[::-1])[::-1]  # sums from each update on
    later_squares = np.cumsum((rates**2)[::-1])[::-1]
    steps = rates[:-1] / later[1:] * later_squares[:-1] / later[:-1]
    first, second = 0.5 / total, 0.5 * float((rates**2).sum()) / total + 0.5 * float(steps.sum())
    return float(np.sqrt(first / second))


def _of_length(run: PlannedRun) -> float:
    """Decades for the length, by the share of the highest rate that is left at the end.

    A run below the measured lengths gets the smaller step whatever its policy: a rate that is too
    high costs more than one that is too low.
    """
    if run.total_steps is None:
        return 0.0
    left = 0.5 if run.shape is None else float(run.shape[-1])
    left *= run.total_steps > NEUTRAL_STEPS
    fourfold = LENGTH_DECAYED + left * (LENGTH_CONSTANT - LENGTH_DECAYED)
    return float(fourfold * np.log(run.total_steps / NEUTRAL_STEPS) / np.log(4.0))


def _of_policy(run: PlannedRun) -> float:
    """Decades for the policy: the logarithm of the bound, scaled to the measured policies."""
    if run.shape is None:
        return 0.0
    constant, one_cycle = _log_bound_of("constant"), _log_bound_of("one-cycle")
    scale = (ONE_CYCLE - CONSTANT) / (one_cycle - constant)
    return CONSTANT + scale * (_log_bound(run.shape) - constant)


def _log_bound(shape: np.ndarray) -> float:
    """log10 of the bound, without a tail of rates that are too low to count.

    The theorem is about the last iterate, and has no use for a long tail of tiny rates after a
    sudden fall; there, it would ask for a tiny peak.
    """
    later = np.cumsum(shape[::-1])[::-1]
    return float(np.log10(shape_bound(shape[later >= _TAIL * later[0]])))


@functools.lru_cache
def _log_bound_of(policy: str) -> float:
    return _log_bound(_named_shape(policy))


def _named_shape(policy: str) -> np.ndarray:
    return _shape(evaluate(POLICIES[policy](POINTS), np.arange(POINTS)))


def _evaluated(parts: list[Any], steps: int, steps_per_epoch: int | None) -> np.ndarray:
    epochs = 1
    counting = [each for each in parts if _counts_epochs(each)]
    if counting:
        if steps_per_epoch is None:
            raise ValueError(
                f"steps_per_epoch must be given for {type(counting[0]).__name__}, which counts "
                "epochs here; got None. Or give its length in updates."
            )
        epochs = -(-steps // steps_per_epoch)
        steps = epochs * steps_per_epoch
    if steps > _MOST_STEPS:
        raise ValueError(
            f"total_steps must be at most {_MOST_STEPS} with a schedule or callback; got {steps}."
        )
    own = None if any(isinstance(part, LearningRateSchedule) for part in parts) else 1.0
    rates = rates_at(_sample(steps), parts, steps, learning_rate=own, epochs=epochs)
    if not np.all(np.isfinite(rates) & (rates >= 0.0)):
        raise ValueError("policy must have finite rates of at least 0; got others.")
    return _shape(rates)


def _counts_epochs(callback: Any) -> bool:
    if isinstance(callback, keras.callbacks.LearningRateScheduler):
        return True
    return getattr(callback, "epochs", None) is not None


def _sample(steps: int) -> np.ndarray:
    """At most `POINTS` updates of a run, the first among them.

    Their distances are irregular: at regular ones, short cycles would look constant.
    """
    if steps <= POINTS:
        return np.arange(steps)
    places = np.arange(POINTS)
    return ((places + places * _GOLDEN % 1.0) * steps / POINTS).astype(int)


def _shape(rates: np.ndarray) -> np.ndarray:
    """The shape of a run: its rates relative to the highest, at `POINTS` updates.

    With fewer rates than that, each rate holds for its share of the run.
    """
    highest = float(rates.max())
    if not highest > 0.0:
        raise ValueError("policy must have a rate above 0 in the run; got 0 at all updates.")
    count = len(rates)
    if count < POINTS:
        sums = np.concatenate([[0.0], np.cumsum(rates)]) / count
        ends = np.linspace(0.0, 1.0, POINTS + 1)
        rates = np.diff(np.interp(ends, np.linspace(0.0, 1.0, count + 1), sums)) * POINTS
    return np.minimum(rates / highest, 1.0)  # means may be above by a rounding error


def _run_of(name: str, run: Any) -> PlannedRun:
    if isinstance(run, PlannedRun):
        return run
    if not isinstance(run, (tuple, list)) or len(run) != 2:
        raise TypeError(f"{name} must be a pair (policy, total_steps); got {run!r}.")
    return planned_run(*run) or PlannedRun()
