"""`keras-lr diagnose`: find problems of a training run in its log."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from .errors import BadInput, ending, one_line, visible
from .text import width

__all__ = ["diagnose"]


@click.command(
    short_help="Diagnose training runs from their LOGs.",
    epilog="Example: keras-lr diagnose training.csv --batch-size 256",
)
@click.argument("logs", metavar="LOG...", nargs=-1, required=True)
@click.option("--loss", metavar="COL[+COL]", help="Column of the training loss; + adds columns.")
@click.option("--val-loss", metavar="COL[+COL]", help="Column of the validation loss.")
@click.option("--lr", "learning_rate", metavar="COL", help="Column of the learning rate.")
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
@click.option(
    "--ignore", multiple=True, metavar="RULE", help="Leave out the findings of a rule; repeatable."
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning"]),
    help="Exit with 1 on a finding of this severity or worse.",
)
@click.option("--strict", is_flag=True, help="The same as --fail-on warning.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per log only.")
@click.option("--quiet", is_flag=True, help="Print the names of the findings only.")
@click.option("--traceback", "show", is_flag=True, help="Show the traceback of an error.")
def diagnose(
    logs: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: str | None,
    strict: bool,
    as_json: bool,
    quiet: bool,
    show: bool,
    **options: Any,
) -> None:
    """Diagnose training runs from their LOGs, with evidence and advice.

    \b
    LOG is one of
      training.csv   a file of CSVLogger, Lightning or ultralytics, or a table
                     exported from Weights & Biases or MLflow
      history.json   History.history, a trainer_state.json of transformers,
                     or one JSON object per line, as mmengine writes them
      output.log     text whose lines name the epoch or step and the loss
      logs/          a TensorBoard folder, which may hold train/ and validation/,
                     or the folder of an MLflow run
      -              one of the files above, from standard input

    LOG is never written. Several LOGs give a line each, worst first. SIZES is
    the batch size, such as 256, or a list of batch sizes with their first
    epochs, such as 0:32,10:256.
    """
    from .quiet import short_warnings

    with ending(f"Cannot diagnose {logs[0]}.", show, "Interrupted."), short_warnings(quiet):
        found = _worst_first([_diagnose(log, ignore, options) for log in logs])
    if as_json:
        for each in found:
            click.echo(json.dumps(each.to_dict(), allow_nan=False))
    elif quiet:
        for each in found:
            for name in each.names:
                click.echo(f"{visible(each.source)}: {name}" if found[1:] else name)
    elif found[1:]:
        for each in found:
            click.echo(visible(_line(each)))
    else:
        click.echo("\n".join(map(visible, found[0].to_text(width=width()).split("\n"))))
    bad = ("error",) if fail_on == "error" and not strict else ("error", "warning")
    if (strict or fail_on) and any(each.verdict in bad for each in found):
        click.get_current_context().exit(1)


def _worst_first(found: list[Any]) -> list[Any]:
    from keras_lr.diagnosis.result import VERDICTS

    return sorted(found, key=lambda each: VERDICTS.index(each.verdict))


def _line(found: Any) -> str:
    """One run in one line: verdict, log, findings, best value."""
    best = ""
    if found.best is not None:
        best = f"; best {found.best_of} {found.best:.4g} in {found.unit} {found.best_at:g}"
    names = ", ".join(found.names)
    return f"{found.verdict:<10}  {found.source}: {names or 'no problems found'}{best}"


def _diagnose(log: str, ignore: tuple[str, ...], options: dict[str, Any]) -> Any:
    from .startup import start

    options = dict(options)
    sizes, epochs = options.pop("batch_size"), options.pop("epochs")
    sizes = None if sizes is None else _sizes(sizes)
    start(prefer="numpy", cache=False)
    from keras_lr.diagnosis import NAMES, diagnose

    for name in ignore:
        if name not in NAMES:
            raise BadInput(f"--ignore must be one of {', '.join(NAMES)}; got {name!r}.")
    try:
        content: Any = log
        if log == "-":
            from keras_lr.diagnosis.choose import Asked
            from keras_lr.diagnosis.readers import read_text

            names = (options["loss"], options["val_loss"], options["learning_rate"])
            content = read_text(sys.stdin.read(), "standard input", Asked(*names))
        return diagnose(content, batch_size=sizes, total_epochs=epochs, **options).without(ignore)
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
