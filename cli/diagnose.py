"""`keras-lr diagnose`: find problems of a training run in its log."""

from __future__ import annotations

import json
from typing import Any

import click

from .errors import BadInput, ending, one_line, visible
from .text import width

__all__ = ["diagnose"]


@click.command(
    short_help="Diagnose a training run from its LOG.",
    epilog="Example: keras-lr diagnose training.csv --batch-size 256",
)
@click.argument("log", metavar="LOG")
@click.option("--batch-size", metavar="SIZES", help="Batch size, or sizes by epoch; see above.")
@click.option(
    "--restart",
    "restarts",
    type=int,
    multiple=True,
    metavar="EPOCH",
    help="Epoch at which the run was resumed; repeatable.",
)
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Planned number of epochs.")
@click.option(
    "--untrained-loss", type=float, metavar="X", help="Loss before training; ln(10) for 10 classes."
)
@click.option("--strict", is_flag=True, help="Exit with 1 on an error or a warning.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
@click.option("--quiet", is_flag=True, help="Print the names of the findings only.")
@click.option("--traceback", "show", is_flag=True, help="Show the traceback of an error.")
def diagnose(
    log: str,
    batch_size: str | None,
    restarts: tuple[int, ...],
    epochs: int | None,
    untrained_loss: float | None,
    strict: bool,
    as_json: bool,
    quiet: bool,
    show: bool,
) -> None:
    """Diagnose a training run from its LOG, with evidence and advice.

    \b
    LOG is one of
      training.csv   a file of CSVLogger
      history.json   History.history as JSON, or one JSON object per line
      logs/          a TensorBoard folder, which may hold train/ and validation/

    LOG is never written. SIZES is the batch size, such as 256, or a list of
    batch sizes with their first epochs, such as 0:32,10:256.
    """
    from .quiet import short_warnings

    with ending(f"Cannot diagnose {log}.", show, "Interrupted."), short_warnings(quiet):
        found = _diagnose(log, batch_size, restarts, epochs, untrained_loss)
    if as_json:
        click.echo(json.dumps(found.to_dict(), allow_nan=False))
    elif quiet:
        for name in found.names:
            click.echo(name)
    else:
        click.echo("\n".join(map(visible, found.to_text(width=width()).split("\n"))))
    if strict and any(finding.severity != "hint" for finding in found):
        click.get_current_context().exit(1)


def _diagnose(
    log: str,
    batch_size: str | None,
    restarts: tuple[int, ...],
    epochs: int | None,
    untrained_loss: float | None,
) -> Any:
    from .startup import start

    sizes = None if batch_size is None else _sizes(batch_size)
    start(prefer="numpy", cache=False)
    from keras_lr.diagnosis import diagnose

    try:
        return diagnose(
            log,
            batch_size=sizes,
            restarts=restarts,
            total_epochs=epochs,
            untrained_loss=untrained_loss,
        )
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        raise BadInput(one_line(error)) from error


def _sizes(text: str) -> int | dict[int, int]:
    """One batch size, or batch sizes by their first epochs."""
    try:
        if ":" not in text:
            return int(text)
        pairs = [part.split(":") for part in text.split(",")]
        return {int(epoch): int(size) for epoch, size in pairs}
    except ValueError as error:
        raise BadInput(
            f"--batch-size must be an integer, or a list such as 0:32,10:256; got {text!r}."
        ) from error
