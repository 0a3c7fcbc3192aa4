"""Files that a command is asked to write, looked at before the work begins."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from .errors import BadInput, RunFailed, one_line

__all__ = ["check_outputs", "tell", "try_outputs", "write_all", "writing"]

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
    from keras_lr._util.files import check_writable

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


def write_all(
    files: Mapping[str, tuple[str | None, Callable[[str], Any]]],
) -> tuple[dict[str, str], RunFailed | None]:
    """Write the results of a run, as many as can be.

    A disk that fills up during the run is no reason to lose the other files, or the answer.

    Args:
        files: Paths, None for a file that nobody wants, with what writes to them, by name.

    Returns:
        The files that were written, by name; and what to end the command with after its answer.
    """
    written: dict[str, str] = {}
    problem = None
    for name, (path, write) in files.items():
        if not path:
            continue
        try:
            with writing():
                write(path)
            written[name] = path
        except RunFailed as error:
            problem = problem or error
        except Exception as error:  # a name that Matplotlib takes for a formula
            told = f"{type(error).__name__}: {one_line(error)}"
            problem = problem or RunFailed(f"{path} could not be written: {told}")
    return written, problem


def tell(text: str, gist: str) -> None:
    """Print the answer of a run that took long.

    Args:
        gist: The answer in a sentence, for stderr where stdout takes no more: a full disk.
    """
    try:
        click.echo(text)
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader has gone, as in `keras-lr ... | head`
            raise
        reason = error.strerror or one_line(error)
        raise RunFailed(f"stdout could not be written ({reason}). {gist}") from error
