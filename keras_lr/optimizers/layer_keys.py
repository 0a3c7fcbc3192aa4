"""Keys of `LayerwiseLR` for layers: a readable text that covers the weights of one layer only."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_lr.optimizers.model_parts import Part, parts_of
from keras_lr.optimizers.multipliers import covered
from keras_lr.optimizers.variable_paths import Paths, paths_in

__all__ = ["keys_for_labels", "keys_of"]


def keys_of(parts: Sequence[Any], model: Any) -> list[Any]:
    """For each part or layer, a key that covers its trainable weights and no others.

    Args:
        parts: Each a `Part` or a layer.
        model: The model that contains them.

    Returns:
        The shortest section of the layer's path that identifies it, as a regular expression; the
        layer itself where no text does.

    Raises:
        ValueError: If none of its weights train, or neither a text nor the layer covers its
            weights alone.
    """
    variables = model.trainable_variables
    paths = paths_in(model, variables)
    return [_key_of(part, variables, paths) for part in parts]


def keys_for_labels(multipliers: Mapping[str, float], model: Any) -> dict[Any, float]:
    """Multipliers with keys of `LayerwiseLR` in the place of the labels of parts.

    Args:
        multipliers: By the label of a part, by the path of a nested model, or by any other key of
            `LayerwiseLR`, which stays as it is.
        model: A built model.

    Raises:
        ValueError: If two entries have the same key, or a part has no key of its own.
    """
    parts = parts_of(model)
    layers: dict[str, Any] = {}
    for part in parts:
        for depth, each in enumerate(part.around, start=1):
            layers.setdefault("/".join(part.path[:depth]), each)
    layers.update((part.label, part) for part in parts if part.trained)
    found: dict[Any, float] = {}
    for text, value in multipliers.items():
        key = text
        if text in layers:
            (key,) = keys_of([layers[text]], model)
        if key in found:
            raise ValueError(f"A layer can have only one multiplier; got two for {text!r}.")
        found[key] = value
    return found


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
            f"{', '.join(paths[index][0] for index in wanted)}, which other weights have too. Give "
            "the layers different names."
        )
    return layer


def _texts(name: str, paths: list[list[str]]) -> Iterator[tuple[str, list[str]]]:
    """Candidates that may cover these paths, readable ones first: an anchor, and alternatives."""
    columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False))
    shared = [column[0] for column in columns]
    depth = next((i for i in range(len(shared), 0, -1) if shared[i - 1] == name), len(shared))
    for start in range(depth - 1, -1, -1):
        yield "", ["/".join(shared[start:depth])]
    if depth:
        yield "^", ["/".join(shared[:depth])]
    yield "", ["/".join(path) for path in paths]


def _covered_by_text(anchor: str, texts: list[str], paths: Paths) -> list[int]:
    """The variables that a key of `LayerwiseLR` would cover.

    Compares plain text: to match thousands of regular expressions would take seconds.
    """
    parts = [f"/{text}/" for text in texts]
    covers = str.startswith if anchor else str.__contains__
    return [
        place
        for place, names in enumerate(paths)
        if any(covers(f"/{path}/", part) for path in names for part in parts)
    ]
