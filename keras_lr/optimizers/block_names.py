"""What the names of layers tell of a model: its blocks, its stages and its heads.

A common prefix with a number is a block: `block2a_expand_conv`, `conv4_block3_1_bn`,
`transformer_layer_3`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras

__all__ = ["block_labels", "heads_by_name", "stage_of"]

_WORDS = "blocks?|layers?|stages?|cell|module|unit|stack|mixed|expanded_conv"
_INDEXED = re.compile(rf"^(.*(?:{_WORDS})_?)(\d+[a-z]*)(?=_|$)", re.IGNORECASE)
_BARE = re.compile(rf"^(.*(?:{_WORDS}))(?=_|$)", re.IGNORECASE)
_BETWEEN = re.compile("downsampl|transition", re.IGNORECASE)
_STAGE = re.compile(r"^(.*stage_?\d+)_|^(.*\d)_?block_?\d+$|^(.*block_?\d+)[a-z]+$", re.IGNORECASE)
_HEAD = re.compile("head|logit|classifier|prediction|output", re.IGNORECASE)


def block_labels(paths: Sequence[tuple[str, ...]]) -> list[str | None]:
    """The name of the block that each layer is in; None for a layer outside of all blocks.

    Args:
        paths: The path of each layer: the names of the models around it, and its own.
    """
    bases = {
        (*path[:depth], found[1].rstrip("_"))
        for path in paths
        for depth, each in enumerate(path)
        if (found := _INDEXED.match(each))
    }
    labels: list[str | None] = []
    for path in paths:
        label = None
        for depth, each in enumerate(path):
            found = _INDEXED.match(each)
            bare = None if found else _BARE.match(each)
            # The first of several has no number: `expanded_conv`, then `expanded_conv_1`.
            if bare and ((*path[:depth], bare[1]) in bases or bare[1] == "expanded_conv"):
                found = bare
            if found and not _BETWEEN.search(each):
                label = "/".join((*path[:depth], found[0]))
        labels.append(label)
    return labels


def stage_of(label: str | None) -> str | None:
    """The stage in the name of a block, as `block2` in `block2a`; the name itself without one."""
    found = None if label is None else _STAGE.match(label)
    return next(filter(None, found.groups())) if found else label


def heads_by_name(layer: Any, inner: list[Any]) -> list[Any]:
    """The last layers of a subclassed model whose names or attributes say that they are heads."""
    if not isinstance(layer, keras.Model) or isinstance(layer, keras.Sequential):
        return []
    names: dict[int, str] = {id(each): each.name for each in inner}
    for name, value in {**vars(layer), **vars(layer).get("_modules", {})}.items():
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if id(each) in names and not name.startswith("_"):
                names[id(each)] += f" {name}"
    found: list[Any] = []
    for each in reversed(inner):
        if each.weights and not _HEAD.search(names[id(each)]):
            break
        found.insert(0, each)
    return found if len([each for each in found if each.weights]) > 1 else []
