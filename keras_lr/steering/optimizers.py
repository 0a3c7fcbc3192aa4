"""Putting a learning rate and a momentum into Keras's optimizers, and taking them out again.

A callable takes the place of the rate (see `keras_lr._keras.optimizers`). The momentum is a
Python number that the graph would take in as a constant; a variable whose value is computed takes
its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_lr._keras.object_graph import is_record, reachable
from keras_lr._keras.optimizers import number, put_rate, stored_rate

_MOMENTUM_NAMES = ("momentum", "beta_1", "adam_beta_1")


def driven_optimizers(optimizer: Any) -> list[Any]:
    """The optimizers that hold a rate of their own: those inside a wrapper, or the one itself.

    `LossScaleOptimizer` and `MultiOptimizer` carry a learning rate that nothing reads; what
    counts is the rate of the optimizers that they hold.
    """
    if hasattr(optimizer, "inner_optimizer"):
        return driven_optimizers(optimizer.inner_optimizer)
    if hasattr(optimizer, "optimizers"):
        return [leaf for part in optimizer.optimizers for leaf in driven_optimizers(part)]
    return [optimizer]


def all_optimizers(optimizer: Any) -> list[Any]:
    """`optimizer` and every optimizer that it wraps, the outer one first."""
    parts = [optimizer.inner_optimizer] if hasattr(optimizer, "inner_optimizer") else []
    parts += getattr(optimizer, "optimizers", [])
    return [optimizer] + [inner for part in parts for inner in all_optimizers(part)]


def held_optimizers(model: Any) -> dict[str, Any]:
    """Every optimizer that a model holds, by the path that leads to it.

    `model.optimizer` is `"optimizer"`; others are found in attributes, lists, dictionaries and
    nested models: `"d_optimizer"`, `"optimizers[0]"`, `"discriminator.optimizer"`. Optimizers
    inside a wrapper (`LossScaleOptimizer`, `MultiOptimizer`) belong to it and are left out.
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
    # A wrapper may hold more of them than it drives: one for weights that the model has not.
    within = tuple(f"{path}." for path in found)
    return {
        path: each
        for path, each in found.items()
        if id(each) not in inner and not path.startswith(within)
    }


def own_optimizers(held: dict[str, Any]) -> dict[str, Any]:
    """Those of `held_optimizers` that a `fit` of the model may train with.

    A nested model that was compiled itself (a teacher, say) trains in a fit of its own.
    """
    return {
        path: each
        for path, each in held.items()
        if path == "optimizer" or path.rpartition(".")[2] != "optimizer"
    }


def choose_optimizer(model: Any, choice: Any, whose: str) -> Any:
    """The optimizer of a model that `choice` names; see `named_optimizer`."""
    return named_optimizer(model, choice, whose)[1]


def named_optimizer(
    model: Any, choice: Any, whose: str, held: dict[str, Any] | None = None
) -> tuple[str, Any]:
    """The optimizer of a model that `choice` names, or the only one that could be meant.

    Returns its path in `held_optimizers`, and the optimizer.

    Args:
        choice: A path of `held_optimizers`, the optimizer itself, or None.
        whose: Who asks, for the messages: `"OneCycle"`, `"lr_find"`.
        held: What `held_optimizers` gives, for a caller that knows.

    Raises:
        ValueError: If the model holds no such optimizer; or several, and `choice` is None.
        TypeError: If `choice` is neither a name nor an optimizer.
    """
    held = held_optimizers(model) if held is None else held
    names = ", ".join(held)
    if isinstance(choice, str):
        if choice not in held:
            raise ValueError(
                f"optimizer must name an optimizer of the model {model.name!r}; got {choice!r}. "
                f"It holds: {names or 'none'}."
            )
        return choice, held[choice]
    if choice is not None:
        if not isinstance(choice, keras.optimizers.Optimizer):
            raise TypeError(
                "optimizer must be the name of an optimizer that the model holds, or that "
                f"optimizer; got {choice!r}."
            )
        for path, each in held.items():
            if any(part is choice for part in all_optimizers(each)):
                return path, each
        raise ValueError(
            f"optimizer must be one that the model {model.name!r} holds; got another "
            f"{type(choice).__name__}. It holds: {names or 'none'}."
        )
    own = own_optimizers(held)
    if not own:
        raise ValueError(
            f"{whose} needs an optimizer; the model {model.name!r} has none. Compile it first."
        )
    if len(own) > 1:
        first = next(name for name in reversed(own) if name != "optimizer")
        raise ValueError(
            f"The model {model.name!r} holds several optimizers: {', '.join(own)}. Say which one "
            f"{whose} is for: pass optimizer={first!r}."
        )
    return next(iter(own.items()))


def updates_every(optimizer: Any) -> int:
    """Batches that make one update: `gradient_accumulation_steps`, or 1 without accumulation."""
    steps = {leaf.gradient_accumulation_steps or 1 for leaf in driven_optimizers(optimizer)}
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
    """The share of the fastest group's rate that each group of a `MultiOptimizer` has."""
    if len(rates) == 1:
        return [1.0]
    if max(rates) <= 0.0:
        raise ValueError(
            f"At least one group of the optimizer must have a rate above 0; got {rates}. Their "
            "ratios are what a common rate keeps."
        )
    return [rate / max(rates) for rate in rates]


class BorrowedRate:
    """A learning rate that a loop sets before each step, for every group of an optimizer.

    `value` is what the optimizer reads: a number, or a tensor of the graph being traced. The
    groups of a `MultiOptimizer` keep the ratios that they had: `value` is the rate of the
    fastest group, and the others follow at their share of it.
    """

    def __init__(self, optimizer: Any) -> None:
        self.value: Any = 0.0
        self._leaves = driven_optimizers(optimizer)
        self.ratios = rate_ratios([current_rate(leaf) for leaf in self._leaves])

    def _read(self, ratio: float) -> Any:
        def learning_rate() -> Any:
            return self.value if ratio == 1.0 else self.value * ratio

        return learning_rate

    @contextmanager
    def installed(self) -> Iterator[BorrowedRate]:
        """Drive the optimizers within the block; afterwards each has its own rate again."""
        own = [stored_rate(leaf) for leaf in self._leaves]
        try:
            for leaf, ratio in zip(self._leaves, self.ratios, strict=True):
                put_rate(leaf, self._read(ratio))
            yield self
        finally:
            for leaf, learning_rate in zip(self._leaves, own, strict=True):
                put_rate(leaf, learning_rate)


def momentum_names(optimizer: Any) -> tuple[str, ...]:
    """The attributes that hold an optimizer's momentum: `momentum`, or Adam's `beta_1`.

    Muon has both kinds, for its two kinds of weights. Schedule-free AdamW has a `beta_1` that
    is a weight between two averages, and no momentum.
    """
    if isinstance(optimizer, getattr(keras.optimizers, "ScheduleFreeAdamW", ())):
        return ()
    return tuple(name for name in _MOMENTUM_NAMES if hasattr(optimizer, name))


def check_momentum(optimizer: Any, owner: str) -> None:
    """Raise unless the momentum of every driven optimizer can be steered."""
    for leaf in driven_optimizers(optimizer):
        kind, names = type(leaf).__name__, momentum_names(leaf)
        if not names:
            raise ValueError(
                f"{owner} can cycle the momentum only of an optimizer that has one; got {kind}. "
                "Pass cycle_momentum=False, or leave momentum out."
            )
        if not float(getattr(leaf, names[0])):
            raise ValueError(
                f"{owner} cannot cycle a momentum that is 0, because {kind} keeps no velocities "
                f"then; got {names[0]}=0.0. Make the optimizer with {names[0]}=0.9, or pass "
                "cycle_momentum=False."
            )


class SteeredRate:
    """Stands in an optimizer for its learning rate while a run steers it.

    The optimizer's own update reads the product of the composition rule. Anybody else reads what
    may be written back: the optimizer's variable, which is one of the factors. So a callback that
    reads the rate, scales it and assigns it (Keras's `LearningRateScheduler`,
    `ReduceLROnPlateau`) changes that factor and no other. Where nothing can be assigned, because
    a schedule sets the rate, everybody reads the product.
    """

    def __init__(
        self,
        own: Any,
        read: Callable[[], Any],
        owner: str | None,
        updating: Callable[[], bool] = lambda: True,
    ) -> None:
        self._own = own
        self._read = read
        self._owner = owner
        self._updating = updating

    def __call__(self) -> Any:
        writable = self._owner is None and hasattr(self._own, "assign")
        return self._own if writable and not self._updating() else self._read()

    def assign(self, value: Any) -> None:
        if self._owner is not None:
            raise ValueError(
                f"{self._owner} sets the learning rate of this fit; an assignment of {value} "
                "would be lost. Use one of the two."
            )
        if not hasattr(self._own, "assign"):
            raise TypeError(
                "The optimizer was compiled with a schedule, which has no value to set; got "
                f"{value}. Compile it with a number, or use keras_lr's callbacks."
            )
        self._own.assign(value)


class SteeredMomentum(keras.Variable):
    """A momentum that the graph computes: read-only, tracked by nobody, saved nowhere.

    Optimizers ask whether their momentum is 0 while the graph is made; that is answered with
    the number that it replaces.
    """

    def __init__(self, base: float, read: Callable[[], Any]) -> None:
        super().__init__(base, dtype="float32", trainable=False)
        self._base = base
        self._read = read

    @property
    def value(self) -> Any:
        # Keras's constructor asks for the value before there is anything to read.
        read = self.__dict__.get("_read")
        return super().value if read is None else read()

    def __ne__(self, other: Any) -> Any:
        return self._base != other

    def __gt__(self, other: Any) -> Any:
        return self._base > other

    def __eq__(self, other: Any) -> Any:
        return self is other

    __hash__ = object.__hash__


class Steered:
    """A driven optimizer with steered attributes; `release` makes it an ordinary one again.

    Its config stays that of the ordinary optimizer, so a model saved in the middle of a run
    can be loaded by plain Keras.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self._own: dict[str, Any] = {}
        self._put: dict[str, Any] = {}
        self._updates = 0  # running now; several replicas may be in theirs

    def updating(self) -> bool:
        """Whether the optimizer is in the middle of an update, or its model of a training step."""
        return self._updates > 0

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Within the block a training step runs, which may read what its update uses."""
        self._updates += 1
        try:
            yield
        finally:
            self._updates -= 1

    def put(self, name: str, value: Any) -> None:
        if not self._own:
            object.__setattr__(self.optimizer, "get_config", self._get_config)
            object.__setattr__(self.optimizer, "apply", self._apply)
        self._own.setdefault(name, getattr(self.optimizer, name))
        self._put[name] = value
        object.__setattr__(self.optimizer, name, value)

    def release(self) -> None:
        if not self._own:
            return
        object.__delattr__(self.optimizer, "get_config")
        object.__delattr__(self.optimizer, "apply")
        for name, value in self._own.items():
            if getattr(self.optimizer, name) is self._put[name]:  # nobody set another since
                object.__setattr__(self.optimizer, name, value)
        self._own.clear()
        self._put.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """An ordinary optimizer within the block; steered again after it."""
        put = dict(self._put)
        self.release()
        try:
            yield
        finally:
            for name, value in put.items():
                self.put(name, value)

    def _get_config(self) -> dict[str, Any]:
        with self.paused():
            config: dict[str, Any] = self.optimizer.get_config()
        return config

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        with self.in_step():
            return type(self.optimizer).apply(self.optimizer, *args, **kwargs)
