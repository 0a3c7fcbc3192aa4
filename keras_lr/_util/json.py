"""Results as JSON: values that JSON can hold, and files that `save` wrote."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from keras_lr._util import checks

__all__ = ["jsonable", "read_saved"]

Result = TypeVar("Result")
_DAMAGE = (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError)


def jsonable(value: Any, *, infinity: bool = False) -> Any:
    """Replace NumPy values by Python's, keys by strings, and NaN by None.

    Args:
        infinity: Whether to keep an infinity, as the text "inf" or "-inf", which `float` reads;
            otherwise it becomes None.
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(item, infinity=infinity) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item, infinity=infinity) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist(), infinity=infinity)
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return str(value) if infinity and math.isinf(value) else None


def read_saved(
    path: str | os.PathLike[str],
    kind: str,
    oldest: int,
    newest: int,
    build: Callable[[dict[str, Any]], Result],
) -> Result:
    """Read a file that holds a result, with `"format": "keras-lr KIND"` and a `"version"`.

    Args:
        kind: What the file holds, for its format and the messages: `"range test"`, `"search"`.
        oldest: Lowest version that `build` can read.
        newest: Highest version.
        build: Makes the result of the content.

    Raises:
        ValueError: If the file holds something else, is damaged, or has another version.
        OSError: If it cannot be read.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != f"keras-lr {kind}":
            raise KeyError("format")
        version = int(content["version"])
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is not a {kind} saved by keras-lr. Give a file that its save method wrote."
        ) from error
    if not oldest <= version <= newest:
        age, way_out = "a later", "Upgrade keras-lr to read it"
        if version < oldest:
            age, way_out = "an earlier", f"Repeat the {kind} and save it again"
        raise ValueError(
            f"{path} was written by {age} keras-lr (format {version}, this one reads up to "
            f"{newest}). {way_out}."
        )
    try:
        return build(content)
    except _DAMAGE as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        reason = checks.shortened(reason.partition("\n")[0].rstrip("."), 300)
        raise ValueError(
            f"{path} holds a damaged {kind}: {reason}. Repeat the {kind} and save it again."
        ) from error
