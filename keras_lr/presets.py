"""Multipliers for `LayerwiseLR` by the usual recipes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lr import _checks
from keras_lr.optimizers.multipliers import (
    check_groups,
    check_keys,
    check_multipliers,
    covered,
    key_name,
    owners,
    resolve,
)
from keras_lr.optimizers.paths import Paths, paths_in

__all__ = ["Part", "boost_head", "discriminative", "keys_of", "layer_decay", "parts_of"]

_SMALLEST = float(np.finfo(np.float32).tiny)


def layer_decay(model: Any, decay: float, groups: Any = None) -> dict[Any, float]:
    """Multipliers that fall by a constant factor from the last layer to the first.

    Layer-wise learning-rate decay: the last layer has 1, and each layer before it `decay` times
    the multiplier of the next. With n layers, counted from 0, layer i has `decay ** (n - 1 - i)`.

    The layers that count are those with weights that train, from input to output: a functional
    model's as `model.layers` has them (by their distance from the output), a `Sequential`'s as
    they were added, and a subclassed model's as its attributes were set. Where that is not the
    order in which they compute, pass `groups`. Nested models are entered, and so are wrappers
    around a model; any other layer counts once with all that is in it. A layer that is used
    several times counts once, at its first use, farthest from the output. Weights that belong
    to a model itself come before its layers.

    Args:
        model: A model of Keras that has its weights.
        decay: Factor from a layer to the one before it; above 0, at most 1. BEiT has 0.65 to
            0.75 (over blocks: see `groups`), ULMFiT 1 / 2.6.
        groups: What counts instead of single layers, such as the blocks of a transformer: a
            list from input to output. Each item is a layer, the name of a layer, a regular
            expression as in `LayerwiseLR`, or a list of these. Together they have to hold every
            weight that trains, each once.

    Returns:
        A dictionary for `LayerwiseLR`. Keys are text: the layer's name, and more of its path
        where the name alone covers other weights too. The layer itself is the key where no text
        tells it apart: two layers of one path, as loading a nested model can make them.

    Raises:
        ValueError: If `decay` is out of its range or so small that a multiplier is below 1e-38,
            the model has no weights that train, or the groups leave one out or share one.
        TypeError: If an argument is of another kind.

    Bao et al., "BEiT" (2021), appendix; Howard and Ruder, "Universal Language Model Fine-tuning
    for Text Classification" (2018), section 3.2. Clark et al., "ELECTRA" (2020), has it as well.

    >>> model = keras.Sequential([keras.Input((2,))])
    >>> for name in ("body", "neck", "head"):
    ...     model.add(keras.layers.Dense(2, name=name))
    >>> layer_decay(model, 0.5)
    {'body': 0.25, 'neck': 0.5, 'head': 1.0}
    """
    decay = _checks.number("decay", decay, above=0.0, most=1.0)
    return _spread("layer_decay", model, groups, lambda place, last: decay ** (last - place))


def discriminative(model: Any, low: float, high: float, groups: Any = None) -> dict[Any, float]:
    """Multipliers for learning rates from `low` at the first layer to `high` at the last.

    The rates are in equal ratios, as fastai's `slice(low, high)` has them. A multiplier is the
    rate over `high`: the last layer has 1, the first `low / high`. So the learning rate of the
    optimizer has to be `high`; at another one the ratios hold, and the rates do not.

    Args:
        model: A model of Keras that has its weights.
        low: Learning rate of the first layer, above 0.
        high: Learning rate of the last layer, and of the optimizer; at least `low`.
        groups: What counts instead of single layers, as in `layer_decay`; fastai spreads the
            rates over such groups.

    Returns:
        A dictionary for `LayerwiseLR`, as `layer_decay` makes it.

    Raises:
        ValueError: If a rate is not above 0, `low` is above `high`, the model has no weights
            that train, or the groups leave one out or share one.
        TypeError: If an argument is of another kind.

    Howard and Ruder (2018), section 3.2, for the idea.

    >>> model = keras.Sequential([keras.Input((2,))])
    >>> for name in ("body", "neck", "head"):
    ...     model.add(keras.layers.Dense(2, name=name))
    >>> multipliers = discriminative(model, low=0.25, high=1.0)
    >>> multipliers
    {'body': 0.25, 'neck': 0.5, 'head': 1.0}
    >>> optimizer = keras_lr.optimizers.LayerwiseLR(keras.optimizers.SGD(1.0), multipliers)
    """
    low = _checks.number("low", low, above=0.0)
    high = _checks.number("high", high, above=0.0)
    _checks.ordered("low", low, "high", high)
    ratio = low / high

    def multiplier(place: int, last: int) -> float:
        return ratio ** ((last - place) / last) if last else 1.0

    return _spread("discriminative", model, groups, multiplier)


def boost_head(model: Any, layers: Any = None, factor: float = 10.0) -> dict[Any, float]:
    """Multipliers that let some layers learn faster than the rest, which keeps the plain rate.

    For a new head on a pretrained body, as Caffe's fine-tuning examples have it.

    Args:
        model: A model of Keras that has its weights.
        layers: The fast ones: a layer, the name of a layer, a regular expression as in
            `LayerwiseLR`, or a list of these. None for the last layer that trains, in the order
            that `layer_decay` describes.
        factor: Their multiplier, above 0.

    Returns:
        A dictionary for `LayerwiseLR` with a key for each of the layers.

    Raises:
        ValueError: If `factor` is not above 0, the model has no weights that train, or one of
            the layers covers none of them or some that another one covers.
        TypeError: If an argument is of another kind.

    >>> model = keras.Sequential([keras.Input((2,))])
    >>> for name in ("body", "head"):
    ...     model.add(keras.layers.Dense(2, name=name))
    >>> boost_head(model)
    {'head': 10.0}
    """
    factor = _checks.number("factor", factor, above=0.0)
    parts = _trained_parts(model, "boost_head")
    chosen = (
        [parts[-1]] if layers is None else _at_least_one("layers", check_keys("layers", layers))
    )
    return _dictionary([(chosen, factor)], model)


@dataclass(frozen=True, eq=False)
class Part:
    """A layer as it counts here, or the weights that belong to a model itself.

    Args:
        path: The names of the models around it, without the one that was asked, and its own.
        layer: The layer or the model.
        weights: Its weights that no earlier part has.
        trained: Those of them that train.
        around: The models around it, without the one that was asked.
    """

    path: tuple[str, ...]
    layer: Any
    weights: list[Any]
    trained: list[Any]
    around: tuple[Any, ...] = ()


def parts_of(model: Any) -> list[Part]:
    """The layers of a model from input to output, nested ones in the place of their model.

    Each layer is there once, at its first use, and so is each weight. Layers without weights are
    there too.
    """
    training = {id(variable) for variable in model.trainable_variables}
    seen: set[int] = set()
    parts: list[Part] = []
    for path, around, layer, weights in _walk(model, (), (), set()):
        fresh = [weight for weight in weights if id(weight) not in seen]
        seen.update(map(id, fresh))
        trained = [weight for weight in fresh if id(weight) in training]
        parts.append(Part(path, layer, fresh, trained, around))
    return parts


_Step = tuple[tuple[str, ...], tuple[Any, ...], Any, list[Any]]


def _walk(
    layer: Any, path: tuple[str, ...], around: tuple[Any, ...], seen: set[int]
) -> Iterator[_Step]:
    inner = _entered(layer)
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


def _entered(layer: Any) -> list[Any] | None:
    """The layers that count instead of this one; None where it counts itself."""
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    if isinstance(layer, keras.layers.Wrapper) and isinstance(layer.layer, keras.Model):
        return [layer.layer]
    return None


def _trained_parts(model: Any, caller: str) -> list[Part]:
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a model of Keras; got {model!r}.")
    if not model.built:
        raise ValueError(
            f"{caller} must be given a model that has its weights; got {model.name!r}, which is "
            "not built. Give it an Input, call it on a batch, or call its build(input_shape)."
        )
    parts = [part for part in parts_of(model) if part.trained]
    if not parts:
        raise ValueError(
            f"{caller} must be given a model with weights that train; got {model.name!r}, which "
            "has none. Build it, or set trainable=True on the layers that are to learn."
        )
    return parts


def _spread(
    caller: str, model: Any, groups: Any, multiplier: Callable[[int, int], float]
) -> dict[Any, float]:
    """A multiplier for each place in the order of the layers, or of the groups."""
    parts = _trained_parts(model, caller)
    variables = model.trainable_variables
    chosen = None if groups is None else _checked_groups(groups)
    count = len(parts if chosen is None else chosen)
    multipliers = [multiplier(place, count - 1) for place in range(count)]
    if multipliers[0] < _SMALLEST:
        raise ValueError(
            f"{caller} must leave each layer a multiplier of at least {_SMALLEST:.2g}, float32's "
            f"smallest; got {multipliers[0]:.2g} for the first of {count}. Pass groups of "
            "layers."
        )
    if chosen is None:
        return dict(zip(keys_of(parts, model), multipliers, strict=True))
    found = _dictionary(zip(chosen, multipliers, strict=True), model)
    paths = paths_in(model, variables)
    held = {index for key in found for index in covered(key, variables, paths)}
    missing = [variable for index, variable in enumerate(variables) if index not in held]
    if missing:
        raise ValueError(
            "groups must hold every layer that trains; got none for "
            f"{', '.join(owners(missing, paths_in(model, missing)))}."
        )
    return found


def _dictionary(chosen: Iterable[tuple[Sequence[Any], float]], model: Any) -> dict[Any, float]:
    """The multipliers of layers and expressions as the user named them."""
    found: dict[Any, float] = {}
    for group, multiplier in chosen:
        for each in group:
            key = each if isinstance(each, str) else keys_of([each], model)[0]
            if key in found:
                raise ValueError(f"A layer can have one multiplier; got two for {key_name(key)!r}.")
            found[key] = multiplier
    variables = model.trainable_variables
    resolve(check_multipliers(found), variables, paths_in(model, variables))
    return found


def _checked_groups(groups: Any) -> list[list[Any]]:
    checked = check_groups(groups)
    if not checked:
        raise ValueError(f"groups must hold at least one group of layers; got {groups!r}.")
    return [_at_least_one("A group", group) for group in checked]


def _at_least_one(name: str, keys: list[Any]) -> list[Any]:
    if not keys:
        raise ValueError(f"{name} must hold at least one layer; got {keys!r}.")
    return keys


def keys_of(parts: Sequence[Any], model: Any) -> list[Any]:
    """For each part, or layer, a key that covers those of its weights that train, and no others.

    Args:
        parts: Each a `Part` or a layer.
        model: The model that they are in.

    Returns:
        The shortest of the layer's path that will do, as a regular expression; where no text
        will, the layer.

    Raises:
        ValueError: If none of its weights train, or not even the layer is theirs alone.
    """
    variables = model.trainable_variables
    paths = paths_in(model, variables)
    return [_key_of(part, variables, paths) for part in parts]


def _key_of(part: Any, variables: Sequence[Any], paths: Paths) -> Any:
    layer = part.layer if isinstance(part, Part) else part
    held = wanted = covered(layer, variables, paths)
    if isinstance(part, Part):
        own = set(map(id, part.trained))
        wanted = [index for index in held if id(variables[index]) in own]
    names = [paths[index][0].split("/") for index in wanted]
    for anchor, texts in _texts(layer.name, names):
        if _covered_by_text(anchor, texts, paths) == wanted:
            return anchor + "|".join(map(re.escape, texts))
    if held != wanted:
        raise ValueError(
            f"The weights of {layer.name!r} must have paths of their own; got "
            f"{', '.join(paths[index][0] for index in wanted)}, which others have too. Name the "
            "layers differently."
        )
    return layer


def _texts(name: str, paths: list[list[str]]) -> Iterator[tuple[str, list[str]]]:
    """What may cover these paths, the readable first: "^" or nothing, then any of some texts."""
    columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False))
    shared = [column[0] for column in columns]
    depth = next((i for i in range(len(shared), 0, -1) if shared[i - 1] == name), len(shared))
    for start in range(depth - 1, -1, -1):
        yield "", ["/".join(shared[start:depth])]
    if depth:
        yield "^", ["/".join(shared[:depth])]
    yield "", ["/".join(path) for path in paths]


def _covered_by_text(anchor: str, texts: list[str], paths: Paths) -> list[int]:
    """What the keys of `LayerwiseLR` cover, for plain text; thousands of patterns take seconds."""
    parts = [f"/{text}/" for text in texts]
    covers = str.startswith if anchor else str.__contains__
    return [
        place
        for place, names in enumerate(paths)
        if any(covers(f"/{path}/", part) for path in names for part in parts)
    ]
