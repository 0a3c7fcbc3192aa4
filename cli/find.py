"""`keras-lr find`: a range test on a saved model."""

from __future__ import annotations

import contextlib
import time
import warnings
from typing import TYPE_CHECKING, Any

import click

from .distribution import STRATEGIES
from .errors import BadInput, ending, one_line
from .options import data_options, model_options, options, process_options
from .outputs import print_answer, write_all
from .report import RULES
from .text import can_draw

if TYPE_CHECKING:
    from .inputs import Inputs

__all__ = ["find"]

METHODS = ("auto", "curve", *RULES)


ramp_options = options(
    click.option(
        "--start-lr",
        metavar="RATE",
        type=click.FloatRange(min=0, min_open=True),
        default=1e-7,
        show_default=True,
        help="Rate of the first step.",
    ),
    click.option(
        "--end-lr",
        metavar="RATE",
        type=click.FloatRange(min=0, min_open=True),
        default=10.0,
        show_default=True,
        help="Rate of the last step.",
    ),
    click.option(
        "--steps",
        metavar="N",
        type=click.IntRange(min=3),
        default=100,
        show_default=True,
        help="Training steps of the ramp.",
    ),
    click.option(
        "--ramp",
        type=click.Choice(["exponential", "linear"]),
        default="exponential",
        show_default=True,
        help="How the rate rises.",
    ),
    click.option(
        "--repeats",
        metavar="N",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Ramps to run, each on other batches.",
    ),
    click.option(
        "--stop-factor",
        metavar="X",
        type=click.FloatRange(min=1, min_open=True),
        default=4.0,
        show_default=True,
        help="How far the loss may rise; inf: no stop.",
    ),
    click.option(
        "--optimizer-name",
        metavar="NAME",
        help="Optimizer of MODEL to test, if it holds several: d_optimizer.",
    ),
    click.option(
        "--monitor",
        metavar="NAME",
        default="loss",
        show_default=True,
        help="Entry of the logs that is the loss.",
    ),
    click.option(
        "--confirm/--no-confirm",
        default=False,
        show_default=True,
        help="Compare rates in short runs too.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), metavar="N", help="Make the test repeatable."
    ),
    click.option(
        "--method",
        type=click.Choice(METHODS),
        metavar="RULE",
        default="auto",
        show_default=True,
        help=f"Rule that suggests: {', '.join(METHODS)}.",
    ),
)
device_options = options(
    click.option(
        "--distribute",
        metavar="HOW",
        type=click.Choice(list(STRATEGIES)),
        help="Use all devices: mirrored (TensorFlow) or data-parallel (JAX). They share "
        "each batch; --batch-size counts the examples of all devices.",
    ),
)
output_options = options(
    click.option("--plot", metavar="FILE", help="Save the picture: .png, .svg, .pdf."),
    click.option("--save", metavar="FILE", help="Save the curve as JSON."),
    click.option("--compare", is_flag=True, help="Show the rules of other libraries too."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object only."),
    click.option("--quiet", is_flag=True, help="Print the rate only."),
)


@click.command(
    short_help="Suggest a learning rate for MODEL.",
    epilog="Example: keras-lr find model.keras --data train.npz --plot range_test.png",
)
@click.argument("model", metavar="MODEL")
@data_options
@ramp_options
@model_options
@output_options
@device_options
@process_options
def find(model: str, **given: Any) -> None:
    """Suggest a learning rate for MODEL from a short run with rising rates.

    MODEL is a .keras or .h5 file, or module:function that returns a model. The
    file is only read.

    \b
    SRC is one of
      train.npz           arrays x and y, or x_train and y_train
      x.npy,y.npy         two arrays, with a comma between the files
      train.csv           .tsv or .parquet, with --target COL
      folder/             a sub-folder for each class, of images or .txt files
      module:function     returns (x, y) or any data set that fit takes
    """
    from .quiet import short_warnings

    with (
        short_warnings(given["quiet"]),
        ending("The test could not finish.", given["traceback"]),
    ):
        code = _find(model, **given)
    if code:
        click.get_current_context().exit(code)


def _find(
    spec: str,
    *,
    method: str,
    plot: str | None,
    save: str | None,
    compare: bool,
    as_json: bool,
    quiet: bool,
    traceback: bool,  # read by `find`
    **given: Any,
) -> int:
    from .inputs import InputOptions, read_inputs
    from .quiet import stdout_to_stderr

    started = time.perf_counter()
    if given["start_lr"] >= given["end_lr"]:
        raise BadInput(
            f"--start-lr must be below --end-lr; got {given['start_lr']:g} and {given['end_lr']:g}."
        )
    asked = InputOptions.take(spec, given)
    with stdout_to_stderr():
        inputs = read_inputs(asked, {"--plot": plot, "--save": save}, given["seed"])
        name = given["optimizer_name"]
        test = _run(inputs, quiet or as_json, given)
    warnings.simplefilter("ignore")  # the answer shows them; undone by `short_warnings`
    rules = ["auto", method, *RULES] if compare or as_json else [method]
    outcome = _judge(test, method, rules)
    outcome.update(model_spec=spec, data_spec=inputs.data_spec, backend=inputs.backend)
    outcome["classes"] = inputs.given.classes
    used = type(getattr(inputs.model, "optimizer", None)).__name__
    outcome["optimizer"] = test.provenance.get("optimizer", used)
    if asked.multipliers:
        outcome["multipliers"] = test.provenance["multipliers"] = asked.factors
        outcome["multipliers_spec"] = asked.multipliers
    return _answer(outcome, inputs, name, plot, save, compare, as_json, quiet, method, started)


def _run(inputs: Inputs, silent: bool, ramp: dict[str, Any]) -> Any:
    import keras_lr

    if ramp["stop_factor"] == float("inf"):
        ramp["stop_factor"] = None
    ramp["optimizer"] = ramp.pop("optimizer_name")
    ramp.update(inputs.arguments(), verbose=0 if silent else "auto")
    with inputs.command_errors():
        return keras_lr.lr_find(inputs.model, **ramp)


def _judge(test: Any, method: str, names: list[str]) -> dict[str, Any]:
    """The answers of these rules, or the reason for none."""
    import keras_lr

    found, refusal, bounds = None, "", None
    rules: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        try:
            rules[name] = test.suggest(name)
        except keras_lr.NoSuggestion as error:
            rules[name] = one_line(error)
    if isinstance(rules[method], str):
        refusal = rules[method]
    else:
        found = rules[method]
    with contextlib.suppress(keras_lr.NoSuggestion):
        bounds = test.bounds()
    return {"test": test, "suggestion": found, "refusal": refusal, "bounds": bounds, "rules": rules}


def _answer(
    outcome: dict[str, Any],
    inputs: Inputs,
    name: str | None,
    plot: str | None,
    save: str | None,
    compare: bool,
    as_json: bool,
    quiet: bool,
    method: str,
    started: float,
) -> int:
    from . import report
    from .multipliers import in_python

    test, found = outcome["test"], outcome["suggestion"]

    def draw(path: str) -> None:
        from keras_lr.plotting import save_range_test_plot

        save_range_test_plot(test, path, method=method)

    written, problem = write_all({"save": (save, test.save), "plot": (plot, draw)})
    paste = ""
    if found and inputs.multipliers and (name or "optimizer") == "optimizer":
        rate = float(f"{found.learning_rate:.3g}")
        paste = in_python(inputs.model, inputs.multipliers, rate)
    elif found:
        paste = found.python(inputs.model, name, compiled=not inputs.options.optimizer)
    result = report.Outcome(
        **outcome, paste=paste, seconds=time.perf_counter() - started, written=written
    )
    gist = f"No learning rate can be suggested. {result.refusal}"
    if found:
        gist = f"The learning rate is {found.learning_rate:.3g}."
    if as_json:
        print_answer(report.to_json(result), gist)
    elif quiet:
        if found:
            print_answer(f"{found.learning_rate:.3g}", gist)
            for warning in found.warnings:
                click.echo(f"Warning: {one_line(warning)}", err=True)
    else:
        print_answer(
            report.to_text(result, method=method, compare=compare, unicode=can_draw()), gist
        )
    if not found:
        click.echo(f"Error: {gist}", err=True)
    if problem:
        raise problem
    return 0 if found else 1
