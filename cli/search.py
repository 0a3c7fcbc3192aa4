"""`keras-lr search`: from orders of magnitude to the best rate, by training."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import operator
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .errors import BadInput, ending, one_line
from .functions import is_function
from .options import data_options, model_options, options, process_options
from .outputs import tell, write_all
from .signals import polite
from .startup import hidden
from .text import LABEL, can_draw, labelled, rate_text, table_box, table_text
from .workers import arguments, company, watch

if TYPE_CHECKING:
    from .inputs import InputOptions, Inputs

__all__ = ["search"]

NAMES = {"momentum": "momentum", "batch-size": "batch_size", "warmup": "warmup", "policy": "policy"}

sweep_options = options(
    click.option(
        "--low", metavar="RATE", type=float, help="Lowest rate; else a range test says where."
    ),
    click.option("--high", metavar="RATE", type=float, help="Highest rate."),
    click.option(
        "--fraction",
        metavar="X",
        type=float,
        help="Share of the data for the first round; a fifth, or 2000 rows.",
    ),
    click.option(
        "--epochs",
        metavar="N",
        type=int,
        default=3,
        show_default=True,
        help="Epochs of each run.",
    ),
    click.option(
        "--fine-rounds",
        metavar="N",
        type=int,
        default=2,
        show_default=True,
        help="Rounds after the first.",
    ),
    click.option(
        "--points",
        metavar="N",
        type=int,
        default=5,
        show_default=True,
        help="Rates of a fine round, odd.",
    ),
    click.option(
        "--repeats",
        metavar="N",
        type=int,
        default=3,
        show_default=True,
        help="Seeds of the last round.",
    ),
    click.option(
        "--also",
        metavar="NAME",
        multiple=True,
        help="Search this too; repeatable. See above.",
    ),
    click.option(
        "--objective",
        metavar="NAME",
        default="val_loss",
        show_default=True,
        help="Entry of the logs that counts.",
    ),
    click.option(
        "--mode",
        metavar="MODE",
        default="auto",
        show_default=True,
        help="min or max; auto asks the metric.",
    ),
    click.option(
        "--pruner",
        metavar="NAME",
        default="median",
        show_default=True,
        help="Ends poor runs: median, halving, none.",
    ),
    click.option(
        "--validation-split",
        metavar="X",
        type=float,
        default=0.2,
        show_default=True,
        help="Share to hold out without --validation.",
    ),
    click.option(
        "--seed",
        metavar="N",
        type=int,
        default=0,
        show_default=True,
        help="Chooses rows, and the first seed.",
    ),
    click.option("--timeout", metavar="S", type=float, help="Begin no run after so many seconds."),
)
record_options = options(
    click.option("--storage", metavar="WHERE", help="Record; MODEL.search.sqlite3. See above."),
    click.option("--study", metavar="NAME", help="Name of the record in it; MODEL's."),
    click.option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Go on with a study that exists.",
    ),
    click.option(
        "--workers",
        metavar="N",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Processes on this machine.",
    ),
    click.option(
        "--heartbeat",
        metavar="S",
        type=int,
        default=10,
        show_default=True,
        help="Seconds between signs of life.",
    ),
)
output_options = options(
    click.option("--plot", metavar="FILE", help="Write the picture: .png, .svg, .pdf."),
    click.option("--report", metavar="FILE", help="Write it all as one .html file."),
    click.option("--save", metavar="FILE", help="Write everything tried as JSON."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object and no more."),
    click.option("--quiet", is_flag=True, help="Print the rate and no more."),
)


@click.command(
    short_help="Search the best learning rate for MODEL by training.",
    epilog="Example: keras-lr search model.keras --data train.npz --report report.html",
)
@click.argument("model", metavar="MODEL")
@data_options
@sweep_options
@record_options
@model_options
@output_options
@process_options
def search(model: str, **given: Any) -> None:
    """Search the best learning rate for MODEL in rounds of short trainings.

    MODEL is a .keras or .h5 file, or module:function that returns a model;
    each run then trains a new one. Rates a decade apart on a part of the data
    come first, then finer steps around the best on more. A file is only read.

    SRC is as for keras-lr find.

    \b
    WHERE holds the record of the search, and lets it go on after an end:
      search.sqlite3                       a file, for one machine
      postgresql://user:word@host/name     for any number of machines
      mysql://user:word@host/name
      journal:search.log                   a file on a shared disk
    The same command typed on another machine joins the search.

    \b
    NAME is one of
      momentum  batch-size  warmup  policy
    or has the values to try: batch-size=32,64  policy=constant,one-cycle
    """
    from .quiet import short_warnings

    left = "Interrupted; the same command goes on from here. The model file was not touched."
    with (
        short_warnings(given["quiet"]),
        ending("The search could not finish.", given["traceback"], left),
    ):
        _search(model, **given)


def _search(
    spec: str,
    *,
    also: tuple[str, ...],
    storage: str | None,
    study: str | None,
    workers: int,
    plot: str | None,
    report: str | None,
    save: str | None,
    as_json: bool,
    quiet: bool,
    traceback: bool,  # of the command alone
    **given: Any,
) -> None:
    from .inputs import InputOptions, read_inputs
    from .quiet import stdout_to_stderr

    started = time.perf_counter()
    if importlib.util.find_spec("optuna") is None:
        raise BadInput(
            "A search needs Optuna, which is not installed. pip install 'keras-lr[search]'."
        )
    if report and not report.lower().endswith((".html", ".htm")):
        raise BadInput(f"--report {report} must end in .html.")
    dimensions = dict(_dimension(each) for each in also)
    asked = InputOptions.take(spec, given)
    stem = spec.replace(":", "_") if is_function(spec) else os.path.splitext(spec)[0]
    storage = storage or f"{stem}.search.sqlite3"
    study = study or os.path.basename(stem)
    sweep = {**given, "also": dimensions, "storage": storage, "study": study}
    with polite() as signals, stdout_to_stderr():
        watch(signals)
        inputs = read_inputs(asked, {"--plot": plot, "--report": report, "--save": save})
        with company(workers - 1, sweep, signals):
            signals.check()
            found = _run(inputs, sweep, quiet)
    words = arguments(without=("workers", "quiet", "as_json"))
    shown = [found.storage if word == storage else word for word in words]  # without a password
    found.settings["command"] = shlex.join(["keras-lr", *shown])

    def draw(path: str) -> None:
        from keras_lr.plotting import save_search_plot

        save_search_plot(found, path)

    files = {"save": (save, found.save), "plot": (plot, draw), "report": (report, found.report)}
    written, problem = write_all(files)
    gist = f"The learning rate is {found.learning_rate:.3g}."
    seconds = time.perf_counter() - started
    if as_json:
        tell(json.dumps({**found.to_dict(), "written": written}, allow_nan=False), gist)
    elif quiet:
        tell(f"{found.learning_rate:.3g}", gist)
        for warning in found.warnings:
            click.echo(f"Warning: {one_line(warning)}", err=True)
    else:
        tell(_text(found, written, seconds, can_draw()), gist)
    if problem:
        raise problem


def _run(inputs: Inputs, sweep: dict[str, Any], quiet: bool) -> Any:
    import keras_lr

    asked = inputs.options
    model = _maker(asked) if is_function(asked.spec) else inputs.model
    sweep.update(inputs.arguments(), verbose=0 if quiet else 1)
    # Keras looks for TensorFlow, which takes seconds, whenever it writes a config down.
    unused = [] if inputs.own_code or inputs.backend == "tensorflow" else ["tensorflow"]
    with inputs.telling(ImportError), hidden(*unused):
        return keras_lr.search(model, **sweep)


def _maker(asked: InputOptions) -> Callable[[], Any]:
    """Makes a model for each run; the record tells it by the code of the user's function."""
    module, _, path = asked.spec.partition(":")

    @functools.wraps(operator.attrgetter(path)(sys.modules[module]))
    def make() -> Any:
        return asked.load_model()[0]

    return make


def _dimension(text: str) -> tuple[str, list[Any] | None]:
    """A dimension, with the values to try if they were given."""
    name, equals, values = text.partition("=")
    name = name.strip().replace("_", "-")
    if name not in NAMES:
        raise BadInput(f"--also must be one of {', '.join(NAMES)}; got {name!r}.")
    if not equals:
        return NAMES[name], None
    kind = {"batch-size": int, "policy": str}.get(name, float)
    try:
        return NAMES[name], [kind(value.strip()) for value in values.split(",")]
    except ValueError as error:
        raise BadInput(
            f"--also {name} takes numbers with commas between them; got {values!r}."
        ) from error


# The answer


def _text(found: Any, written: dict[str, str], seconds: float, unicode: bool) -> str:
    """What a person reads, at most 80 columns wide."""
    answer = found.answer
    rate = click.style(rate_text(found.learning_rate), bold=True)
    interval = f"between {rate_text(found.low)} and {rate_text(found.high)}"
    lines = [f"{'Learning rate':<{LABEL}}{rate}   ({interval})"]
    beside = _beside(found)
    if beside:
        lines.append(labelled("With", beside))
    runs = len(next(s.outcomes for s in _scores(found) if s.setting == found.setting))
    spread = f" +- {answer.spread:.2g} over {runs} seeds" if runs > 1 else ""
    lines.append(labelled("Objective", f"{found.objective} {answer.mean:.4g}{spread}"))
    lines += [labelled("Warning", warning) for warning in found.warnings]
    count = len(found.outcomes)
    trained = sum(outcome.seconds for outcome in found.outcomes)
    cost = [
        labelled("It cost", f"{count} runs, {trained:.3g} s of training; {seconds:.3g} s now."),
        labelled("Record", f"{found.storage}, study {found.study}"),
    ]
    if written:
        cost.append(labelled("Wrote", ", ".join(written.values())))
    python = "In Python:\n" + textwrap.indent(found.python(), "  ")
    return "\n\n".join(["\n".join(lines), _table(found, unicode), "\n".join(cost), python])


def _scores(found: Any) -> list[Any]:
    return [s for each in found.rounds if each.name == found.answer.round for s in each.scores]


def _beside(found: Any) -> str:
    """What else the answer has, of what was searched for."""
    searched = found.settings["also"]
    words = {"batch_size": "batch size", "warmup": "warm-up"}
    return ", ".join(f"{words.get(name, name)} {getattr(found.setting, name)}" for name in searched)


def _table(found: Any, unicode: bool) -> str:
    from rich.table import Table
    from rich.text import Text

    searched = list(found.settings["also"])
    table = Table(**table_box(unicode))
    table.add_column("Round", no_wrap=True)
    table.add_column("Rate", justify="right", no_wrap=True)
    for name in searched:
        table.add_column({"batch_size": "batch", "warmup": "warm-up"}.get(name, name))
    table.add_column(Text(found.objective), justify="right", no_wrap=True)
    table.add_column("+-", justify="right", no_wrap=True)
    table.add_column("Runs", justify="right", no_wrap=True)
    table.add_column("")
    before = ""
    for row in found.rows():
        value = "-" if math.isnan(row["value"]) else f"{row['value']:.4g}"
        spread = "" if math.isnan(row["spread"]) else f"{row['spread']:.2g}"
        note = {
            "finished": "the answer" if row["best"] else "",
            "behind": f"behind, stopped in epoch {row['epochs']}",
            "diverged": "diverged",
        }[row["ended"]]
        table.add_row(
            row["round"] if row["round"] != before else "",
            f"{row['learning_rate']:.2g}",
            *(f"{row[name]}" for name in searched),
            value,
            spread,
            str(row["runs"]),
            note,
        )
        before = row["round"]
    return table_text(table)
