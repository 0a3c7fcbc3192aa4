"""The arguments that Keras's `fit` gets from a model whose class overrides `fit`."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_lr._keras.epochs import split_validation
from keras_lr._keras.snapshot import Snapshot
from keras_lr._keras.trainer import VALIDATES
from keras_lr._util.patching import replaced
from keras_lr.steering import model_optimizers

_OPTIONS = {
    "batch_size": None,
    "sample_weight": None,
    "class_weight": None,
    "shuffle": True,
    "steps_per_epoch": None,
}


@dataclass(frozen=True)
class FitArguments:
    """Arguments of `fit`, with their meanings there."""

    x: Any
    y: Any = None
    validation_data: Any = None
    validation_batch_size: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


def overrides_fit(model: Any) -> bool:
    """Whether `model.fit` is another function than Keras's."""
    return overrides(model, "fit")


@contextmanager
def passed_to_keras(model: Any, given: FitArguments) -> Iterator[FitArguments]:
    """The arguments that Keras's `fit` gets in a call of `model.fit`, without training.

    The model's own `fit` runs until it calls Keras's. It may change the model before (adapt a
    layer to the data, say): the change lasts until the block ends.

    Raises:
        ValueError: If it does not call Keras's `fit`.
    """
    if not overrides_fit(model):
        yield given
        return
    with Snapshot(model).guarding() as snapshot:
        snapshot.copy_values()
        options = {
            name: value
            for name, value in given.options.items()
            if name in _OPTIONS and value is not _OPTIONS[name]
        }
        if given.validation_data is not None:
            options["validation_data"] = given.validation_data
        data = (given.x,) if given.y is None else (given.x, given.y)
        reached = _reached(model, "fit", lambda: model.fit(*data, **options))
        yield _interpreted(model, reached, given.validation_data is not None)


def _interpreted(model: Any, reached: dict[str, Any], validates: bool) -> FitArguments:
    x, y, weight = reached["x"], reached["y"], reached["sample_weight"]
    validation, split = reached["validation_data"], reached["validation_split"]
    if split and validation is None:
        (x, y, weight), validation = split_validation((x, y, weight), split)
    if reached["callbacks"]:
        warnings.warn(
            f"The fit of {type(model).__name__} adds callbacks of its own; a range test trains "
            "without them.",
            UserWarning,
            stacklevel=5,
        )
    options = {name: reached[name] for name in _OPTIONS}
    options["sample_weight"] = weight
    size = reached["validation_batch_size"] or reached["batch_size"]
    if validates and validation is not None:
        validation, size = _passed_to_evaluate(model, validation, size)
    return FitArguments(x, y, validation if validates else None, size, options)


def _passed_to_evaluate(model: Any, data: Any, size: int | None) -> tuple[Any, int | None]:
    """The data that Keras's `evaluate` gets when `fit` calls `model.evaluate` after an epoch."""
    if not overrides(model, "evaluate"):
        return data, size
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)

    def evaluate() -> Any:
        return model.evaluate(
            x=x,
            y=y,
            sample_weight=weight,
            batch_size=size,
            steps=None,
            callbacks=None,
            return_dict=True,
            **{VALIDATES: True},
        )

    reached = _reached(model, "evaluate", evaluate)
    if reached["kwargs"].get(VALIDATES):
        return data, size
    found = (reached["x"], reached["y"], reached["sample_weight"])
    return keras.utils.pack_x_y_sample_weight(*found), reached["batch_size"]


class _Reached(BaseException):
    """Carries the arguments through code that may catch every Exception."""

    def __init__(self, method: str, arguments: dict[str, Any]) -> None:
        super().__init__(method)
        self.method = method
        self.arguments = arguments


def _reached(model: Any, method: str, call: Callable[[], Any]) -> dict[str, Any]:
    """The arguments with which `call` reaches Keras's `method`."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise _Reached("apply", {})

    try:
        with ExitStack() as stack:
            for name in (method, "train_on_batch"):
                stack.enter_context(_ending_in(model, name))
            # Any other way to train calls this after one step.
            for optimizer in model_optimizers(model).values():
                stack.enter_context(replaced(optimizer, "apply", refuse))
            call()
    except _Reached as reached:
        if reached.method == method:
            return reached.arguments
    name = type(model).__name__
    if method == "evaluate":
        raise ValueError(
            f"The evaluate of {name} must call that of keras.Model; it does not, so a range test "
            "cannot evaluate validation_data. Leave validation_data out."
        )
    raise ValueError(
        f"The fit of {name} must call that of keras.Model; it trains in another way, which a range "
        "test cannot follow. Put the training into train_step, and call super().fit(...)."
    )


@contextmanager
def _ending_in(model: Any, name: str) -> Iterator[None]:
    """In the block, Keras's method `name` raises `_Reached` when it is called on the model."""
    owner = next(each for each in keras.Model.__mro__ if name in vars(each))
    method = vars(owner)[name]

    @functools.wraps(method)
    def end(self: Any, *arguments: Any, **options: Any) -> Any:
        if self is not model:
            return method(self, *arguments, **options)
        bound = inspect.signature(method).bind(self, *arguments, **options)
        bound.apply_defaults()
        raise _Reached(name, bound.arguments)

    with replaced(owner, name, end):
        yield


def overrides(model: Any, method: str) -> bool:
    """Whether a method of a model is not that of `keras.Model`."""
    return method in vars(model) or getattr(type(model), method) is not getattr(keras.Model, method)
