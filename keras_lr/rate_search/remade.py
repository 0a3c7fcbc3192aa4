"""The models of a search that is given a function: trained in one model where they are alike."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import keras

from keras_lr._keras.layers import inner_layers
from keras_lr._keras.replicas import assign, copied, has_strategy, variable_scope
from keras_lr.rate_search.fingerprint import of_structure
from keras_lr.steering import innermost_optimizers


def made(make: Callable[[], Any], seed: int) -> Any:
    """A new model, whose initial weights a seed chooses.

    Raises:
        TypeError: If the function needs arguments or returns something else.
    """
    check_needs_nothing(make)
    keras.utils.set_random_seed(seed % 2**32)  # NumPy takes no larger one
    model = make()
    if not isinstance(model, keras.Model):
        raise TypeError(
            "model must be a Keras model or a function that returns one; the function returned "
            f"{type(model).__name__}."
        )
    return model


def check_needs_nothing(make: Callable[[], Any]) -> None:
    """Refuse a function that cannot be called without arguments.

    Raises:
        TypeError: If it cannot.
    """
    try:
        signature = inspect.signature(make)
    except ValueError:  # a builtin
        return
    try:
        signature.bind()
    except TypeError as error:
        raise TypeError(
            f"model must be a function without arguments; this one has a {error}. Pass "
            "lambda: make(...) with the arguments filled in."
        ) from error


def compiled_parts(model: Any) -> list[str]:
    """The optimizer with its numbers, the loss, and the frozen layers, in words."""
    found = []
    for place, each in enumerate(innermost_optimizers(model.optimizer)):
        found.append(f"the optimizer {type(each).__name__}" + f" in place {place}" * bool(place))
        found += [f"{name}={value!r} of the optimizer" for name, value in _numbers(each)]
    for loss in keras.tree.flatten(model.loss):
        known = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        found.append(f"the loss {known}")
        if isinstance(loss, keras.losses.Loss):
            found += [f"{name}={value!r} of the loss" for name, value in _numbers(loss)]
    frozen = [layer for layer in inner_layers(model) if not layer.trainable]
    return [*found, *(f"a frozen layer {type(each).__name__}" for each in frozen)]


def weights_of(model: Any) -> list[str]:
    """The shapes of the weights, in words."""
    return [f"{each.path.split('/')[-1]} of shape {tuple(each.shape)}" for each in model.weights]


def check_alike(first: list[str], other: list[str], missing: str) -> None:
    """Refuse a model with other parts than the first of its function.

    Args:
        first, other: The parts of both.
        missing: What the message says of a part that one of them does not have.

    Raises:
        ValueError: If they differ.
    """
    for mine, theirs in zip_longest(first, other):
        if mine != theirs:
            raise ValueError(
                "model must return models of one structure, since the search compares their runs; "
                f"the first has {mine or missing} where another has {theirs or missing}. Let the "
                "function build the same model each time."
            )


def _numbers(part: Any) -> list[tuple[str, Any]]:
    """The numbers and the names in a configuration, but the learning rate."""
    try:
        config = part.get_config()
    except Exception:  # of a class of the user's
        return []
    plain = (bool, int, float, str)
    ignored = ("name", "learning_rate", "iterations")
    pairs = sorted(config.items())
    return [(k, v) for k, v in pairs if isinstance(v, plain) and k not in ignored]


class Returned:
    """What a function has returned: a run must not go on where another one ended.

    The first model may come again, because the search restores it before each run.

    Args:
        first: The first model.
    """

    def __init__(self, first: Any) -> None:
        self._first = first
        self._models: weakref.WeakSet[Any] = weakref.WeakSet()
        self._optimizers: weakref.WeakSet[Any] = weakref.WeakSet(_optimizers(first))

    def check_new(self, model: Any) -> None:
        """Refuse a model that an earlier run has trained, or one with its optimizer.

        Raises:
            ValueError: If it is one.
        """
        if model is self._first:
            return
        if model in self._models:
            raise ValueError(
                f"model must return a new model each time; it returned {model.name!r} again, which "
                "an earlier run has trained. Make the model inside the function."
            )
        optimizers = _optimizers(model)
        shared = [each for each in optimizers if each in self._optimizers]
        if shared:
            raise ValueError(
                "model must return models with an optimizer of their own; two of them share one "
                f"({type(shared[0]).__name__}). Make the optimizer inside the function."
            )
        self._models.add(model)
        self._optimizers.update(optimizers)


def _optimizers(model: Any) -> list[Any]:
    return [each for each in (model.optimizer, *innermost_optimizers(model.optimizer)) if each]


class Template:
    """A model that trains in place of others that are like it, so that it is compiled once.

    A model is like it if both have the same layers, connections, loss, metrics and optimizer, and
    if nothing but variables can differ between them: all layers and the optimizer are Keras's own,
    none runs a program's code or was adapted to data, and nothing has been trained.

    Args:
        model: The model, as its function has returned it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._structure = _structure(model)

    def take(self, model: Any) -> bool:
        """Take the initial values of another model; False, and nothing done, if it is not alike.

        The template must be in its initial state.
        """
        if self._structure is None or _structure(model) != self._structure:
            return False
        with variable_scope(self._model):
            for mine, theirs in zip(self._model.variables, model.variables, strict=True):
                assign(mine, copied(theirs.value))
        return True


def _structure(model: Any) -> Any:
    """What must be equal in models that are alike; None if more than variables could differ."""
    optimizer = model.optimizer
    parts = [model, *inner_layers(model), optimizer]
    plain = all(type(each).__module__.startswith("keras.") for each in parts)
    adapted = any(hasattr(each, "adapt") or isinstance(each, keras.layers.Lambda) for each in parts)
    if not plain or adapted or not model.built or optimizer.built or has_strategy(model):
        return None
    try:
        same = of_structure(model)
    except ValueError:  # a loss or a metric that cannot be described
        return None
    modes = [getattr(model, name, None) for name in ("run_eagerly", "jit_compile")]
    shapes = [(tuple(each.shape), each.dtype, each.trainable) for each in model.variables]
    return same, modes, shapes
