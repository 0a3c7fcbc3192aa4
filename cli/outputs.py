"""Files that a command is asked to write, looked at before the work begins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from .errors import BadInput

__all__ = ["check_outputs"]

PICTURES = ("png", "svg", "pdf", "jpg", "jpeg", "webp", "tif", "tiff", "eps", "ps", "svgz")


def check_outputs(outputs: Mapping[str, str | None], inputs: Sequence[str] = ()) -> None:
    """Can the results be written, and would they overwrite what is read?

    Args:
        outputs: The files by the options that name them; that of `--plot` is a picture.
        inputs: What the command reads.

    Raises:
        BadInput: If one cannot be written, or must not be.
    """
    given = {option: path for option, path in outputs.items() if path}
    plot = given.get("--plot")
    if plot and plot.rpartition(".")[2].lower() not in PICTURES:
        raise BadInput(
            f"--plot {plot} must end in one of .{', .'.join(PICTURES[:3])} and the like."
        )
    if len({os.path.realpath(path) for path in given.values()}) < len(given):
        raise BadInput(f"{' and '.join(given)} name the same file.")
    for option, path in given.items():
        folder = os.path.dirname(os.path.realpath(path))
        if any(
            os.path.exists(each) and os.path.realpath(each) == os.path.realpath(path)
            for each in inputs
        ):
            raise BadInput(f"{option} {path} would overwrite what is read; name another file.")
        if os.path.isdir(path):
            raise BadInput(f"{option} {path} is a folder; name a file in it.")
        if not os.path.isdir(folder):
            raise BadInput(f"{option} {path}: the folder {folder} does not exist.")
        if not os.access(path if os.path.exists(path) else folder, os.W_OK):
            raise BadInput(f"{option} {path} cannot be written.")
