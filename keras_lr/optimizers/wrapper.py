"""The base of our optimizers that wrap another one: the same optimizer with a changed step.

`LayerwiseLR(Adam(...))` is an `Adam`: its class inherits from `LayerwiseLR` and then from `Adam`,
and it takes over all attributes of the given optimizer. So slots, their names, their order and
their saved form are those of the given optimizer, and its settings (`exclude_from_weight_decay`,
a schedule, slots of weights already trained) stay.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras

from keras_lr._keras.optimizers import OptimizerHooks
from keras_lr._keras.saving import save_under_name

_PACKAGE = "keras_lr"
# Optimizers that change the weights once a step, by the learning rate times a direction.
_LINEAR = (
    "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lamb", "Lion", "Muon", "Nadam", "RMSprop",
    "SGD",
)  # fmt: skip
_made: dict[tuple[type, type], type] = {}


class _Capture:
    """Captures what a step adds to one variable."""

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


class OptimizerWrapper(OptimizerHooks):
    """Base of the optimizers whose first argument is another optimizer.

    The given optimizer and the new one share their variables. Use only the new one.

    Attributes:
        outermost: Whether no other wrapper can be around this one.
    """

    outermost = False

    def __new__(cls, optimizer: Any = None, *args: Any, **kwargs: Any) -> Any:
        check_optimizer(cls.__name__, optimizer)
        if isinstance(optimizer, cls):
            raise ValueError(
                f"{cls.__name__} cannot wrap another {cls.__name__}; got "
                f"{type(optimizer).__name__}. Pass all settings to one of them."
            )
        if getattr(optimizer, "outermost", False):
            raise ValueError(
                f"{cls.__name__} cannot wrap {type(optimizer).__name__}, which makes the update of "
                "all weights itself, at one learning rate. Use one of the two."
            )
        return object.__new__(_class_for(cls, type(optimizer)))

    _capture: _Capture

    def _take_over(self, optimizer: Any) -> None:
        self.__dict__.update(vars(optimizer))
        self._set_untracked("_capture", _Capture(None))

    def _set_untracked(self, name: str, value: Any) -> None:
        """Set an attribute that Keras does not track, wrap or save."""
        object.__setattr__(self, name, value)

    # Computing the step of one variable without changing it

    def _captured_step(self, step: Any, gradient: Any, variable: Any, learning_rate: Any) -> Any:
        """What a step would add to a variable. Updates its slots, but not the variable."""
        outer = self._capture
        self._set_untracked("_capture", _Capture(variable))
        try:
            step(gradient, variable, learning_rate)
            return keras.ops.convert_to_tensor(self._capture.step)
        finally:
            self._set_untracked("_capture", outer)

    def assign_add(self, variable: Any, value: Any) -> None:
        """Keras's method: an optimizer's step changes a variable by this or `assign_sub`."""
        if not self._capture.takes(variable, value):
            super().assign_add(variable, value)

    def assign_sub(self, variable: Any, value: Any) -> None:
        """Keras's method: an optimizer's step changes a variable by this or `assign_add`."""
        if not self._capture.takes(variable, value, -1.0):
            super().assign_sub(variable, value)

    # Saving

    def _unwrapped(self) -> Any:
        """The given optimizer, on the same variables."""
        _, inner = type(self).__bases__
        plain: Any = object.__new__(inner)
        plain.__dict__.update(vars(self))
        return plain

    def _arguments(self) -> dict[str, Any]:
        """The arguments besides the optimizer, for the config."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The serialized given optimizer, and the other arguments."""
        plain = keras.saving.serialize_keras_object(self._unwrapped())
        return {"optimizer": plain, **self._arguments()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Create the optimizer from the result of `get_config`."""
        optimizer = config["optimizer"]
        if isinstance(optimizer, dict):
            names = {**public_optimizers(), **(custom_objects or {})}
            optimizer = keras.optimizers.deserialize(dict(optimizer), names)
        return _origin(cls)(**{**config, "optimizer": optimizer})

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return type(self).from_config(self.get_config())


def public_optimizers() -> dict[str, type]:
    """Keras's optimizers by class name, to load them from a config.

    A config saved on torch names a module that other backends do not have, and Keras 3.12 does not
    find Muon by its name.
    """
    base = keras.optimizers.Optimizer
    return {
        each.__name__: each
        for each in vars(keras.optimizers).values()
        if isinstance(each, type) and issubclass(each, base)
    }


def registered(cls: type) -> type:
    """Register a wrapper with Keras, so that saved models load without `custom_objects`."""
    return keras.saving.register_keras_serializable(package=_PACKAGE)(cls)


def check_optimizer(owner: str, optimizer: Any) -> None:
    """Raise unless `optimizer` is a Keras optimizer that contains no other, with plain methods.

    A method that a program has put into the object calls the plain step, so that a wrapper which
    took it over would have no effect.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"{owner} needs a Keras optimizer; got {optimizer!r}. Pass an instance, such as "
            "keras.optimizers.Adam(1e-3)."
        )
    if hasattr(optimizer, "inner_optimizer") or hasattr(optimizer, "optimizers"):
        kind = type(optimizer).__name__
        raise ValueError(
            f"{owner} needs an optimizer that contains no other; got {kind}. Put {owner} inside: "
            f"{kind} around {owner}."
        )
    cls = type(optimizer)
    replaced = [name for name, each in vars(optimizer).items() if _is_method(cls, name, each)]
    if replaced:
        raise ValueError(
            f"{owner} needs an optimizer with the methods of its class; got {cls.__name__} with "
            f"{replaced[0]} put into the object, which would go on calling the plain optimizer. "
            f"Define {replaced[0]} in a subclass of {cls.__name__}, or put it into the {owner}."
        )


def _is_method(cls: type, name: str, value: Any) -> bool:
    """Whether an attribute of an object hides a method of its class."""
    return inspect.isroutine(getattr(cls, name, None)) and callable(value)


def check_linear(owner: str, optimizer: Any) -> None:
    """Raise unless an optimizer's step is its learning rate times a direction."""
    kinds = tuple(getattr(keras.optimizers, name) for name in _LINEAR if _has(name))
    if not isinstance(optimizer, kinds):
        raise ValueError(
            f"{owner} needs an optimizer whose step is its learning rate times a direction; got "
            f"{type(optimizer).__name__}. Use one of {', '.join(filter(_has, _LINEAR))}."
        )


def _has(name: str) -> bool:
    return hasattr(keras.optimizers, name)


def _class_for(wrapper: type, optimizer: type) -> type:
    key = wrapper, optimizer
    if key not in _made:
        name = f"{wrapper.__name__}[{optimizer.__name__}]"
        made = type(name, (wrapper, optimizer), {"__module__": wrapper.__module__})
        save_under_name(made, f"{_PACKAGE}>{wrapper.__name__}")
        _made[key] = made
    return _made[key]


def _origin(cls: type) -> type:
    """The wrapper class of a class from `_class_for`; another class itself."""
    return cls.__bases__[0] if cls in _made.values() else cls
