"""Files that a command is asked to write, looked at before the work begins."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from .errors import BadInput, RunFailed, one_line

__all__ = ["check_outputs", "try_outputs", "writing"]

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


def try_outputs(*paths: str | None) -> None:
    """Make sure, by trying, that the files can be written; None is no file.

    Raises:
        BadInput: If one cannot.
    """
    from keras_lr._files import check_writable

    for path in filter(None, paths):
        try:
            check_writable(path)
        except OSError as error:
            raise BadInput(one_line(error)) from error


@contextmanager
def writing() -> Iterator[None]:
    """In the block results are written; what prevents it is told in one line."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"The result could not be written: {one_line(error)}") from error
