"""The models of a search that is given a function: trained in one model where they are alike."""

from __future__ import annotations

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
        TypeError: If the function returns something else.
    """
    keras.utils.set_random_seed(seed)
    model = make()
    if not isinstance(model, keras.Model):
        raise TypeError(
            "model must be a Keras model or a function that returns one; the function returned "
            f"{type(model).__name__}."
        )
    return model


def parts_of(model: Any) -> list[str]:
    """The kind of the optimizer and the shapes of the weights, in words."""
    kinds = dict.fromkeys(type(each).__name__ for each in innermost_optimizers(model.optimizer))
    weights = [f"{each.path.split('/')[-1]} of shape {tuple(each.shape)}" for each in model.weights]
    return ["the optimizer " + " and ".join(kinds), *weights]


def check_alike(first: list[str], model: Any) -> None:
    """Refuse a model with other parts than the first of its function; one that is not built passes.

    Raises:
        ValueError: If it has.
    """
    if not model.built:
        return
    for one, other in zip_longest(first, parts_of(model)):
        if one != other:
            raise ValueError(
                "model must return models of one structure, since the search compares their runs; "
                f"the first has {one or 'no further weight'} where another has "
                f"{other or 'no further weight'}. Let the function build the same model each time."
            )


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
