"""Multipliers for `LayerwiseLR` by common recipes, and the groups of layers that they use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keras_lr._util import checks
from keras_lr.optimizers.blocks import groups_of, heads_of
from keras_lr.optimizers.layer_keys import keys_of
from keras_lr.optimizers.multipliers import (
    check_groups,
    check_keys,
    check_multipliers,
    covered,
    key_name,
    owners,
    resolve_in,
)
from keras_lr.optimizers.variable_paths import paths_in

__all__ = ["boost_head", "discriminative", "layer_decay", "layer_groups"]

_SMALLEST = float(np.finfo(np.float32).tiny)
_HARDLY_TRAINS = 1e-3


def layer_decay(
    model: Any, decay: float, groups: Any = None, min_scale: float | None = None
) -> dict[Any, float]:
    """Multipliers that fall by a constant factor from the head to the first layers.

    Layer-wise learning-rate decay: the multiplier of a group of layers is `decay` times that of
    the next group. Group i of n, counted from 0 at the input, has `decay ** (n - 1 - i)`; the head
    has 1. The groups are those of `layer_groups`: blocks, not single layers, as in timm and in the
    papers. ResNet50 has 18, and BERT with 12 layers has 14.

    Args:
        model: A built Keras model.
        decay: Factor from a group to the one before it, in (0, 1]. BEiT uses 0.65 to 0.75,
            ULMFiT 1 / 2.6.
        groups: Groups to use instead, from input to output. Each item is a layer, the name of a
            layer, a regular expression as in `LayerwiseLR`, or a list of these. Together they
            must contain every trainable weight once.
        min_scale: Smallest multiplier, in (0, 1]; smaller ones are raised to it, as with timm's
            `layer_decay_min_scale`. None for no bound.

    Returns:
        A dictionary for `LayerwiseLR`. A key is the layer's name, or more of its path if the name
        alone covers other weights too. The key is the layer itself if no string identifies it,
        which can happen in nested models.

    Raises:
        ValueError: If `decay` or `min_scale` is out of range, a multiplier is below 1e-38, the
            model has no trainable weights, or the groups miss a weight or share one.
        TypeError: If an argument has the wrong type.

    Warns:
        UserWarning: If the smallest multiplier is below 1e-3: such layers hardly train.

    Sources: Bao et al., "BEiT" (2021), appendix; Howard and Ruder, "Universal Language Model
    Fine-tuning for Text Classification" (2018), section 3.2; Clark et al., "ELECTRA" (2020).

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
            f"With a multiplier below {_HARDLY_TRAINS:g} the first layers hardly train; "
            f"layer_decay gives {smallest:.2g} to the first of "
            f"{len(layer_groups(model)) if groups is None else len(groups)} groups. Use a decay "
            "closer to 1, pass min_scale, or pass fewer groups.",
            UserWarning,
            stacklevel=2,
        )
    return found


def discriminative(model: Any, low: float, high: float, groups: Any = None) -> dict[Any, float]:
    """Multipliers for learning rates from `low` at the first layers to `high` at the head.

    The learning rates of the groups of `layer_groups` form a geometric sequence, as with fastai's
    `slice(low, high)`. A multiplier is the rate divided by `high`: group i of n, counted from 0 at
    the input, has `(low / high) ** ((n - 1 - i) / (n - 1))`. Set the learning rate of the optimizer
    to `high`; at another one the ratios hold, but the rates differ.

    Args:
        model: A built Keras model.
        low: Learning rate of the first group, in (0, high].
        high: Learning rate of the last group and of the optimizer.
        groups: Groups to use instead, as in `layer_decay`.

    Returns:
        A dictionary for `LayerwiseLR`, with keys as from `layer_decay`.

    Raises:
        ValueError: If a rate is not above 0, `low` is above `high`, the model has no trainable
            weights, or the groups miss a weight or share one.
        TypeError: If an argument has the wrong type.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification"
    (2018), section 3.2, for the idea.

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
    """Multipliers that let some layers learn faster than the others, which have 1.

    For a new head on a pretrained body, as in the fine-tuning examples of Caffe.

    Args:
        model: A built Keras model.
        layers: The faster layers: a layer, the name of a layer, a regular expression as in
            `LayerwiseLR`, or a list of these. None for the head, the last trainable layer. A
            functional model with several outputs has a head for each output; a head can be a
            stack of layers that lead to that output alone. The heads of a subclassed model are
            the last layers with names or attributes such as `box_head` or `classifier`.
        factor: Their multiplier, above 0.

    Returns:
        A dictionary for `LayerwiseLR` with a key for each of these layers.

    Raises:
        ValueError: If `factor` is not above 0, the model has no trainable weights, or one of
            the layers covers none of them or shares one with another.
        TypeError: If an argument has the wrong type.

    >>> model = keras.Sequential([keras.Input((2,))])
    >>> for name in ("body", "head"):
    ...     model.add(keras.layers.Dense(2, name=name))
    >>> boost_head(model)
    {'head': 10.0}
    """
    factor = checks.number("factor", factor, above=0.0)
    check_model(model, "boost_head")
    if layers is None:
        chosen = heads_of(model)
    else:
        chosen = _at_least_one("layers", check_keys("layers", layers))
    return _dictionary([(chosen, factor)], model)


def layer_groups(model: Any) -> list[list[Any]]:
    """The layers of a model in groups from the input to the head, as `layer_decay` counts them.

    - A block is one group: layers with a common prefix such as `block2a_`, `conv4_block3_` or
      `transformer_layer_3`, or the branches between two layers that every path goes through. In a
      model with more than 32 blocks whose names show stages, a stage is one group.
    - In a model with blocks, embeddings and the layers before the first block are the first
      group. A single layer between two blocks belongs to the second block; a single layer between
      the last block and the head belongs to the last block.
    - Every other layer is a group. Layers at the same distance from the output, as in parallel
      branches, are one group.
    - A layer whose weights are all vectors, such as normalization, belongs to the layer before it.
    - The head, or all heads of a model with several, is the last group (see `boost_head`).

    Nested models, and layers that keep a list of blocks, count by the layers inside. A layer that
    is used several times counts at its first use. The order of the layers of a subclassed model
    is the order in which its attributes were set; if they compute in another order, pass `groups`
    to the functions that take it.

    Args:
        model: A built Keras model.

    Returns:
        A list of lists of keys of `LayerwiseLR`. `layer_decay` and `discriminative` take it as
        `groups`, and `GradualUnfreeze` takes it reversed.

    Raises:
        ValueError: If the model is not built, or has no trainable weights.
        TypeError: If it is not a Keras model.

    >>> names = ("stem", "block1_conv", "block1_out", "block2_conv", "head")
    >>> model = keras.Sequential([keras.Input((2,))])
    >>> for name in names:
    ...     model.add(keras.layers.Dense(2, name=name))
    >>> layer_groups(model)
    [['stem'], ['block1_conv', 'block1_out'], ['block2_conv'], ['head']]
    """
    check_model(model, "layer_groups")
    return [keys_of(group, model) for group in groups_of(model)]


def check_model(model: Any, caller: str) -> None:
    """Refuse anything but a built model with trainable weights.

    Raises:
        ValueError: If the model is not built, or has no trainable weights.
        TypeError: If it is not a Keras model.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a Keras model; got {model!r}.")
    if not model.built:
        raise ValueError(
            f"{caller} needs a built model; got {model.name!r}, which is not built. Add an "
            "Input, call the model on a batch, or call its build(input_shape)."
        )
    if not model.trainable_variables:
        raise ValueError(
            f"{caller} needs a model with trainable weights; got {model.name!r}, which has none. "
            "Build it, or set trainable=True on the layers that should learn."
        )


def _spread(
    caller: str, model: Any, groups: Any, multiplier: Callable[[int, int], float]
) -> dict[Any, float]:
    """Give each group of layers the multiplier for its place from the input to the output."""
    check_model(model, caller)
    chosen: list[list[Any]] = groups_of(model) if groups is None else _checked_groups(groups)
    multipliers = [multiplier(place, len(chosen) - 1) for place in range(len(chosen))]
    if multipliers[0] < _SMALLEST:
        raise ValueError(
            f"A multiplier of {caller} must be at least {_SMALLEST:.2g}, the smallest normal "
            f"float32; got {multipliers[0]:.2g} for the first of {len(chosen)} groups. Pass "
            "fewer groups."
        )
    found = _dictionary(zip(chosen, multipliers, strict=True), model)
    variables = model.trainable_variables
    paths = paths_in(model, variables)
    held = {index for key in found for index in covered(key, variables, paths)}
    missing = [variable for index, variable in enumerate(variables) if index not in held]
    if missing:
        raise ValueError(
            "groups must contain every trainable layer; got none for "
            f"{', '.join(owners(missing, paths_in(model, missing)))}."
        )
    return found


def _dictionary(chosen: Iterable[tuple[Sequence[Any], float]], model: Any) -> dict[Any, float]:
    """The multipliers by keys of `LayerwiseLR`; a string stays as the user wrote it."""
    chosen = [(list(group), multiplier) for group, multiplier in chosen]
    layers = [each for group, _ in chosen for each in group if not isinstance(each, str)]
    keys = iter(keys_of(layers, model))
    found: dict[Any, float] = {}
    for group, multiplier in chosen:
        for each in group:
            key = each if isinstance(each, str) else next(keys)
            if key in found:
                raise ValueError(
                    f"A layer can have only one multiplier; got two for {key_name(key)!r}."
                )
            found[key] = multiplier
    resolve_in(check_multipliers(found), model)  # refuses keys that cover nothing, or overlap
    return found


def _checked_groups(groups: Any) -> list[list[Any]]:
    checked = check_groups(groups)
    if not checked:
        raise ValueError(f"groups must contain at least one group of layers; got {groups!r}.")
    return [_at_least_one("A group", group) for group in checked]


def _at_least_one(name: str, keys: list[Any]) -> list[Any]:
    if not keys:
        raise ValueError(f"{name} must contain at least one layer; got {keys!r}.")
    return keys
