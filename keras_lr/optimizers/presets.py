"""Multipliers for `LayerwiseLR` by the usual recipes."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_lr._util import checks
from keras_lr.optimizers.blocks import Part, groups_of, heads_of
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

__all__ = ["boost_head", "discriminative", "keys_of", "layer_decay", "layer_groups"]

_SMALLEST = float(np.finfo(np.float32).tiny)
_HARDLY_TRAINS = 1e-3


def layer_decay(
    model: Any, decay: float, groups: Any = None, min_scale: float | None = None
) -> dict[Any, float]:
    """Multipliers that fall by a constant factor from the head to the first layers.

    Layer-wise learning-rate decay: the head has 1, and each group of layers `decay` times the
    multiplier of the group after it. With n groups, counted from 0, group i has
    `decay ** (n - 1 - i)`. The groups are those of `layer_groups`: blocks, not single layers, as
    in timm and in the papers. ResNet50 has 18, and BERT with 12 layers has 14.

    Args:
        model: A built Keras model.
        decay: Factor from a group to the one before it, in (0, 1]. BEiT uses 0.65 to 0.75,
            ULMFiT 1 / 2.6.
        groups: Groups to use instead, from input to output. Each item is a layer, the name of a
            layer, a regular expression as in `LayerwiseLR`, or a list of these. Together they
            must hold every weight that trains, each once.
        min_scale: Smallest multiplier, in (0, 1]; smaller ones are raised to it, as timm's
            `layer_decay_min_scale` does. None for no bound.

    Returns:
        A dictionary for `LayerwiseLR`. Keys are text: the layer's name, and more of its path
        where the name alone covers other weights too. The layer itself is the key where no text
        identifies it, which can happen with nested models.

    Raises:
        ValueError: If `decay` or `min_scale` is out of range, a multiplier is below 1e-38, the
            model has no weights that train, or the groups leave one out or share one.
        TypeError: If an argument has the wrong type.

    Warns:
        UserWarning: If the smallest multiplier is below 1e-3: such layers hardly train.

    Bao et al., "BEiT" (2021), appendix; Howard and Ruder, "Universal Language Model Fine-tuning
    for Text Classification" (2018), section 3.2; Clark et al., "ELECTRA" (2020).

    >>> model = keras.Sequential([keras.Input((2,))])
    >>> for name in ("body", "neck", "head"):
    ...     model.add(keras.layers.Dense(2, name=name))
    >>> layer_decay(model, 0.5)
    {'body': 0.25, 'neck': 0.5, 'head': 1.0}
    >>> layer_decay(model, 0.5, min_scale=0.4)
    {'body': 0.4, 'neck': 0.5, 'head': 1.0}
    """
    decay = checks.number("decay", decay, above=0.0, most=1.0)
    floor = 0.0
    if min_scale is not None:
        floor = checks.number("min_scale", min_scale, above=0.0, most=1.0)
    found = _spread(
        "layer_decay", model, groups, lambda place, last: max(decay ** (last - place), floor)
    )
    smallest = min(found.values())
    if smallest < _HARDLY_TRAINS:
        warnings.warn(
            f"The smallest multiplier of layer_decay should be at least {_HARDLY_TRAINS:g}, or "
            f"the first layers hardly train; got {smallest:.2g} for the first of "
            f"{len(layer_groups(model)) if groups is None else len(groups)} groups. Use a decay "
            "nearer to 1, pass min_scale, or pass fewer groups.",
            UserWarning,
            stacklevel=2,
        )
    return found


def discriminative(model: Any, low: float, high: float, groups: Any = None) -> dict[Any, float]:
    """Multipliers for learning rates from `low` at the first layers to `high` at the head.

    The rates of the groups of layers, those of `layer_groups`, are in equal ratios, as with
    fastai's `slice(low, high)`. A multiplier is the rate divided by `high`: the last group has 1,
    the first `low / high`. So the learning rate of the optimizer must be `high`; at another one
    the ratios hold, and the rates do not.

    Args:
        model: A built Keras model.
        low: Learning rate of the first group, above 0.
        high: Learning rate of the last group, and of the optimizer; at least `low`.
        groups: Groups to use instead, as in `layer_decay`.

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
    low = checks.number("low", low, above=0.0)
    high = checks.number("high", high, above=0.0)
    checks.ordered("low", low, "high", high)
    ratio = low / high

    def multiplier(place: int, last: int) -> float:
        return ratio ** ((last - place) / last) if last else 1.0

    return _spread("discriminative", model, groups, multiplier)


def boost_head(model: Any, layers: Any = None, factor: float = 10.0) -> dict[Any, float]:
    """Multipliers that let some layers learn faster than the rest, which keeps the plain rate.

    For a new head on a pretrained body, as Caffe's fine-tuning examples have it.

    Args:
        model: A built Keras model.
        layers: The fast ones: a layer, the name of a layer, a regular expression as in
            `LayerwiseLR`, or a list of these. None for the head: the last layer that trains. A
            functional model with several outputs has a head for each, which can be a stack of
            layers that lead to that output alone; a subclassed model has the layers at its end
            whose names or attributes say so (`box_head`, `classifier`).
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
    factor = checks.number("factor", factor, above=0.0)
    _check_model(model, "boost_head")
    if layers is None:
        chosen = heads_of(model)
    else:
        chosen = _at_least_one("layers", check_keys("layers", layers))
    return _dictionary([(chosen, factor)], model)


def layer_groups(model: Any) -> list[list[Any]]:
    """The layers of a model in groups from the input to the head, as `layer_decay` counts them.

    - A block is one group: layers with a common prefix such as `block2a_`, `conv4_block3_` or
      `transformer_layer_3`, or the branches between two layers that every path goes through. In a
      model with more than 32 blocks whose names tell stages, a stage is one group.
    - In a model with blocks, the layers before the first one, and embeddings, are the first
      group. A single layer between two blocks belongs to the second, and a single one between the
      last block and the head to the last block.
    - Every other layer is a group. Layers at the same distance from the output, as in parallel
      branches, are one group.
    - Normalisation, and any layer whose weights are vectors, belongs to the layer before it.
    - The head, or all heads of a model with several, is the last group (see `boost_head`).

    Nested models are entered, and so are layers that keep a list of blocks. A layer that is used
    several times counts at its first use. In a subclassed model the layers follow each other as
    the attributes were set; where that is not the order in which they compute, pass `groups`.

    Args:
        model: A built Keras model.

    Returns:
        A list of lists of keys of `LayerwiseLR`: what `layer_decay`, `discriminative` and
        `GradualUnfreeze` (in reverse order) take as `groups`.

    Raises:
        ValueError: If the model is not built, or has no weights that train.
        TypeError: If it is not a Keras model.

    >>> names = ("stem", "block1_conv", "block1_out", "block2_conv", "head")
    >>> model = keras.Sequential([keras.Input((2,))])
    >>> for name in names:
    ...     model.add(keras.layers.Dense(2, name=name))
    >>> layer_groups(model)
    [['stem'], ['block1_conv', 'block1_out'], ['block2_conv'], ['head']]
    """
    _check_model(model, "layer_groups")
    return [keys_of(group, model) for group in groups_of(model)]


def _check_model(model: Any, caller: str) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a model of Keras; got {model!r}.")
    if not model.built:
        raise ValueError(
            f"{caller} must be given a model that has its weights; got {model.name!r}, which is "
            "not built. Give it an Input, call it on a batch, or call its build(input_shape)."
        )
    if not model.trainable_variables:
        raise ValueError(
            f"{caller} must be given a model with weights that train; got {model.name!r}, which "
            "has none. Build it, or set trainable=True on the layers that are to learn."
        )


def _spread(
    caller: str, model: Any, groups: Any, multiplier: Callable[[int, int], float]
) -> dict[Any, float]:
    """A multiplier for each group of layers, by its place from the input to the output."""
    _check_model(model, caller)
    chosen: list[list[Any]] = groups_of(model) if groups is None else _checked_groups(groups)
    multipliers = [multiplier(place, len(chosen) - 1) for place in range(len(chosen))]
    if multipliers[0] < _SMALLEST:
        raise ValueError(
            f"{caller} must leave each layer a multiplier of at least {_SMALLEST:.2g}, float32's "
            f"smallest; got {multipliers[0]:.2g} for the first of {len(chosen)} groups. Pass "
            "fewer groups."
        )
    found = _dictionary(zip(chosen, multipliers, strict=True), model)
    variables = model.trainable_variables
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
    """The multipliers by the keys of `LayerwiseLR`; text stays as the user wrote it."""
    chosen = [(list(group), multiplier) for group, multiplier in chosen]
    layers = [each for group, _ in chosen for each in group if not isinstance(each, str)]
    keys = iter(keys_of(layers, model))
    found: dict[Any, float] = {}
    for group, multiplier in chosen:
        for each in group:
            key = each if isinstance(each, str) else next(keys)
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
