"""The paths that keys of multipliers match: a variable's own path, and its places in the model.

Keras fixes the path of a variable when it creates the variable. The layers of a functional model
are built before the model exists, and before another model contains it, so their paths lack the
names of both; in a `Sequential` some paths have them. Saving and loading changes paths again. The
structure of the model does not change, so keys are matched against it as well.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import keras

from keras_lr._keras.layers import direct_layers, inner_layers, own_variables

__all__ = ["Paths", "holding_models", "path_of", "paths_in"]

Paths = Sequence[tuple[str, ...]]  # for each variable its own path, then those by structure


def path_of(variable: Any) -> str:
    """The path of a variable; TensorFlow's own variables have only a name."""
    return str(getattr(variable, "path", None) or variable.name)


def paths_in(models: Any, variables: Sequence[Any]) -> Paths:
    """The paths of each variable: its own, and those by the structure of the models around it.

    A path by structure joins the names of the layers around the variable, without the outermost
    model. A nested model that is an attribute of a model also has the attribute's name, unless a
    layer has that name. A layer that is used in several places has a path for each.

    Args:
        models: A model, or a list of models.
        variables: Variables, in the models or not.
    """
    models = [models] if isinstance(models, keras.layers.Layer) else list(models)
    found: dict[int, dict[str, None]] = {id(variable): {} for variable in variables}
    for model in models:
        names = {layer.name for layer in inner_layers(model)}
        for variable, path in _walk(model, (), names, (model,)):
            if id(variable) in found:
                found[id(variable)][path] = None
    return [
        tuple(dict.fromkeys([path_of(variable), *found[id(variable)]])) for variable in variables
    ]


def _walk(
    layer: Any, prefix: tuple[str, ...], names: set[str], around: tuple[Any, ...]
) -> Iterator[tuple[Any, str]]:
    for variable in own_variables(layer):
        yield variable, "/".join((*(prefix or (layer.name,)), variable.name))
    attributes = _models_in_attributes(layer)
    for inner in sublayers(layer):
        if any(inner is each for each in around):
            continue
        aliases = [name for name in attributes.get(id(inner), ()) if name not in names]
        for name in (inner.name, *aliases):
            yield from _walk(inner, (*prefix, name), names, (*around, inner))


def sublayers(layer: Any) -> list[Any]:
    """The layers directly inside a layer or a model."""
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    return direct_layers(layer)


def _models_in_attributes(layer: Any) -> dict[int, list[str]]:
    """The names of the attributes whose values are models, by the model's id."""
    attributes = {**vars(layer), **vars(layer).get("_modules", {})}  # torch keeps layers apart
    found: dict[int, list[str]] = {}
    for name, value in attributes.items():
        if not issubclass(type(value), keras.Model):
            continue
        public = name.lstrip("_")  # KerasHub's `backbone` is a property on `_backbone`
        if public != value.name and getattr(layer, public, None) is value:
            found.setdefault(id(value), []).append(public)
    return found


def holding_models(variables: Sequence[Any]) -> list[Any]:
    """The models that contain all these variables, found in the frames of the callers.

    An optimizer gets variables but no model. The code that builds it has the model: Keras's `fit`
    and a `train_step` as `self`, other code in a variable. The search starts at the nearest
    caller. No frame is kept.
    """
    wanted = {id(variable) for variable in variables}
    if not wanted:
        return []
    frame: FrameType | None = sys._getframe(1)
    searched: set[int] = set()
    while frame is not None:
        spaces: list[Mapping[str, Any]] = [frame.f_locals]
        if id(frame.f_globals) not in searched:
            searched.add(id(frame.f_globals))
            spaces.append(frame.f_globals)
        for space in spaces:
            found = _holding(space, wanted)
            if found:
                return found
        frame = frame.f_back
    return []


def _holding(space: Mapping[str, Any], wanted: set[int]) -> list[Any]:
    """The models among these values with the wanted variables: `self`, or else the smallest."""
    owner = space.get("self")
    if _holds(owner, wanted):
        return [owner]
    attributes = getattr(owner, "__dict__", {})
    models = {id(m): m for m in _models((*space.values(), *attributes.values()))}
    sizes = {key: len(m.variables) for key, m in models.items() if _holds(m, wanted)}
    return [models[key] for key, size in sizes.items() if size == min(sizes.values())]


def _models(values: Iterable[Any]) -> Iterator[Any]:
    return (value for value in values if issubclass(type(value), keras.Model))


def _holds(model: Any, wanted: set[int]) -> bool:
    return issubclass(type(model), keras.Model) and wanted <= set(map(id, model.variables))
