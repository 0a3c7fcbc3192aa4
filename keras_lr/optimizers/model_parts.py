"""The parts of a model: its layers from input to output, nested models replaced by their layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_lr.optimizers.variable_paths import sublayers

__all__ = ["Part", "expanded_layers", "parts_of"]


@dataclass(frozen=True, eq=False)
class Part:
    """A layer, or the weights that belong to a model itself and to none of its layers.

    Args:
        path: The names of the models around the layer, without the outermost, and its own name.
        layer: The layer or the model.
        weights: Its weights that no earlier part has.
        trained: The trainable ones among them.
        around: The models around it, without the outermost.
        label: The path as one text, different for each part: `body/dense`, `body/dense#2`.
    """

    path: tuple[str, ...]
    layer: Any
    weights: list[Any]
    trained: list[Any]
    around: tuple[Any, ...]
    label: str


def parts_of(model: Any) -> list[Part]:
    """The parts of a model from input to output, also those without weights.

    Each layer appears once, at its first use, and so does each weight.
    """
    training = {id(variable) for variable in model.trainable_variables}
    seen: set[int] = set()
    counts: dict[str, int] = {}
    parts: list[Part] = []
    for path, around, layer, weights in _walk(model, (), (), set()):
        fresh = [weight for weight in weights if id(weight) not in seen]
        seen.update(map(id, fresh))
        trained = [weight for weight in fresh if id(weight) in training]
        label = "/".join(path) + (" (own weights)" if isinstance(layer, keras.Model) else "")
        counts[label] = counts.get(label, 0) + 1
        label = label if counts[label] == 1 else f"{label}#{counts[label]}"
        parts.append(Part(path, layer, fresh, trained, around, label))
    return parts


_Step = tuple[tuple[str, ...], tuple[Any, ...], Any, list[Any]]


def _walk(
    layer: Any, path: tuple[str, ...], around: tuple[Any, ...], seen: set[int]
) -> Iterator[_Step]:
    inner = expanded_layers(layer)
    if inner is None:
        yield path, around, layer, layer.weights
        return
    in_layers = {id(weight) for each in inner for weight in each.weights}
    own = [weight for weight in layer.weights if id(weight) not in in_layers]
    if own:
        yield path or (layer.name,), around, layer, own
    around = (*around, layer) if path else ()
    for each in inner:
        if id(each) not in seen:
            seen.add(id(each))
            yield from _walk(each, (*path, each.name), around, seen)


def expanded_layers(layer: Any) -> list[Any] | None:
    """The layers that are parts in the place of this one; None if it is a part itself.

    That is so for models, for wrappers around a model, and for layers that keep a list of blocks:
    at least two layers of one class that contain layers themselves.
    """
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    if isinstance(layer, keras.layers.Wrapper) and isinstance(layer.layer, keras.Model):
        return [layer.layer]
    for name, value in vars(layer).items():
        if name.startswith("_") or not isinstance(value, (list, tuple)):
            continue
        if len(value) > 1 and len({type(each) for each in value}) == 1 and _holds_layers(value[0]):
            return sublayers(layer)
    return None


def _holds_layers(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Layer) and any(e.weights for e in sublayers(layer))
