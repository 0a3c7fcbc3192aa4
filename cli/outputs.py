"""Output files and stdout: checked before the work begins, written after it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from .errors import BadInput, RunFailed, one_line

__all__ = ["check_outputs", "print_answer", "schema_of", "try_outputs", "write_all", "writing"]

PICTURES = ("png", "svg", "pdf", "jpg", "jpeg", "webp", "tif", "tiff", "eps", "ps", "svgz")


def schema_of(command: str) -> str:
    """The name and version of the schema of `--json`: the `$id` of `schemas/COMMAND.json`."""
    return f"urn:keras-lr:{command}:1"


def check_outputs(outputs: Mapping[str, str | None], inputs: Sequence[str] = ()) -> None:
    """Check that the output files can be written and do not overwrite an input.

    Args:
        outputs: The files by the options that name them; the one of `--plot` is a picture.
        inputs: The files that the command reads, and the folders whose sub-folders it reads.

    Raises:
        BadInput: If a file cannot be written, or would overwrite an input.
    """
    given = {option: path for option, path in outputs.items() if path}
    plot = given.get("--plot")
    if plot and plot.rpartition(".")[2].lower() not in PICTURES:
        raise BadInput(
            f"--plot {plot} must end in .{', .'.join(PICTURES[:3])} or another picture format."
        )
    named: dict[str, str] = {}
    for option, path in given.items():
        other = named.setdefault(os.path.realpath(path), option)
        if other != option:
            raise BadInput(f"{other} and {option} name the same file.")
    for option, path in given.items():
        folder = os.path.dirname(os.path.realpath(path))
        if any(_overwrites(path, each) for each in inputs):
            raise BadInput(f"{option} {path} would overwrite an input; name another file.")
        if os.path.isdir(path):
            raise BadInput(f"{option} {path} is a folder; name a file in it.")
        if not os.path.isdir(folder):
            raise BadInput(f"{option} {path}: the folder {folder} does not exist.")
        if not os.access(path if os.path.exists(path) else folder, os.W_OK):
            raise BadInput(f"{option} {path} cannot be written.")


def _overwrites(path: str, read: str) -> bool:
    """Whether writing `path` replaces a file that is read, or one in a sub-folder that is read."""
    if not (os.path.exists(path) and os.path.exists(read)):
        return False
    output, source = os.path.realpath(path), os.path.realpath(read)
    if not os.path.isdir(source):
        return output == source
    return os.path.dirname(output).startswith(os.path.join(source, ""))


def try_outputs(*paths: str | None) -> None:
    """Check that the files can be written by creating one beside each; None is skipped.

    Raises:
        BadInput: If one cannot be written.
    """
    from keras_lr._util.files import check_writable

    for path in filter(None, paths):
        try:
            check_writable(path)
        except OSError as error:
            raise BadInput(one_line(error)) from error


@contextmanager
def writing() -> Iterator[None]:
    """Turn an error of writing a result into one line."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"The result could not be written: {one_line(error)}") from error


def write_all(
    files: Mapping[str, tuple[str | None, Callable[[str], Any]]],
) -> tuple[dict[str, str], RunFailed | None]:
    """Write as many result files as possible, so that a full disk does not cost the answer.

    Args:
        files: By name, the path (None to skip it) and the function that writes to it.

    Returns:
        The paths that were written, by name; and the first error, to raise after the answer.
    """
    written: dict[str, str] = {}
    problem: RunFailed | None = None
    for name, (path, write) in files.items():
        if not path:
            continue
        try:
            with writing():
                write(path)
            written[name] = path
        except RunFailed as error:
            problem = problem or error
        except Exception as error:  # a name that Matplotlib reads as a formula
            reason = f"{type(error).__name__}: {one_line(error)}"
            problem = problem or RunFailed(f"{path} could not be written: {reason}")
    return written, problem


def print_answer(text: str, gist: str) -> None:
    """Print the answer of a long run.

    Args:
        gist: The answer in one sentence, for stderr if stdout cannot be written: a full disk.
    """
    try:
        click.echo(text)
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader has closed it, as in `keras-lr ... | head`
            raise
        reason = error.strerror or one_line(error)
        raise RunFailed(f"stdout could not be written ({reason}). {gist}") from error
