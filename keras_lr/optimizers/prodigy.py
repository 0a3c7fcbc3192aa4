"""`Prodigy`: Adam that estimates its own step size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lr._keras.optimizers import JointUpdate, number
from keras_lr._util import checks


@keras.saving.register_keras_serializable(package="keras_lr")
class Prodigy(JointUpdate, keras.optimizers.Optimizer):
    """Adam without a learning rate to tune: it estimates the distance to the solution.

    The estimate `d` starts at `d0` and never falls. The step size of an update is `d` times
    `learning_rate`. Leave `learning_rate` at 1, or use a schedule for its shape: `OneCycle(1.0)`,
    or a cosine from 1 to 0. With a warm-up or a cycle, set `safeguard_warmup=True`, so that low
    rates do not inflate the estimate. An update at rate 0 changes neither weights nor estimate.

    There is one `d`, estimated from all variables, so `LayerwiseLR` does not take this optimizer.
    For a rate for each layer use Adam.

    Memory: four copies of the weights (both moments of Adam, the weights before the first
    update, and a sum of gradients) where Adam has two; three with `beta_1=0`.

    Args:
        learning_rate: Factor on `d`; in [0, inf), a schedule or a callable. Unitless, unlike
            Adam's.
        beta_1: Decay of the mean of the gradients; in [0, 1). With 0, there is no slot for it.
        beta_2: Decay of the mean of the squared gradients; in [0, 1).
        beta_3: Decay of the sums that give `d`; in [0, 1). None for the square root of `beta_2`.
        epsilon: Added, times `d`, to the root of the mean square; above 0.
        weight_decay: Decoupled weight decay, in [0, inf), or None. Each update subtracts the
            weights times this factor times the step size, so the decay grows with `d`.
        use_bias_correction: Whether to correct the moments for their start at 0, as Adam does.
        safeguard_warmup: Whether to leave `learning_rate` out of the denominator of `d`.
        d0: First estimate of `d`, above 0. Any small number works.
        d_coef: Factor on the estimate, above 0: 0.5 and 2 are reasonable. Tune this rather than
            `learning_rate`.
        growth_rate: Largest factor by which `d` may grow in an update; in [1, inf]. None for no
            limit. 1.02 gives a slow start.
        clipnorm, clipvalue, global_clipnorm: As in every Keras optimizer.
        use_ema, ema_momentum, ema_overwrite_frequency: As in every Keras optimizer.
        loss_scale_factor, gradient_accumulation_steps, name: As in every Keras optimizer.

    Raises:
        ValueError: If an argument is out of range, or a trainable variable is float16, which
            cannot represent the square of `d0`. The policy mixed_float16 works.
        TypeError: If an argument has the wrong type.

    Source: Mishchenko and Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner"
    (2023, arXiv 2306.06101), the version with Adam. The steps equal those of the authors' package
    `prodigyopt`, which differs from the paper: it scales the two sums, which does not change `d`,
    and it adds `epsilon` times the new `d`, not the old one. The package's options for coupled
    weight decay and `slice_p` are missing here.

    >>> weights = keras.Variable([3.0, -2.0])
    >>> optimizer = Prodigy()
    >>> for step in range(40):
    ...     optimizer.apply([keras.ops.sign(weights)], [weights])
    >>> optimizer.d > 0.1
    True
    """

    constants = ("beta_2", "beta_3", "d0", "d_coef", "growth_rate")

    def __init__(
        self,
        learning_rate: Any = 1.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        beta_3: float | None = None,
        epsilon: float = 1e-8,
        weight_decay: float | None = None,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth_rate: float | None = math.inf,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str = "prodigy",
        **kwargs: Any,
    ) -> None:
        def share(label: str, value: Any) -> float:
            return checks.number(label, value, least=0, below=1)

        if not callable(learning_rate):
            learning_rate = checks.number("learning_rate", learning_rate, least=0)
        if weight_decay is not None:
            weight_decay = checks.number("weight_decay", weight_decay, least=0)
        beta_1, beta_2 = share("beta_1", beta_1), share("beta_2", beta_2)
        beta_3 = None if beta_3 is None else share("beta_3", beta_3)
        epsilon = checks.number("epsilon", epsilon, above=0)
        use_bias_correction = checks.flag("use_bias_correction", use_bias_correction)
        safeguard_warmup = checks.flag("safeguard_warmup", safeguard_warmup)
        d0 = checks.number("d0", d0, above=0)
        d_coef = checks.number("d_coef", d_coef, above=0)
        if growth_rate is None or growth_rate == math.inf:
            growth_rate = math.inf
        else:
            growth_rate = checks.number("growth_rate", growth_rate, least=1)
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
            **kwargs,
        )
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.beta_3 = beta_3
        self.epsilon = epsilon
        self.use_bias_correction = use_bias_correction
        self.safeguard_warmup = safeguard_warmup
        self.d0 = d0
        self.d_coef = d_coef
        self.growth_rate = growth_rate

    @property
    def d(self) -> float:
        """The current estimate, read on the host. On JAX, within an epoch, sync the model first."""
        return number(self._d) if self.built else self.d0

    def build(self, variables: Sequence[Any]) -> None:
        """Create the optimizer's variables."""
        if self.built:
            return
        dtypes = [keras.backend.standardize_dtype(variable.dtype) for variable in variables]
        for variable, dtype in zip(variables, dtypes, strict=True):
            if dtype == "float16":
                raise ValueError(
                    "Prodigy needs variables of float32, float64 or bfloat16; got float16 for "
                    f"{variable.path!r}. Train with the policy 'mixed_float16' instead."
                )
        super().build(variables)
        self._d_dtype = "float64" if "float64" in dtypes else "float32"

        def scalar(name: str, value: float) -> Any:
            # Keras's `Constant` rounds to float32, but the first d must be `d0` exactly.
            return self.add_variable(
                (), lambda shape, dtype: self._read(value), self._d_dtype, name=name
            )

        def slots(name: str) -> list[Any]:
            return [
                None
                if getattr(variable, "overwrite_with_gradient", False)
                else self.add_variable_from_reference(variable, name=name)
                for variable in variables
            ]

        self._d = scalar("d", self.d0)
        self._d_max = scalar("d_max", self.d0)
        self._d_numerator = scalar("d_numerator", 0.0)
        self._updates = self.add_variable((), "zeros", "int", name="updates")
        self._starts = slots("start")
        self._sums = slots("gradient_sum")
        self._momentums = slots("momentum") if self.beta_1 > 0 else []
        self._velocities = slots("velocity")

    @property
    def _place(self) -> Any:
        return self._d

    # `d` depends on all gradients, before any weight changes; the step of the decay, on `d`.
    def _update(self, gradients: Any, variables: Any, learning_rate: Any) -> None:
        # On torch, `read` returns the variable's own tensor, which an assignment changes. So
        # values that are needed later are computed before the assignments.
        read = self._read
        d, rate = read(self._d), read(learning_rate)
        step = d * rate
        if self.use_bias_correction:
            step = step * self._bias_correction()
        weight = d / self.d0 * (d if self.safeguard_warmup else step)
        beta_3 = math.sqrt(self.beta_2) if self.beta_3 is None else self.beta_3

        # At rate 0, all factors that would change a slot are 0.
        running = read(rate > 0)
        new_1, new_2 = running * (1 - self.beta_1), running * (1 - self.beta_2)
        keep_3, weight = 1 - running * (1 - beta_3), running * weight

        self._keep_starts()
        indices = [self._index_of(variable) for variable in variables]
        dot, denominator = 0.0, 0.0
        for index, gradient in zip(indices, gradients, strict=True):
            gradient = read(gradient)
            way = read(self._starts[index]) - read(self._trained[index])
            dot = dot + ops.sum(gradient * way)
            total = read(self._sums[index]) * keep_3 + gradient * weight
            self.assign(self._sums[index], total)
            denominator = denominator + ops.sum(ops.abs(total))
            if self._momentums:
                mean = read(self._momentums[index])
                self.assign(self._momentums[index], mean + new_1 * (d * gradient - mean))
            square = read(self._velocities[index])
            self.assign(
                self._velocities[index], square + new_2 * (ops.square(d * gradient) - square)
            )

        moves = ops.logical_and(rate > 0, ops.not_equal(denominator, 0))
        numerator = read(self._d_numerator) * beta_3 + d / self.d0 * step * dot
        new_d, new_max = self._estimates(numerator, ops.where(moves, denominator, 1.0))
        new_d = ops.where(moves, new_d, d)

        step = ops.where(moves, step, 0.0)
        for index, gradient, variable in zip(indices, gradients, variables, strict=True):
            value = read(self._trained[index])
            scale = ops.sqrt(read(self._velocities[index])) + new_d * self.epsilon
            mean = read(self._momentums[index]) if self._momentums else new_d * read(gradient)
            if self.weight_decay and self._decays(variable):
                value = value - self.weight_decay * step * value
            self.assign(self._trained[index], value - step * mean / scale)

        self.assign(self._d_max, ops.where(moves, new_max, read(self._d_max)))
        self.assign(self._d_numerator, ops.where(moves, numerator, read(self._d_numerator)))
        self.assign(self._d, new_d)
        self.assign_add(self._updates, ops.cast(moves, self._updates.dtype))

    def _estimates(self, numerator: Any, denominator: Any) -> tuple[Any, Any]:
        d, d_max = self._read(self._d), self._read(self._d_max)
        estimate = self.d_coef * numerator / denominator
        d_max = _larger(d_max, estimate)
        grown = ops.where(ops.equal(d, self._read(self.d0)), _larger(d, estimate), d)
        grown = grown * self.growth_rate
        return ops.where(grown < d_max, grown, d_max), d_max

    def _bias_correction(self) -> Any:
        updates = self._read(self._updates) + 1.0
        # In float32, 1 - 0.999**n would lose half of its digits.
        square = -ops.expm1(updates * math.log(self.beta_2)) if self.beta_2 else self._read(1.0)
        return ops.sqrt(square) / (1 - ops.power(self._read(self.beta_1), updates))

    def _keep_starts(self) -> None:
        # Not in `build`: the user may set weights between `build` and the first update.
        first = ops.equal(self._updates, 0)
        for start, variable in zip(self._starts, self._trained, strict=True):
            if start is not None:
                value = ops.where(first, self._read(variable), self._read(start))
                self.assign(start, value)

    def _read(self, value: Any) -> Any:
        if isinstance(value, float):
            return ops.convert_to_tensor(value, self._d_dtype)
        return ops.cast(value, self._d_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments as a dictionary; `growth_rate` is None for no limit, as JSON lacks inf."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "beta_3": self.beta_3,
            "epsilon": self.epsilon,
            "use_bias_correction": self.use_bias_correction,
            "safeguard_warmup": self.safeguard_warmup,
            "d0": self.d0,
            "d_coef": self.d_coef,
            "growth_rate": None if math.isinf(self.growth_rate) else self.growth_rate,
        }


def _larger(a: Any, b: Any) -> Any:
    """The larger of two; `a` if `b` is NaN. On torch, `ops.maximum` would return float32."""
    return ops.where(b > a, b, a)
