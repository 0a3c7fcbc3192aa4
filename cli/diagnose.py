"""`keras-lr diagnose`: find problems of a training run in its log."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

import click

from .diagnose_runs import compared, logs_in, runs_of
from .errors import BadInput, ending, one_line, visible
from .outputs import check_outputs, schema_of, try_outputs, writing
from .text import can_draw, width

__all__ = ["diagnose"]


@click.command(
    short_help="Diagnose training runs from their LOGs.",
    epilog="Example: keras-lr diagnose training.csv --batch-size 256",
)
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=click.Path(allow_dash=True))
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
@click.option("--draw", is_flag=True, help="Also print a plot of the losses.")
@click.option("--plot", metavar="FILE", help="Save the plot of one LOG: .png, .svg, .pdf.")
@click.option("--report", metavar="FILE", help="Save a report on all LOGs as one HTML file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per log only.")
@click.option("--quiet", is_flag=True, help="Print the names of the findings only.")
@click.option("--traceback", "show", is_flag=True, help="Show the traceback of an error.")
def diagnose(
    logs: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: str | None,
    strict: bool,
    draw: bool,
    plot: str | None,
    report: str | None,
    as_json: bool,
    quiet: bool,
    show: bool,
    **options: Any,
) -> None:
    """Diagnose training runs from their LOGs, with evidence and advice.

    \b
    LOG is one of
      training.csv   a table of CSVLogger, Lightning, ultralytics, Weights & Biases or MLflow
      history.json   History.history, trainer_state.json of transformers, or JSON lines of mmengine
      output.log     text whose lines name the epoch or step and the loss
      logs/          a folder of TensorBoard, or of an MLflow run
      -              one of the files above, from standard input

    LOG is never written. A folder of logs stands for all of them. Several LOGs
    print a line for each run, worst first, with the settings that differ.
    SIZES is the batch size, such as 256, or a list of batch sizes with their
    first epochs, such as 0:32,10:256.
    """
    from .quiet import short_warnings

    with ending(f"Cannot diagnose {logs[0]}.", show, "Interrupted."), short_warnings(quiet):
        read = [log for log, _ in _logs(logs) if not os.path.isdir(log)]
        check_outputs({"--plot": plot, "--report": report}, read)
        found = _diagnose_all(logs, ignore, options)
        _write(found, plot, report)
        runs = runs_of(found)
        from keras_lr.diagnosis.result import VERDICTS
    if as_json:
        for each in sorted(found, key=lambda each: VERDICTS.index(each.verdict)):
            click.echo(
                json.dumps({"schema": schema_of("diagnose"), **each.to_dict()}, allow_nan=False)
            )
    elif quiet:
        for name, run in runs:
            for finding in run.names:
                click.echo(f"{visible(name)}: {finding}" if runs[1:] else finding)
    elif found[1:]:
        for line in compared(runs):
            click.echo(visible(line))
    else:
        if draw:
            from keras_lr.plotting.diagnosis import draw_diagnosis

            click.echo(
                "\n".join([*draw_diagnosis(found[0], width=width(), unicode=can_draw()), ""])
            )
        click.echo("\n".join(map(visible, found[0].to_text(width=width()).split("\n"))))
    bad = ("error",) if fail_on == "error" and not strict else ("error", "warning")
    if (strict or fail_on) and any(each.verdict in bad for each in found):
        click.get_current_context().exit(1)


def _write(found: list[Any], plot: str | None, report: str | None) -> None:
    """Save the picture and the report."""
    if plot and found[1:]:
        raise BadInput(f"--plot draws one log; got {len(found)}. Pass --report for several.")
    try_outputs(plot, report)
    if plot:
        from keras_lr.plotting import save_diagnosis_plot

        with writing():
            save_diagnosis_plot(found[0], plot)
    if report:
        from keras_lr._util.files import atomic_write
        from keras_lr.diagnosis.report import page

        with writing():
            atomic_write(report, page(found))


def _logs(named: tuple[str, ...]) -> list[tuple[str, bool]]:
    """The logs to diagnose, and whether each was found in a folder rather than named."""
    logs: list[tuple[str, bool]] = []
    for name in named:
        inside = logs_in(name) if os.path.isdir(name) else []
        if os.path.isdir(name) and not inside:
            raise BadInput(
                f"{name} contains no log: no .csv, .tsv, .json, .jsonl or .log file, and no run of "
                "TensorBoard or MLflow."
            )
        if not inside or inside == [name]:
            logs.append((name, False))
        else:
            logs += [(path, True) for path in inside]
    return logs


def _diagnose_all(
    named: tuple[str, ...], ignore: tuple[str, ...], options: dict[str, Any]
) -> list[Any]:
    """A diagnosis of each log; a file in a folder that is not a log is named on stderr."""
    from .startup import start

    options = dict(options)
    sizes = options.pop("batch_size")
    options["batch_size"] = None if sizes is None else _sizes(sizes)
    options["total_epochs"] = options.pop("epochs")
    start(prefer="numpy", cache=False)
    from keras_lr.diagnosis import NAMES

    for name in ignore:
        if name not in NAMES:
            raise BadInput(f"--ignore must be one of {', '.join(NAMES)}; got {name!r}.")
    found: list[Any] = []
    skipped: list[str] = []
    for log, inside in _logs(named):
        try:
            found.append(_diagnose(log, ignore, options))
        except BadInput as error:
            if not inside:
                raise
            skipped.append(error.message)
    if not found:
        raise BadInput(f"{', '.join(named)} contains no log that can be read: {skipped[0]}")
    for reason in skipped:
        click.echo(f"Skipped: {reason}", err=True)
    return found


def _diagnose(log: str, ignore: tuple[str, ...], options: dict[str, Any]) -> Any:
    from keras_lr.diagnosis import diagnose

    try:
        content: Any = log
        if log == "-":
            from keras_lr.diagnosis.choose import Asked
            from keras_lr.diagnosis.files import text_of_bytes
            from keras_lr.diagnosis.readers import read_text

            text = text_of_bytes(sys.stdin.buffer.read(), "standard input")
            names = (options["loss"], options["val_loss"], options["learning_rate"])
            content = read_text(text, "standard input", Asked(*names))
        return diagnose(content, **options).without(ignore)
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        text = one_line(error)
        for argument, option in {"restarts": "--restart", "total_epochs": "--epochs"}.items():
            text = re.sub(rf"^{argument}(?= must)", option, text)
        raise BadInput(text) from error


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
