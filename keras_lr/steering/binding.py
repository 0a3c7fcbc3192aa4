"""An optimizer, the curves of its rate and its momentum in one run, and how it reads them.

A callable replaces the rate of the optimizer. Its momentum and other attributes are Python numbers,
which a graph would compile as constants; a variable with a computed value replaces each. The
assignment uses
`object.__setattr__`: see `keras_lr._keras.optimizers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lr._keras.optimizers import batch_counter, has_schedule, number, stored_rate
from keras_lr._util.patching import replaced
from keras_lr.steering.clock import Budget
from keras_lr.steering.composition import Factor, RateRule
from keras_lr.steering.optimizers import momentum_names

_TINY = 1e-30  # below every rate


class Binding:
    """Binds an optimizer to the curves of a run.

    Args:
        optimizer: One of `innermost_optimizers`.
        rule: The composition rule of its rate.
        momentum: The curve of its momentum, or None to leave the momentum unchanged.
        hyperparameters: The curves of other attributes, by name.
        decay_product: Rate x weight decay of each update; None if the decay is its own.
        owner: Name of the callback whose schedule replaces the optimizer's own rate; None if
            there is none.
        steers: Whether the run sets the rate; if not, the optimizer uses its own.
        every: Batches per update.
        batches: Batches of the run that an earlier process has trained; above 0 in a resumed run.
        begun_at: What the optimizer's counter of batches showed when the run began.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        rule: RateRule,
        momentum: Factor | None,
        hyperparameters: dict[str, Factor],
        decay_product: float | None,
        owner: str | None,
        steers: bool,
        every: int,
        batches: int,
        begun_at: int,
    ) -> None:
        self.optimizer = optimizer
        self.rule = rule
        self.momentum = momentum
        self.hyperparameters = hyperparameters
        self.decay_product = decay_product
        self.owner = owner
        self.steers = steers
        self.every = every
        self.own = stored_rate(optimizer)
        # Values of attributes in the update that is traced, by name, each with its trace.
        self.kept: dict[str, tuple[Any, Any]] = {}
        self.attributes = ReplacedAttributes(optimizer, self.kept.clear)
        # For curves that count the optimizer's own updates, such as multipliers.
        self.start = begun_at // every
        self.phase = begun_at % every  # batches of an update that had begun before the run
        self._first, self._first_count = batches, self.counter()

    @property
    def attribute_curves(self) -> dict[str, Factor]:
        """The curves of the optimizer's attributes, by name: of its momentum and all others."""
        momentum = self.momentum
        names = () if momentum is None else momentum_names(self.optimizer)
        return {**{name: momentum for name in names if momentum}, **self.hyperparameters}

    @property
    def budgets(self) -> list[Budget]:
        """The time budgets that the curves follow."""
        found = [each.budget for each in self.attribute_curves.values()]
        return self.rule.budgets + [each for each in found if each is not None]

    def coupled_decay(self, rate: Any) -> Any:
        """The weight decay at a rate, by `decay_product`; 0 at a rate of 0, which decays nothing.

        The rate is a number of the host or a tensor; the decay is of the same kind.
        """
        array = ops if ops.is_tensor(rate) else np
        return array.where(rate > 0.0, self.decay_product / array.maximum(rate, _TINY), 0.0)

    @property
    def own_counts(self) -> bool:
        """Whether the optimizer's variable is a factor of the rate."""
        return self.rule.schedule is None

    @property
    def settable(self) -> bool:
        """Whether this variable can be assigned, not only read."""
        return self.own_counts and hasattr(self.own, "assign")

    def own_rate(self) -> Any:
        """The value of this variable, or of the callable that the optimizer has instead."""
        return self.own.value if hasattr(self.own, "value") else self.own()

    def counter(self) -> int:
        """Batches that the optimizer has counted itself."""
        return int(number(batch_counter(self.optimizer)))

    def own_update(self) -> Any:
        """The optimizer's own count of updates, in the graph that is traced."""
        return self.optimizer.iterations

    def update_of(self, batches: Any) -> Any:
        """Updates of the run after so many batches; numbers, arrays or tensors."""
        total = batches if self.phase == 0 else self.phase + batches
        return total if self.every == 1 else total // self.every

    def last_batches(self, updates: np.ndarray) -> np.ndarray:
        """The last batch of the run that belongs to each update."""
        return (updates + 1) * self.every - self.phase - 1

    def counted_batches(self) -> Any:
        """Batches of the run as the optimizer counts them, in the graph that is traced."""
        return batch_counter(self.optimizer).value - self._first_count + self._first


def schedule_of(optimizer: Any) -> str | None:
    """Name of the schedule that an optimizer was compiled with; None if it has a number."""
    return type(stored_rate(optimizer)).__name__ if has_schedule(optimizer) else None


class SteeredRate:
    """Replaces the learning rate of an optimizer while a run steers it.

    The optimizer's update reads the composed rate. All other code reads the optimizer's variable,
    which is one factor of it. So a callback that reads the rate, scales it and assigns it
    (Keras's `LearningRateScheduler`, `ReduceLROnPlateau`) changes that factor and no other. If a
    schedule sets the rate, nothing can be assigned, and all code reads the composed rate.

    Args:
        own: The optimizer's own variable, schedule or callable.
        read: Returns the composed rate.
        owner: The callback whose schedule sets the rate; None if there is none.
        updating: Whether the optimizer is in the middle of an update.
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


class SteeredAttribute(keras.Variable):
    """A momentum, weight decay, ... that the graph computes: read-only, neither tracked nor saved.

    Optimizers compare some attributes with 0 while the graph is traced; the comparison uses the
    number that this variable replaces.
    """

    def __init__(self, base: float, read: Callable[[], Any]) -> None:
        super().__init__(base, dtype="float32", trainable=False)
        self._base = base
        self._read = read

    @property
    def value(self) -> Any:
        # Keras's constructor reads the value before `_read` is set.
        read = self.__dict__.get("_read")
        return super().value if read is None else read()

    def __bool__(self) -> bool:
        return bool(self._base)

    def __ne__(self, other: Any) -> Any:
        return self._base != other

    def __gt__(self, other: Any) -> Any:
        return self._base > other

    def __eq__(self, other: Any) -> Any:
        return self is other

    __hash__ = object.__hash__


class ReplacedAttributes:
    """The replaced attributes of an optimizer; `release` restores the original ones.

    Meanwhile `get_config` returns the config of the original optimizer, so that plain Keras can
    load a model that is saved in the middle of a run.

    Args:
        optimizer: The optimizer.
        before_update: Called when an update begins.
    """

    def __init__(self, optimizer: Any, before_update: Callable[[], None]) -> None:
        self.optimizer = optimizer
        self._before_update = before_update
        self._own: dict[str, Any] = {}
        self._put: dict[str, Any] = {}
        self._methods = ExitStack()
        self._own_apply: Any = None
        self._updates = 0  # that run now; each replica may run one

    def updating(self) -> bool:
        """Whether an update of the optimizer, or a training step of its model, is running."""
        return self._updates > 0

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Within the block a training step runs, which may read the rate of its update."""
        self._updates += 1
        try:
            yield
        finally:
            self._updates -= 1

    def put(self, name: str, value: Any) -> None:
        """Replace an attribute of the optimizer."""
        if not self._own:
            # A program may have put a method of its own into this optimizer.
            self._own_apply = self.optimizer.apply
            for method, ours in (("get_config", self._get_config), ("apply", self._apply)):
                self._methods.enter_context(replaced(self.optimizer, method, ours))
        self._own.setdefault(name, getattr(self.optimizer, name))
        self._put[name] = value
        object.__setattr__(self.optimizer, name, value)

    def release(self) -> None:
        """Restore the original attributes."""
        if not self._own:
            return
        self._methods.close()
        for name, value in self._own.items():
            if getattr(self.optimizer, name) is self._put[name]:  # no other code has set it since
                object.__setattr__(self.optimizer, name, value)
        self._own.clear()
        self._put.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block the optimizer has its original attributes."""
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
        self._before_update()
        with self.in_step():
            return self._own_apply(*args, **kwargs)
