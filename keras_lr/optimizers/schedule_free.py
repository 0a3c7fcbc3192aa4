"""`ScheduleFree`: an average of the weights in the place of a learning rate schedule."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lr._keras.optimizers import (
    JointUpdate,
    dense,
    mean_squares,
    number,
    number_outside,
    velocities,
)
from keras_lr._util import checks
from keras_lr.optimizers.evaluation_point import check_switched, wrap_methods
from keras_lr.optimizers.layerwise import LayerwiseLR
from keras_lr.optimizers.rectification import rectification
from keras_lr.optimizers.schedule_free_checks import check_constant, check_inner, check_rectified
from keras_lr.optimizers.wrapper import OptimizerWrapper, registered

_SETTINGS = ("warmup_steps", "r", "weight_lr_power", "rectify")
_LEAST = 2.0**-60  # in the place of a share of 0, to divide by
_MARKED = 256  # elements of a variable, about, that its mark depends on


@registered
class ScheduleFree(JointUpdate, OptimizerWrapper):
    """Train at a constant learning rate, and use an average of the weights.

    The average replaces the decay of a schedule, so the length of the run need not be known. There
    are three points: the gradient is computed at y, the base steps move z, and x is the average.
    For update k = 0, 1, ... with learning rate `lr` and `beta` (SGD's `momentum`, Adam's `beta_1`):

        gamma = lr * min(1, (k + 1) / warmup_steps), or lr * rectification with `rectify`
        w = (k + 1)^r * (largest gamma so far)^weight_lr_power;  c = w / (sum of all w)
        z -= gamma * (direction + weight_decay * y)
        x = (1 - c) * x + c * z
        y = (1 - beta) * z + beta * x

    The direction is the gradient for SGD; for Adam, the gradient divided by
    `sqrt(mean square / (1 - beta_2^(k + 1))) + epsilon`.

    `fit` trains at y. After each epoch and after `fit`, the weights of the model are x, so
    validation, callbacks at the end of an epoch, checkpoints and saved models have x; so do
    `evaluate`, `predict`, `test_on_batch`, `predict_on_batch`, `save`, `save_weights` and `export`
    in the middle of an epoch. `train_on_batch` also trains at y. A training loop of your own calls
    `train()` before its first step and `eval()` before an evaluation; a step at x raises an error,
    except within `jax.jit` and a `tf.function` that is traced already.

    A `fit` switches the optimizers in attributes of its model, or in lists and dictionaries there.
    If `train_step` uses that of a part of the model, such as `self.net.optimizer`, the model needs
    an attribute for it too.

    Weights that are set after `fit` or at the end of an epoch (`set_weights`, the best weights of
    `EarlyStopping`) are taken as x, at which the next training begins a new average. Weights that
    are set between two calls of `train_on_batch` are taken as y; x and z move by the same amount.

    Batch normalization collects its moving statistics at y, where they mean nothing for x. So
    whenever `fit` puts the weights to x, it computes the statistics again from up to 50 batches of
    the training data: the cost is 50 forward passes, not compiled, after each epoch. `fit` warns if
    it cannot read the data twice (a generator); `train_on_batch` leaves the statistics of y.

    `LayerwiseLR` can be inside, with numbers as multipliers: `gamma` of a variable is then
    multiplied, and `c` stays the same. Other wrappers inside, any wrapper around it (so
    `GradualUnfreeze` and `fine_tune` too), and callbacks that steer the learning rate are refused.

    Memory: as with the given optimizer: z - y is in the slot of its momentum, which is not needed.

    Args:
        optimizer: `SGD` with a momentum, `Adam` or `AdamW` of Keras, or a `LayerwiseLR` of one,
            which has not trained yet; its learning rate is a number. The best rate is larger than
            with a schedule: 10 to 50 times for SGD, 1 to 10 times for AdamW.
        warmup_steps: Updates of a linear warm-up; an integer of at least 0.
        r: Power of the update's number in its weight; in [0, inf). 0 for equal weights.
        weight_lr_power: Power of the learning rate in the weight of an update; in [0, inf).
        rectify: Whether the rate of Adam has the rectification of RAdam (Liu et al. 2020, arXiv
            1908.03265) in the place of a warm-up, whose length it takes from `beta_2`: the first 4
            updates (for a `beta_2` of 0.999) change no weight, and the factor on the rate then
            grows to 1 in some thousand updates.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range; if the optimizer is another one, or has a
            schedule, a moving average, Nesterov's momentum, `amsgrad` or a momentum outside (0, 1);
            if `rectify` is given with `warmup_steps`, for SGD, or for a `beta_2` of at most 0.6.
            When the optimizer is built: if a trainable variable has a constraint, or is float16
            or bfloat16. The policies mixed_float16 and mixed_bfloat16 work.

    Source: Defazio et al., "The Road Less Scheduled" (2024, arXiv 2405.15682), equations 3 to 5 and
    algorithm 1. The updates equal those of the authors' package `schedulefree`; with `rectify`,
    those of its `RAdamScheduleFree`.

    >>> weight = keras.Variable([4.0])
    >>> optimizer = ScheduleFree(keras.optimizers.SGD(1.0, momentum=0.5))
    >>> for step in range(2):
    ...     optimizer.apply([keras.ops.ones(1)], [weight])
    >>> weight.numpy().tolist()  # y; z is 2, and x is the mean of 3 and 2
    [2.25]
    >>> optimizer.eval()
    >>> weight.numpy().tolist()
    [2.5]
    """

    constant_rate = True
    constants = ("momentum", "beta_1", "beta_2")  # x comes from y and z by one beta
    outermost = True  # it replaces the steps of single variables, which other wrappers change

    def __init__(
        self,
        optimizer: Any,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        rectify: bool = False,
    ) -> None:
        check_inner(optimizer)
        warmup_steps = checks.count("warmup_steps", warmup_steps, least=0)
        r = checks.number("r", r, least=0)
        weight_lr_power = checks.number("weight_lr_power", weight_lr_power, least=0)
        rectify = checks.flag("rectify", rectify)
        if rectify:
            check_rectified(optimizer, warmup_steps)
        self._take_over(optimizer)
        for name, value in zip(_SETTINGS, (warmup_steps, r, weight_lr_power, rectify), strict=True):
            self._set_untracked(name, value)
        self._set_untracked("_may_evaluate", True)  # the next update reads it from the variable
        if self.built:
            self._add_sums(self._trained)

    def build(self, variables: Sequence[Any]) -> None:
        """Create the optimizer's variables."""
        if self.built:
            return
        check_switched(self)  # a refusal after a `tf.function` has built it would leave it useless
        for variable in variables:
            dtype = keras.backend.standardize_dtype(variable.dtype)
            if dtype in ("float16", "bfloat16"):
                raise ValueError(
                    "ScheduleFree needs variables of float32 or float64, as its average moves in "
                    f"steps that {dtype} rounds away; got {dtype} for {variable.path!r}. Train "
                    f"with the policy 'mixed_{dtype}' instead."
                )
            if variable.constraint is not None:
                raise ValueError(
                    "ScheduleFree needs variables without a constraint, which its average would "
                    f"violate; got {variable.constraint!r} for {variable.path!r}. Remove the "
                    "constraint."
                )
        super().build(variables)
        self._add_sums(variables)

    def gate(self, gates: Any) -> None:
        """Method of `LayerwiseLR`, by which `GradualUnfreeze` freezes layers for a while."""
        if gates:
            raise ValueError(
                "ScheduleFree needs multipliers that stay the same, as its average weighs all "
                "updates; got a callback that freezes layers for a while. Remove it, or freeze "
                "them for the whole run with a multiplier of 0."
            )
        super().gate(gates)

    def _resolve_multipliers(self, rules: Any, variables: Any) -> None:
        check_constant(rules)
        super()._resolve_multipliers(rules, variables)

    def _add_sums(self, variables: Sequence[Any]) -> None:
        wide = any(keras.backend.standardize_dtype(each.dtype) == "float64" for each in variables)
        self._set_untracked("_dtype_of_sums", "float64" if wide else "float32")

        def scalar(name: str) -> Any:
            return self.add_variable((), "zeros", self._dtype_of_sums, name=name)

        self._set_untracked("_largest_rate", scalar("largest_rate"))
        # Divided by (largest rate)^weight_lr_power: at a constant rate and r = 0 a count.
        self._set_untracked("_weight_sum", scalar("weight_sum"))
        # 0 at y; at x, the mark of the weights. A variable, so that a saved model, a backup and a
        # snapshot keep it with them.
        self._set_untracked("_at_average", scalar("at_average"))

    # The point of the weights, on the host

    @property
    def evaluates(self) -> bool:
        """Whether the weights are at x, the average; at y if not."""
        return self.built and number(self._at_average) != 0.0

    def train(self) -> None:
        """Put the weights to y, where the gradients are computed; no effect if they are there.

        If the weights are not those that `eval` left, somebody has set them: `set_weights`, or
        `EarlyStopping` its best ones. The z of the last update is then useless, and a new average
        begins at these weights: z and y equal them.
        """
        self._set_untracked("_may_evaluate", False)
        if self.evaluates:
            if number(self._at_average) == self._mark():
                self._move_weights(1.0 / self._beta() - 1.0)
            else:
                for _, to_z in self._points():
                    self.assign(to_z, ops.zeros(to_z.shape, to_z.dtype))
                self._weight_sum.assign(0.0)
            self._at_average.assign(0.0)

    def eval(self) -> None:
        """Put the weights to the average x; no effect if they are there."""
        if self.built and not self.evaluates:
            self._move_weights(1.0 - 1.0 / self._beta())
            self._at_average.assign(self._mark())
            self._set_untracked("_may_evaluate", True)

    def _mark(self) -> float:
        """A whole number in [-2^24, -1] by which to recognize the weights, from a sample of each.

        Files of version 0.2.0 have positive ones, and z in the slots: their training begins a new
        average.
        """
        checksum = 0
        for variable in self._trained:
            values = ops.reshape(ops.stop_gradient(ops.convert_to_tensor(variable)), (-1,))
            stride = max(1, values.shape[0] // _MARKED)
            values = ops.convert_to_numpy(ops.cast(values[::stride], "float32"))
            checksum = zlib.crc32(np.ascontiguousarray(values).tobytes(), checksum)
        return -1.0 - checksum % 2**24

    def _move_weights(self, share: float) -> None:
        """Move the weights by a share of z - y: y - x is (1 / beta - 1) times as long."""
        for variable, to_z in self._points():
            start, way = (ops.stop_gradient(ops.convert_to_tensor(p)) for p in (variable, to_z))
            variable.assign(start + share * way)

    def _points(self) -> Iterator[tuple[Any, Any]]:
        """The trained variables, each with the slot that has its z - y."""
        for variable, to_z in zip(self._trained, velocities(self) or (), strict=True):
            if to_z is not None:  # Keras overwrites the others with their gradients
                yield variable, to_z

    def _beta(self) -> float:
        return float(self.momentum if isinstance(self, keras.optimizers.SGD) else self.beta_1)

    # The update

    @property
    def _place(self) -> Any:
        return self._weight_sum

    def _update_all(
        self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        if self._may_evaluate:
            check_switched(self)
            at_average = number_outside(self._at_average)
            if at_average:
                raise ValueError(
                    "ScheduleFree needs gradients at y; got weights at the average x. Call train() "
                    "of the optimizer before the steps of your own training loop."
                )
            self._set_untracked("_may_evaluate", at_average is None)
        super()._update_all(grads, variables, learning_rate)

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        self._set_untracked("_may_evaluate", True)

    def _update(self, grads: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
        k = ops.cast(self.iterations, self._dtype_of_sums)
        gamma = ops.cast(learning_rate, self._dtype_of_sums)
        if self.warmup_steps:
            share = (k + 1.0) / self.warmup_steps
            # On torch, `ops.minimum` with a number would return float32.
            gamma = gamma * ops.where(share < 1.0, share, ops.ones_like(share))
        if self.rectify:
            gamma = gamma * rectification(k + 1.0, self.beta_2)
        c = self._share_of_update(k, gamma)
        correction = None
        if not isinstance(self, keras.optimizers.SGD):
            # In float32, 1 - 0.999**k would lose half of its digits.
            correction = -ops.expm1((k + 1.0) * math.log(self.beta_2))
        slots: Any = velocities(self)
        pairs = [
            (index, gradient)
            for index, gradient in zip(map(self._index_of, variables), grads, strict=True)
            # 0 times a gradient that overflowed is not 0.
            if slots[index] is not None and self._factor_of(index) != 0.0
        ]
        # z' = z - gamma u, and z' - y' = beta (z' - x') with x' = x + c (z' - x), so that:
        # z' - y' = kept (z - y) - gamma beta kept u;  y' = y + c (z - y) - gamma (1 - beta kept) u
        if self._steps_together(pairs, c, gamma, correction):
            return
        beta = self._beta()
        # The same with y' from z' - y', so that compilers overwrite both in place. For c = 1 that
        # is 0, from which no y' follows; with a power of 2 as `kept` it is tiny.
        kept = ops.where(c < 1.0, 1.0 - c, ops.full_like(c, _LEAST))
        pull, along_y, along_slot = c / kept, -gamma * (1.0 - beta), -gamma * beta * kept
        for index, gradient in pairs:
            place, slot, multiplier = self._trained[index], slots[index], self._factor_of(index)
            y, to_z = ops.convert_to_tensor(place), ops.convert_to_tensor(slot)
            u = self._direction(ops.cast(dense(gradient), y.dtype), index, correction)
            if self.weight_decay and self._decays(place):
                u = u + self.weight_decay * y
            if multiplier != 1.0:
                u = multiplier * u  # both steps are proportional to gamma; c does not depend on it
            to_z = ops.cast(kept, y.dtype) * to_z + ops.cast(along_slot, y.dtype) * u
            self.assign(slot, to_z)
            self.assign_add(place, ops.cast(pull, y.dtype) * to_z + ops.cast(along_y, y.dtype) * u)

    def _factor_of(self, index: int) -> float:
        """The multiplier of a variable, from a `LayerwiseLR` inside."""
        return float(self._multipliers[index].number) if isinstance(self, LayerwiseLR) else 1.0

    def _steps_together(
        self, pairs: list[tuple[int, Any]], c: Any, gamma: Any, correction: Any
    ) -> bool:
        """On torch, make the update of all variables by calls for lists; False elsewhere."""
        if keras.backend.backend() != "torch":
            return False
        from keras_lr.optimizers.torch_fused import schedule_free_step

        slots: Any = velocities(self)
        places = [index for index, _ in pairs]
        y = [self._trained[index].value for index in places]
        if len({each.dtype for each in y}) != 1:
            return False
        squares = None
        if correction is not None:
            squares = [mean_squares(self)[index].value for index in places]
        beta, kept = self._beta(), 1.0 - c
        schedule_free_step(
            y,
            [slots[index].value for index in places],
            squares,
            [gradient.to(y[0].dtype) for _, gradient in pairs],
            c=c,
            along_y=gamma * (beta * kept - 1.0),
            along_slot=-gamma * beta * kept,
            correction=correction,
            beta_2=getattr(self, "beta_2", None),
            epsilon=getattr(self, "epsilon", None),
            decays=[
                self.weight_decay if self.weight_decay and self._decays(self._trained[i]) else 0.0
                for i in places
            ],
            multipliers=[self._factor_of(index) for index in places],
        )
        return True

    def _share_of_update(self, k: Any, gamma: Any) -> Any:
        """The share of an update's z in the average."""
        dtype = self._dtype_of_sums
        old = ops.cast(ops.convert_to_tensor(self._largest_rate), dtype)
        total = ops.cast(ops.convert_to_tensor(self._weight_sum), dtype)
        largest = ops.where(gamma > old, gamma, old)
        weight = ops.power(k + 1.0, self.r)
        if self.weight_lr_power:
            positive = largest > 0.0  # the weight of an update at rate 0 is 0
            ratio = old / ops.where(positive, largest, 1.0)
            total = total * ops.power(ratio, self.weight_lr_power)
            weight = ops.where(positive, weight, 0.0)
        total = total + weight
        share = weight / ops.where(total > 0.0, total, 1.0)
        self.assign(self._largest_rate, largest)
        self.assign(self._weight_sum, total)
        return share

    def _direction(self, gradient: Any, index: int, correction: Any) -> Any:
        if correction is None:
            return gradient
        slot = mean_squares(self)[index]
        old = ops.convert_to_tensor(slot)
        square = old + (1.0 - self.beta_2) * (ops.square(gradient) - old)
        self.assign(slot, square)
        corrected = square / ops.cast(correction, square.dtype)
        return gradient / (ops.sqrt(corrected) + self.epsilon)

    def _arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SETTINGS}


wrap_methods(ScheduleFree)
