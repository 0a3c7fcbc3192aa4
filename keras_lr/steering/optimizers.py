"""The optimizers of a model: which there are, and where each stores its rate and its momentum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_lr._keras.object_graph import is_record, reachable
from keras_lr._keras.optimizers import innermost_optimizers as innermost_optimizers
from keras_lr._keras.optimizers import number, put_rate, stored_rate

MOMENTUM_NAMES = ("momentum", "beta_1", "adam_beta_1")
SQUARE_NAMES = ("beta_2", "adam_beta_2", "rho")


def all_optimizers(optimizer: Any) -> list[Any]:
    """`optimizer` and every optimizer that it wraps, the outer one first."""
    parts = [optimizer.inner_optimizer] if hasattr(optimizer, "inner_optimizer") else []
    parts += getattr(optimizer, "optimizers", [])
    return [optimizer] + [inner for part in parts for inner in all_optimizers(part)]


def model_optimizers(model: Any) -> dict[str, Any]:
    """All optimizers of a model, by their paths in the model.

    `model.optimizer` is `"optimizer"`; others are found in attributes, lists, dictionaries and
    nested models: `"d_optimizer"`, `"optimizers[0]"`, `"discriminator.optimizer"`. The inner
    optimizers of a wrapper (`LossScaleOptimizer`, `MultiOptimizer`) are not listed.
    """
    found = {
        path: part
        for path, part in reachable(model)
        if isinstance(part, keras.optimizers.Optimizer) and not is_record(path)
    }
    own = getattr(model, "optimizer", None)
    if own is not None:
        found = {"optimizer": own} | {path: o for path, o in found.items() if o is not own}
    inner = {id(part) for each in found.values() for part in all_optimizers(each)[1:]}
    # A wrapper may have more of them than it uses: one for weights that the model does not have.
    within = tuple(f"{path}." for path in found)
    return {
        path: each
        for path, each in found.items()
        if id(each) not in inner and not path.startswith(within)
    }


def fit_optimizers(optimizers: dict[str, Any]) -> dict[str, Any]:
    """Those of `model_optimizers` that a `fit` of the model may train with.

    A nested model that was compiled itself (a teacher, for example) trains in its own fit.
    """
    return {
        path: each
        for path, each in optimizers.items()
        if path == "optimizer" or path.rpartition(".")[2] != "optimizer"
    }


class SeveralOptimizers(ValueError):
    """A model has several optimizers, and none is chosen.

    Attributes:
        problem: The first sentence of the message, which names the optimizers.
        example: One of the names, to show how to choose.
    """

    def __init__(self, model: Any, names: list[str], whose: str) -> None:
        self.problem = f"The model {model.name!r} has several optimizers: {', '.join(names)}."
        self.example = next(name for name in reversed(names) if name != "optimizer")
        way_out = f"Choose one for {whose}: pass optimizer={self.example!r}."
        super().__init__(f"{self.problem} {way_out}")


def choose_optimizer(model: Any, choice: Any, whose: str) -> Any:
    """The optimizer of a model that `choice` names; see `named_optimizer`."""
    return named_optimizer(model, choice, whose)[1]


def named_optimizer(
    model: Any, choice: Any, whose: str, optimizers: dict[str, Any] | None = None
) -> tuple[str, Any]:
    """The optimizer of a model that `choice` names, or the model's only one.

    Returns its path in `model_optimizers`, and the optimizer.

    Args:
        choice: A path of `model_optimizers`, the optimizer itself, or None.
        whose: The caller, for messages: `"OneCycle"`, `"lr_find"`.
        optimizers: The result of `model_optimizers`, if the caller has it.

    Raises:
        ValueError: If the model does not have this optimizer.
        SeveralOptimizers: If the model has several, and `choice` is None.
        TypeError: If `choice` is neither a name nor an optimizer.
    """
    optimizers = model_optimizers(model) if optimizers is None else optimizers
    names = ", ".join(optimizers)
    if isinstance(choice, str):
        if choice not in optimizers:
            raise ValueError(
                f"optimizer must name an optimizer of the model {model.name!r}; got {choice!r}. "
                f"The model has: {names or 'none'}."
            )
        return choice, optimizers[choice]
    if choice is not None:
        if not isinstance(choice, keras.optimizers.Optimizer):
            raise TypeError(
                "optimizer must be an optimizer of the model, or its name in the model; got "
                f"{choice!r}."
            )
        for path, each in optimizers.items():
            if any(part is choice for part in all_optimizers(each)):
                return path, each
        raise ValueError(
            f"optimizer must be an optimizer of the model {model.name!r}; got another "
            f"{type(choice).__name__}. The model has: {names or 'none'}."
        )
    own = fit_optimizers(optimizers)
    if not own:
        raise ValueError(
            f"{whose} needs an optimizer; the model {model.name!r} has none. Compile it first."
        )
    if len(own) > 1:
        raise SeveralOptimizers(model, list(own), whose)
    return next(iter(own.items()))


def updates_every(optimizer: Any) -> int:
    """Batches per update: `gradient_accumulation_steps`, or 1 without accumulation."""
    steps = {each.gradient_accumulation_steps or 1 for each in innermost_optimizers(optimizer)}
    if len(steps) > 1:
        raise ValueError(
            "All groups of a MultiOptimizer must accumulate the same number of batches; got "
            f"gradient_accumulation_steps of {', '.join(map(str, sorted(steps)))}."
        )
    return steps.pop()


def current_rate(optimizer: Any) -> float:
    """The learning rate that the next update of a single optimizer would use."""
    return number(optimizer.learning_rate)


def rate_ratios(rates: list[float]) -> list[float]:
    """Each rate of a `MultiOptimizer` divided by the largest."""
    if len(rates) == 1:
        return [1.0]
    if max(rates) <= 0.0:
        raise ValueError(
            f"At least one group of the optimizer must have a rate above 0; got {rates}. A common "
            "rate keeps the ratios of the groups."
        )
    return [rate / max(rates) for rate in rates]


def assign_rate(optimizer: Any, rate: float) -> float:
    """Set the rate of the fastest group, and keep the ratios of the others to it.

    Returns the rate that the fastest group had.
    """
    inner = innermost_optimizers(optimizer)
    own = [current_rate(each) for each in inner]
    for each, ratio in zip(inner, rate_ratios(own), strict=True):
        each.learning_rate = rate * ratio
    return max(own)


class BorrowedRate:
    """A learning rate that a loop sets before each step, for every group of an optimizer.

    The optimizer reads `value`: a number, or a tensor of the graph that is traced. The groups of
    a `MultiOptimizer` keep the ratios of their rates: `value` is the rate of the fastest group.
    """

    def __init__(self, optimizer: Any) -> None:
        self.value: Any = 0.0
        self._optimizers = innermost_optimizers(optimizer)
        self.ratios = rate_ratios([current_rate(each) for each in self._optimizers])

    def _read(self, ratio: float) -> Any:
        def learning_rate() -> Any:
            return self.value if ratio == 1.0 else self.value * ratio

        return learning_rate

    @contextmanager
    def installed(self) -> Iterator[BorrowedRate]:
        """Within the block the optimizers read `value`; afterwards each has its own rate again."""
        own = [stored_rate(each) for each in self._optimizers]
        try:
            for each, ratio in zip(self._optimizers, self.ratios, strict=True):
                put_rate(each, self._read(ratio))
            yield self
        finally:
            for each, learning_rate in zip(self._optimizers, own, strict=True):
                put_rate(each, learning_rate)


def momentum_names(optimizer: Any) -> tuple[str, ...]:
    """The attributes that store an optimizer's momentum: `momentum`, or Adam's `beta_1`.

    Muon has both, for its two kinds of weights. The `beta_1` of schedule-free AdamW is a weight
    between two averages and not a momentum.
    """
    if isinstance(optimizer, getattr(keras.optimizers, "ScheduleFreeAdamW", ())):
        return ()
    return tuple(name for name in MOMENTUM_NAMES if hasattr(optimizer, name))


def square_decay(optimizer: Any) -> float | None:
    """The decay of the running mean of squared gradients: Adam's `beta_2`, RMSprop's `rho`.

    None if the optimizer has no such mean: the `beta_2` of Lion decays a mean of gradients.
    """
    if isinstance(optimizer, keras.optimizers.Lion):
        return None
    found = [getattr(optimizer, name) for name in SQUARE_NAMES if hasattr(optimizer, name)]
    return float(found[0]) if found else None


def decay_product(optimizer: Any, owner: str) -> float:
    """Rate x weight decay of an inner optimizer, as it was compiled.

    Raises:
        ValueError: If it has no weight decay, or its rate is not a number.
    """
    kind, decay = type(optimizer).__name__, getattr(optimizer, "weight_decay", None)
    if not decay:
        raise ValueError(
            f"{owner}(couple_weight_decay=True) needs an optimizer with a weight decay; got {kind} "
            f"with weight_decay={decay!r}. Create it with weight_decay=0.01, for instance."
        )
    if not hasattr(stored_rate(optimizer), "assign"):
        raise ValueError(
            f"{owner}(couple_weight_decay=True) keeps the product of the compiled rate and weight "
            f"decay; got {kind} with {type(stored_rate(optimizer)).__name__} as its rate. Compile "
            "it with a number."
        )
    return number(stored_rate(optimizer)) * float(decay)


def check_rate_may_change(optimizer: Any, owner: str) -> None:
    """Raise for an optimizer whose weights follow its rate.

    `Ftrl` computes the weights anew in each step, from the sum of its gradients and the present
    rate: a rate that is halved halves all weights, and one that decays to 0 removes them. McMahan
    et al. (2013, "Ad click prediction", section 3.1) keep the earlier rates in that sum; Keras's
    formula assumes a constant one.

    Args:
        owner: What would change the rate, for the message.

    Raises:
        ValueError: If an inner optimizer is an `Ftrl`.
    """
    if follows_rate(optimizer):
        raise ValueError(
            f"{owner} changes the learning rate, which must not change with Keras's Ftrl: it "
            "computes the weights from the present rate, so half the rate halves all weights. "
            "Use Adagrad, or train Ftrl at a constant rate."
        )


def follows_rate(optimizer: Any) -> bool:
    """Whether the weights follow the rate, as those of `Ftrl` do."""
    return any(isinstance(each, keras.optimizers.Ftrl) for each in innermost_optimizers(optimizer))


def check_momentum(optimizer: Any, owner: str) -> None:
    """Raise unless the momentum of every inner optimizer can be set.

    Raises:
        ValueError: If an optimizer has no momentum, or a momentum of 0.
    """
    for each in innermost_optimizers(optimizer):
        kind, names = type(each).__name__, momentum_names(each)
        if not names:
            raise ValueError(
                f"{owner} can cycle the momentum only of an optimizer that has one; got {kind}. "
                "Pass cycle_momentum=False, or omit momentum."
            )
        if not float(getattr(each, names[0])):
            raise ValueError(
                f"{owner} cannot cycle a momentum of 0, because {kind} then stores no velocities; "
                f"got {names[0]}=0.0. Create the optimizer with {names[0]}=0.9, or pass "
                "cycle_momentum=False."
            )
