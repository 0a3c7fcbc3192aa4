"""How to train with a setting: as callbacks for `fit`, and as lines of Python to paste."""

from __future__ import annotations

from typing import Any

import keras

from keras_lr._keras.optimizers import stored_rate
from keras_lr.callbacks import OneCycle, ScheduleHyperparameter, ScheduleLR, WarmUp
from keras_lr.rate_search.jobs import Setting
from keras_lr.schedules import ConstantSchedule, WarmUpStableDecaySchedule
from keras_lr.schedules.base import as_schedule
from keras_lr.steering import follows_rate, innermost_optimizers
from keras_lr.steering.optimizers import assign_rate, momentum_names


def callbacks_for(model: Any, setting: Setting) -> list[Any]:
    """Callbacks that train a model with a setting.

    A constant rate needs none: it is assigned to the optimizer, and the compiled step stays valid.
    """
    numbers = [ScheduleHyperparameter(*each) for each in _numbers(setting).items()]
    return [*_rate_callbacks(model, setting), *numbers]


def _numbers(setting: Setting) -> dict[str, float]:
    """Numbers of the optimizer that a setting changes, besides the rate and the momentum."""
    values = {"beta_2": setting.beta_2, "weight_decay": setting.weight_decay}
    return {name: value for name, value in values.items() if value is not None}


def _rate_callbacks(model: Any, setting: Setting) -> list[Any]:
    if setting.policy == "one-cycle":
        if setting.momentum is not None:
            low, high = momentum_range(setting.momentum)
            return [OneCycle(setting.learning_rate, base_momentum=low, max_momentum=high)]
        return [OneCycle(setting.learning_rate, cycle_momentum=has_momentum(model.optimizer))]
    warm_up = [WarmUp(fraction=setting.warmup)] if setting.warmup else []
    if setting.policy in _DECAYS:
        return [_Decay(setting), *warm_up]
    inner = innermost_optimizers(model.optimizer)
    plain = all(isinstance(stored_rate(each), keras.Variable) for each in inner)
    if setting.momentum is None and plain:
        assign_rate(model.optimizer, setting.learning_rate)
        return warm_up
    return [ScheduleLR(ConstantSchedule(setting.learning_rate), setting.momentum), *warm_up]


def python_for(setting: Setting, *, settable: bool = True, cycles: bool = True) -> str:
    """Lines of Python that train a compiled model `model` with a setting, as `callbacks_for` does.

    Args:
        setting: The setting to train with.
        settable: Whether `optimizer.learning_rate` can be assigned; see `settable_rate`.
        cycles: Whether the optimizer has a momentum that one-cycle can change.

    >>> print(python_for(Setting(0.003, policy="one-cycle", batch_size=64)))
    model.fit(x, y, batch_size=64, callbacks=[keras_lr.OneCycle(max_lr=0.003)])
    >>> print(python_for(Setting(0.003)))
    model.optimizer.learning_rate = 0.003
    model.fit(x, y)
    >>> print(python_for(Setting(0.003), settable=False))
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
            low, high = momentum_range(momentum)
            cycle = f", base_momentum={low:g}, max_momentum={high:g}"
        elif not cycles:
            cycle = ", cycle_momentum=False"
        callbacks.append(f"keras_lr.OneCycle(max_lr={rate:g}{cycle})")
    elif setting.policy in _DECAYS:
        size = setting.batch_size
        batches = f"-(-len(x) // {size})" if size else "len(x)"
        lines.append("epochs = 10")
        if setting.policy == "cosine":
            lines.append(
                f"decay = keras.optimizers.schedules.CosineDecay({rate:g}, epochs * {batches})"
            )
        else:
            lines.append(f"steps = epochs * {batches}")
            lines.append(
                f"decay = keras_lr.schedules.WarmUpStableDecaySchedule({rate:g}, steps, "
                'decay_steps=-(-steps // 5), decay="linear")'
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
    for name, value in _numbers(setting).items():
        callbacks.append(f'keras_lr.ScheduleHyperparameter("{name}", {value:g})')
    if callbacks:
        arguments.append(f"callbacks=[{', '.join(callbacks)}]")
    return "\n".join([*lines, f"model.fit({', '.join(arguments)})"])


def momentum_range(momentum: float) -> tuple[float, float]:
    """The ends between which one-cycle moves a momentum: the usual 0.1 apart, at least 0."""
    return (round(momentum - 0.1, 6) if momentum > 0.1 else 0.0), momentum


def constant_only(optimizer: Any) -> bool:
    """Whether a run must keep the rate that it begins with: no policy, no warm-up."""
    inner = innermost_optimizers(optimizer)
    return follows_rate(optimizer) or any(getattr(o, "constant_rate", False) for o in inner)


def settable_rate(optimizer: Any) -> bool:
    """Whether `optimizer.learning_rate` can be assigned: one optimizer without a schedule."""
    inner = innermost_optimizers(optimizer)
    return len(inner) == 1 and isinstance(stored_rate(inner[0]), keras.Variable)


def has_momentum(optimizer: Any) -> bool:
    """Whether every inner optimizer has a momentum above 0."""
    return all(current_momentum(each) for each in innermost_optimizers(optimizer))


def current_momentum(optimizer: Any) -> float:
    """The momentum of the first inner optimizer; 0 if it has none."""
    first = innermost_optimizers(optimizer)[0]
    names = momentum_names(first)
    return float(getattr(first, names[0])) if names else 0.0


def _cosine(rate: float, steps: int) -> Any:
    return keras.optimizers.schedules.CosineDecay(rate, steps)


def _stable_decay(rate: float, steps: int) -> Any:
    return WarmUpStableDecaySchedule(rate, steps, decay_steps=-(-steps // 5), decay="linear")


_DECAYS = {"cosine": _cosine, "wsd": _stable_decay}


class _Decay(ScheduleLR):
    """A schedule over the whole `fit`, however many steps it has."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(ConstantSchedule(setting.learning_rate), setting.momentum)
        self._setting = setting

    def plan(self, length: Any) -> Any:
        name = self._setting.policy
        if length.total is None:
            raise ValueError(
                f"The length of the run is unknown for this data set; the policy {name!r} needs "
                "it. Pass steps_per_epoch to search."
            )
        self.schedule = as_schedule(_DECAYS[name](self._setting.learning_rate, length.total))
        return super().plan(length)
