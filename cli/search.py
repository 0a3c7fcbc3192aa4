"""`keras-lr search`: find the best learning rate by training."""

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
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from .errors import BadInput, ending, one_line
from .functions import is_function
from .options import data_options, model_options, options, process_options
from .outputs import print_answer, schema_of, write_all
from .signals import StopRequest
from .startup import hidden
from .text import (
    LABEL,
    can_draw,
    fits,
    is_narrow,
    labelled,
    rate_text,
    table_box,
    table_text,
    width,
)
from .workers import arguments, end_with_parent, worker_processes

if TYPE_CHECKING:
    from .inputs import InputOptions, Inputs

__all__ = ["search"]

BEST_RUN = "the best tried"  # in the table
NAMES = {
    "momentum": "momentum",
    "beta-2": "beta_2",
    "batch-size": "batch_size",
    "weight-decay": "weight_decay",
    "warmup": "warmup",
    "policy": "policy",
}


def _option(name: str, metavar: str, about: str, default: Any = None, kind: Any = None) -> Any:
    return click.option(
        name,
        metavar=metavar,
        type=kind,
        default=default,
        show_default=default is not None,
        help=about,
    )


# Named as in `keras_lr.search`, with its defaults; a test compares them.
sweep_options = options(
    _option("--low", "RATE", "Lowest rate; by default from a range test.", kind=float),
    _option("--high", "RATE", "Highest rate; by default from a range test.", kind=float),
    _option(
        "--fraction",
        "X",
        "Share of the data for the first round; by default a fifth, or 2,000 rows.",
        kind=float,
    ),
    _option("--epochs", "N", "Epochs of each run.", 3),
    _option("--fine-rounds", "N", "Rounds after the first.", 2),
    _option("--points", "N", "Rates of a fine round, odd.", 5),
    _option("--final-seeds", "N", "Seeds of the last round.", 3),
    _option(
        "--max-runs",
        "N",
        "Most runs on all data; by default 8, and 12 more for each --also.",
        kind=int,
    ),
    click.option(
        "--also",
        metavar="NAME",
        multiple=True,
        default=("policy",),
        show_default=True,
        help="Search this too; repeatable. See above.",
    ),
    _option("--objective", "NAME", "Log entry to optimize.", "val_loss"),
    _option("--mode", "MODE", "min or max; auto uses the metric.", "auto"),
    _option("--pruner", "NAME", "Rule that stops poor runs: none, median, halving.", "none"),
    _option("--validation-split", "X", "Share held out if no --validation.", 0.2),
    _option("--seed", "N", "Seed of the held-out rows and of the first run.", 0),
    _option("--timeout", "S", "Seconds after which no run begins.", kind=float),
)
record_options = options(
    _option("--storage", "WHERE", "The record; by default MODEL.search.sqlite3."),
    _option("--study", "NAME", "Name of the record; by default MODEL's."),
    click.option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Continue a study that exists.",
    ),
    _option("--workers", "N", "Processes on this machine.", 1, click.IntRange(min=1)),
    _option("--heartbeat", "S", "Seconds between heartbeats of a process.", 10),
)
output_options = options(
    _option("--plot", "FILE", "Save the plot: .png, .svg, .pdf."),
    _option("--report", "FILE", "Save a report as one HTML file."),
    _option("--save", "FILE", "Save all results as JSON."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object only."),
    click.option("--quiet", is_flag=True, help="Print the rate only."),
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
    """Search the best policy and learning rate for MODEL by short trainings.

    MODEL is a .keras or .h5 file, which is not changed, or module:function
    that returns a model; then each run trains a new one. The search begins
    around the rate of a range test. The first round compares policies, three
    rates each, on a part of the data; later rounds try finer steps around the
    best rate on more data.

    SRC is as for keras-lr find.

    WHERE is the record of the search. With it, the same command resumes an
    interrupted search, and on another machine joins it. WHERE is one of

    \b
      search.sqlite3                     a file, for one machine
      postgresql://user:word@host/name   for any number of machines
      mysql://user:word@host/name        the same
      journal:search.log                 a file on a shared disk

    --also takes momentum, beta-2, batch-size, weight-decay, warmup or policy,
    with optional values to try, as in batch-size=32,64. --also none searches
    the learning rate alone, at about 40% of the cost.
    """
    from .quiet import short_warnings

    interrupted = (
        "Interrupted; the same command continues from here. The model file was not changed."
    )
    with (
        short_warnings(given["quiet"]),
        ending("The search failed.", given["traceback"], interrupted),
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
    traceback: bool,  # used by the command only
    **given: Any,
) -> None:
    from .inputs import InputOptions, read_inputs
    from .quiet import stdout_to_stderr

    started = time.perf_counter()
    if importlib.util.find_spec("optuna") is None:
        raise BadInput("A search needs Optuna, which is not installed. pip install optuna.")
    if report and not report.lower().endswith((".html", ".htm")):
        raise BadInput(f"--report {report} must end in .html.")
    dimensions = {} if also == ("none",) else dict(_dimension(each) for each in also)
    asked = InputOptions.take(spec, given)
    stem = spec.replace(":", "_") if is_function(spec) else os.path.splitext(spec)[0]
    storage = storage or f"{stem}.search.sqlite3"
    study = study or os.path.basename(stem)
    sweep = {**given, "also": dimensions, "storage": storage, "study": study}
    outputs = {"--plot": plot, "--report": report, "--save": save}
    _check_record(storage, outputs)
    stop = click.get_current_context().find_object(StopRequest)
    assert stop is not None  # noqa: S101  the group sets it
    with stdout_to_stderr():
        end_with_parent(stop)
        inputs = read_inputs(asked, outputs)
        with worker_processes(workers - 1, sweep, stop):
            stop.check()
            found = _run(inputs, sweep, quiet)
    words = arguments(without=("workers", "quiet", "as_json"))
    shown = [found.storage if word == storage else word for word in words]  # without the password
    found.provenance["file"] = os.path.basename(spec)
    found.settings["command"] = shlex.join(["keras-lr", *shown])

    def draw(path: str) -> None:
        from keras_lr.plotting import save_search_plot

        save_search_plot(found, path)

    files = {"save": (save, found.save), "plot": (plot, draw), "report": (report, found.report)}
    written, problem = write_all(files)
    gist = f"The learning rate is {found.learning_rate:.3g}."
    seconds = time.perf_counter() - started
    if as_json:
        content = {"schema": schema_of("search"), **found.to_dict(), "written": written}
        print_answer(json.dumps(content, allow_nan=False), gist)
    elif quiet:
        print_answer(f"{found.learning_rate:.3g}", gist)
        for warning in found.warnings:
            click.echo(f"Warning: {one_line(warning)}", err=True)
    else:
        print_answer(_text(found, written, seconds, can_draw()), gist)
    if problem:
        raise problem


def _check_record(storage: str, outputs: Mapping[str, str | None]) -> None:
    """Refuse an output file that is the record, which would be lost when the answer is written."""
    record = storage.removeprefix("journal:").removeprefix("sqlite:///")
    for option, path in outputs.items():
        if path and os.path.realpath(path) == os.path.realpath(record):
            raise BadInput(f"{option} {path} would overwrite the record; name another file.")


def _run(inputs: Inputs, sweep: dict[str, Any], quiet: bool) -> Any:
    import keras_lr

    asked = inputs.options
    model = _maker(asked) if is_function(asked.spec) else inputs.model
    sweep.update(inputs.arguments(), verbose=0 if quiet else 1)
    # Keras imports TensorFlow, which takes seconds, whenever it serializes a config.
    unused = [] if inputs.own_code or inputs.backend == "tensorflow" else ["tensorflow"]
    with inputs.command_errors(ImportError), hidden(*unused):
        return keras_lr.search(model, **sweep)


def _maker(asked: InputOptions) -> Callable[[], Any]:
    """A function that makes a model for each run; the record identifies it by the user's code."""
    module, _, path = asked.spec.partition(":")

    @functools.wraps(operator.attrgetter(path)(sys.modules[module]))
    def make() -> Any:
        return asked.load_model()[0]

    return make


def _dimension(text: str) -> tuple[str, list[Any] | None]:
    """A dimension and the given values to try."""
    name, equals, values = text.partition("=")
    name = name.strip().replace("_", "-")
    if name not in NAMES:
        raise BadInput(f"--also must be one of {', '.join(NAMES)}, or none alone; got {name!r}.")
    if not equals:
        return NAMES[name], None
    kind = {"batch-size": int, "policy": str}.get(name, float)
    try:
        return NAMES[name], [kind(value.strip()) for value in values.split(",")]
    except ValueError as error:
        raise BadInput(
            f"--also {name}= takes numbers separated by commas; got {values!r}."
        ) from error


# The answer


def _text(found: Any, written: dict[str, str], seconds: float, unicode: bool) -> str:
    """The answer for people, at most 80 columns wide."""
    from keras_lr.rate_search.words import (
        describe_regret,
        describe_sensitivity,
        describe_setting,
        varied_in,
    )

    answer = found.answer
    rate = click.style(rate_text(found.learning_rate), bold=True)
    interval = f"(between {rate_text(found.low)} and {rate_text(found.high)})"
    lines = [f"{'Learning rate':<{LABEL}}{rate}   {interval}"]
    if len(click.unstyle(lines[0])) > width():
        lines = [f"{'Learning rate':<{LABEL}}{rate}", labelled("", interval)]
    beside = describe_setting(found.setting, varied_in(found))
    if beside:
        lines.append(labelled("With", beside))
    runs = len(next(s.outcomes for s in _scores(found) if s.setting == answer.tried))
    spread = f" +- {answer.spread:.2g} over {runs} seeds" if runs > 1 else ""
    lines.append(labelled("Objective", f"{found.objective} {answer.mean:.4g}{spread}"))
    if answer.setting.learning_rate != answer.tried.learning_rate:
        tried = rate_text(answer.tried.learning_rate)
        tested = " and the range test" if (found.range_test or {}).get("suggestion") else ""
        fitted = f"A parabola through the runs{tested}; of the runs, {tried} was the best."
        lines.append(labelled("Fit", fitted))
    for name, said in {
        "Interval": describe_regret(answer),
        "Sensitivity": describe_sensitivity(answer),
    }.items():
        if said:
            lines.append(labelled(name, said))
    lines += [labelled("Warning", warning) for warning in found.warnings]
    count = len(found.outcomes)
    trained = sum(outcome.seconds for outcome in found.outcomes)
    cost = [
        labelled(
            "Cost", f"{count} runs, {trained:.3g} s of training; this command took {seconds:.3g} s."
        ),
        labelled("Record", f"{found.storage}, study {found.study}"),
    ]
    if written:
        cost.append(labelled("Saved", ", ".join(written.values())))
    python = "In Python:\n" + textwrap.indent(found.python(), "  ")
    return "\n\n".join(["\n".join(lines), _table(found, unicode), "\n".join(cost), python])


def _scores(found: Any) -> list[Any]:
    return [s for each in found.rounds if each.name == found.answer.round for s in each.scores]


def _table(found: Any, unicode: bool) -> str:
    from keras_lr.rate_search.words import varied_in

    fields = varied_in(found)
    wide = _columns(found, unicode, fields)
    return table_text(wide if fits(wide) else _columns(found, unicode, fields, beside=True))


def _columns(found: Any, unicode: bool, fields: list[str], beside: bool = False) -> Any:
    """The table of all settings, with a column for each field, or all of them in one column."""
    from rich.table import Table
    from rich.text import Text

    from keras_lr.rate_search.words import ENDINGS, name_of, value_of

    rows = found.rows()
    table = Table(**table_box(unicode))
    table.add_column("Round", no_wrap=True)
    table.add_column("Rate", justify="right", no_wrap=True)
    for name in fields if not beside else ():
        longest = max(len(value_of(name, row[name])) for row in rows)
        table.add_column(name_of(name).capitalize(), min_width=longest)
    table.add_column(Text(found.objective), justify="right", no_wrap=not beside, overflow="fold")
    spreads = not is_narrow() and len(fields) <= 2
    if spreads:
        table.add_column("+-", justify="right", no_wrap=True)
        table.add_column("Runs", justify="right", no_wrap=True)
    table.add_column("Setting" if beside and fields else "", overflow="fold")
    best = "best" if is_narrow() else BEST_RUN
    before = ""
    for row in rows:
        value = "-" if math.isnan(row["value"]) else f"{row['value']:.4g}"
        spread = "" if math.isnan(row["spread"]) else f"{row['spread']:.2g}"
        note = "" if row["ended"] == "finished" else ENDINGS[row["ended"]]
        values = [value_of(name, row[name]) for name in fields]
        said = [best if row["best"] else note]
        table.add_row(
            name_of(row["round"]) if row["round"] != before else "",
            f"{row['learning_rate']:.2g}",
            *(values if not beside else ()),
            value,
            *((spread, str(row["runs"])) if spreads else ()),
            ", ".join(each for each in (values if beside else []) + said if each),
        )
        before = row["round"]
    return table
