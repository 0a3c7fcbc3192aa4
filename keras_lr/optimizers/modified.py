"""How an optimizer of Keras becomes one of ours: the same optimizer, with a changed step.

`LayerwiseLR(Adam(...))` is an `Adam`: its class is made for it, with ours before Keras's, and it
takes over everything that the given optimizer holds. So slots, their names, their order and
what is saved are those of the plain optimizer, and what is set on it (`exclude_from_weight_decay`,
a schedule, weights already trained) stays.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_lr._keras.optimizers import OptimizerHooks
from keras_lr._keras.saving import save_under_name

_PACKAGE = "keras_lr"
# Optimizers whose step is the learning rate times a direction, and changes the weights once.
_LINEAR = (
    "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lamb", "Lion", "Muon", "Nadam", "RMSprop",
    "SGD",
)  # fmt: skip
_made: dict[tuple[type, type], type] = {}


class _Capture:
    """Takes what is added to one variable."""

    def __init__(self, variable: Any) -> None:
        self._variable = variable
        self.step: Any = None

    def of(self, variable: Any) -> bool:
        return variable is self._variable

    def takes(self, variable: Any, value: Any, sign: float = 1.0) -> bool:
        if not self.of(variable):
            return False
        self.step = value if sign > 0.0 else -value
        return True


class Modified(OptimizerHooks):
    """Base of the optimizers that are made from another one, their first argument.

    The given optimizer and the new one share their variables. Use one of them.
    """

    def __new__(cls, optimizer: Any = None, *args: Any, **kwargs: Any) -> Any:
        check_optimizer(cls.__name__, optimizer)
        if isinstance(optimizer, cls):
            raise ValueError(
                f"{cls.__name__} cannot be put around another {cls.__name__}; got "
                f"{type(optimizer).__name__}. Give one of them all the settings."
            )
        return object.__new__(_class_for(cls, type(optimizer)))

    _capture: _Capture

    def _take_over(self, optimizer: Any) -> None:
        self.__dict__.update(vars(optimizer))
        self._keep("_capture", _Capture(None))

    def _keep(self, name: str, value: Any) -> None:
        """Set an attribute that Keras is not to track, wrap or save."""
        object.__setattr__(self, name, value)

    # The step of one variable, before it is taken

    def _step_of(self, step: Any, gradient: Any, variable: Any, learning_rate: Any) -> Any:
        """What a step would add to a variable: its slots advance, the variable stays."""
        outer = self._capture
        self._keep("_capture", _Capture(variable))
        try:
            step(gradient, variable, learning_rate)
            return keras.ops.convert_to_tensor(self._capture.step)
        finally:
            self._keep("_capture", outer)

    def assign_add(self, variable: Any, value: Any) -> None:
        """Keras's method; the one way in which an optimizer's step changes a variable."""
        if not self._capture.takes(variable, value):
            super().assign_add(variable, value)

    def assign_sub(self, variable: Any, value: Any) -> None:
        """Keras's method; the other way in which an optimizer's step changes a variable."""
        if not self._capture.takes(variable, value, -1.0):
            super().assign_sub(variable, value)

    # Saving

    def _as_plain(self) -> Any:
        """The optimizer as it would be without this modification, on the same variables."""
        _, inner = type(self).__bases__
        plain: Any = object.__new__(inner)
        plain.__dict__.update(vars(self))
        return plain

    def _modification(self) -> dict[str, Any]:
        """The arguments of the modification, for the config."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The optimizer that was modified, as Keras writes it, and the modification."""
        plain = keras.saving.serialize_keras_object(self._as_plain())
        return {"optimizer": plain, **self._modification()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Make the optimizer that `get_config` describes."""
        optimizer = config["optimizer"]
        if isinstance(optimizer, dict):
            names = {**public_optimizers(), **(custom_objects or {})}
            optimizer = keras.optimizers.deserialize(dict(optimizer), names)
        return _origin(cls)(**{**config, "optimizer": optimizer})

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return type(self).from_config(self.get_config())


def public_optimizers() -> dict[str, type]:
    """Keras's optimizers by name, for what is saved.

    The module in a file from torch is one that other backends lack, and Keras 3.12 does not find
    Muon by its name.
    """
    base = keras.optimizers.Optimizer
    return {
        each.__name__: each
        for each in vars(keras.optimizers).values()
        if isinstance(each, type) and issubclass(each, base)
    }


def registered(cls: type) -> type:
    """Register a modification with Keras, so that saved models load without `custom_objects`."""
    return keras.saving.register_keras_serializable(package=_PACKAGE)(cls)


def check_optimizer(owner: str, optimizer: Any) -> None:
    """Raise unless `optimizer` is one that has a rate and a step of its own."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"{owner} must be given an optimizer of Keras; got {optimizer!r}. Pass an instance, "
            "such as keras.optimizers.Adam(1e-3)."
        )
    if hasattr(optimizer, "inner_optimizer") or hasattr(optimizer, "optimizers"):
        kind = type(optimizer).__name__
        raise ValueError(
            f"{owner} must be given an optimizer that holds no other; got {kind}. Put {owner} "
            f"inside: {kind} around {owner}."
        )


def check_linear(owner: str, optimizer: Any) -> None:
    """Raise unless the step of an optimizer is its learning rate times a direction."""
    kinds = tuple(getattr(keras.optimizers, name) for name in _LINEAR if _has(name))
    if not isinstance(optimizer, kinds):
        raise ValueError(
            f"{owner} needs an optimizer whose step is its learning rate times a direction; got "
            f"{type(optimizer).__name__}. Use one of {', '.join(filter(_has, _LINEAR))}."
        )


def _has(name: str) -> bool:
    return hasattr(keras.optimizers, name)


def _class_for(modification: type, optimizer: type) -> type:
    key = modification, optimizer
    if key not in _made:
        name = f"{modification.__name__}[{optimizer.__name__}]"
        made = type(name, (modification, optimizer), {"__module__": modification.__module__})
        save_under_name(made, f"{_PACKAGE}>{modification.__name__}")
        _made[key] = made
    return _made[key]


def _origin(cls: type) -> type:
    """The modification that a made class was made for."""
    return cls.__bases__[0] if cls in _made.values() else cls
