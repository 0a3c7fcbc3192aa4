"""`keras-lr find`: a range test on a saved model."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import click

from .errors import BadInput, Interrupted, RunFailed, one_line
from .functions import is_function
from .outputs import check_outputs, try_outputs, writing
from .report import RULES

__all__ = ["find"]

METHODS = ("auto", "curve", *RULES)


def options(*groups: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Apply option decorators in the order in which help shows them."""

    def decorate(function: Any) -> Any:
        for option in reversed(groups):
            function = option(function)
        return function

    return decorate


data_options = options(
    click.option("--data", metavar="SRC", help="Training data; by default MODEL's .npz."),
    click.option("--target", metavar="COL", help="Column of a table to predict."),
    click.option("--validation", metavar="SRC", help="Held-out data, measured along the way."),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Examples a batch; usually 32.",
    ),
    click.option(
        "--shuffle/--no-shuffle", default=True, help="Order of the data.", show_default=True
    ),
)
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
        help="How the rate climbs.",
    ),
    click.option(
        "--repeats",
        metavar="N",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Ramps, each with other batches.",
    ),
    click.option(
        "--stop-factor",
        metavar="X",
        type=click.FloatRange(min=1, min_open=True),
        default=4.0,
        show_default=True,
        help="How far the loss may rise; inf never stops.",
    ),
    click.option(
        "--confirm/--no-confirm",
        default=False,
        show_default=True,
        help="Try the best rates in short runs.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), metavar="N", help="Makes the test repeatable."
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
model_options = options(
    click.option("--optimizer", metavar="NAME", help="Compile with this optimizer."),
    click.option("--loss", metavar="NAME", help="Compile with this loss."),
    click.option("--metric", metavar="NAME", multiple=True, help="Compile with it; repeatable."),
    click.option("--multipliers", metavar="FILE", help="JSON with a multiplier for each layer."),
    click.option("--trust", is_flag=True, help="Run the code that MODEL carries (Lambda)."),
)
output_options = options(
    click.option("--plot", metavar="FILE", help="Write the picture: .png, .svg, .pdf."),
    click.option("--save", metavar="FILE", help="Write the curve as JSON."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object and no more."),
    click.option("--quiet", is_flag=True, help="Print the rate and no more."),
)
process_options = options(
    click.option("--backend", metavar="NAME", help="tensorflow, jax or torch."),
    click.option(
        "--cache/--no-cache",
        default=True,
        show_default=True,
        help="Keep programs that JAX compiled.",
    ),
    click.option("--traceback", is_flag=True, help="Show the traceback of an error."),
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
@process_options
def find(model: str, **given: Any) -> None:
    """Suggest a learning rate for MODEL from a short run with rising rates.

    MODEL is a .keras or .h5 file, or module:function that returns a model. It
    is only read.

    \b
    SRC is one of
      train.npz           arrays x and y, or x_train and y_train
      x.npy,y.npy         two arrays, with a comma between the files
      train.csv           or .parquet, with --target COL
      folder/             one sub-folder a class, of images or of .txt files
      module:function     returns (x, y) or any data set that fit takes
    """
    from .quiet import short_warnings

    try:
        with short_warnings(given["quiet"]):
            code = _find(model, **given)
    except (Exception, KeyboardInterrupt) as error:
        if given["traceback"]:
            click.echo("".join(traceback.format_exception(error)), err=True)
        if isinstance(error, click.ClickException):
            raise
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted from error
        text = f"{type(error).__name__}: {one_line(error)}"
        raise RunFailed(f"The test could not finish. {text}") from error
    if code:
        click.get_current_context().exit(code)


def _find(
    spec: str,
    *,
    data: str | None,
    target: str | None,
    validation: str | None,
    batch_size: int | None,
    method: str,
    optimizer: str | None,
    loss: str | None,
    metric: tuple[str, ...],
    multipliers: str | None,
    trust: bool,
    plot: str | None,
    save: str | None,
    as_json: bool,
    quiet: bool,
    backend: str | None,
    cache: bool,
    traceback: bool,  # of the command alone
    **ramp: Any,
) -> int:
    from . import data as sources
    from .models import check_model_file, load_model
    from .multipliers import put_multipliers, read_multipliers
    from .quiet import stdout_to_stderr
    from .startup import start

    started = time.perf_counter()
    if ramp["start_lr"] >= ramp["end_lr"]:
        raise BadInput(
            f"--start-lr must be below --end-lr; got {ramp['start_lr']:g} and {ramp['end_lr']:g}."
        )
    check_model_file(spec)
    data = data or sources.source_beside(spec)
    for source, option in ((data, "--data"), (validation, "--validation")):
        if source:
            sources.check_source(source, option, target)
    inputs = [spec, *(source for source in (data, validation) if source)]
    check_outputs(
        {"--plot": plot, "--save": save}, [*inputs, *([multipliers] if multipliers else [])]
    )
    factors = {} if multipliers is None else read_multipliers(multipliers)
    own_code = any(is_function(each) for each in inputs)
    with stdout_to_stderr():
        backend = start(backend, cache=cache, lean=not own_code)
        model = load_model(
            spec, trust=trust, optimizer=optimizer, loss=loss, metrics=metric, lean=not own_code
        )
        keyed = {} if multipliers is None else put_multipliers(model, factors, multipliers)
        from .checks import check_data, describe_inputs

        try_outputs(plot, save)
        if not data:
            beside = os.path.splitext(spec)[0] + ".npz"
            raise BadInput(
                f"No --data was given and there is no {beside}; the model wants "
                f"{describe_inputs(model)}."
            )
        given = sources.load_data(data, model, batch_size=batch_size, target=target)
        check_data(given, model, data)
        held_out = None
        if validation:
            held_out = sources.load_data(
                validation, model, batch_size=batch_size, target=target, validation=True
            )
            check_data(held_out, model, validation)
        test = _run(model, given, held_out, batch_size, quiet or as_json, ramp)
    warnings.simplefilter("ignore")  # the answer shows its own; undone with `short_warnings`
    outcome = _judge(test, method)
    outcome.update(model_spec=spec, data_spec=data, backend=backend)
    outcome["optimizer"] = type(model.optimizer).__name__
    if multipliers:
        outcome["multipliers"] = test.provenance["multipliers"] = factors
        outcome["multipliers_spec"] = multipliers
    return _answer(outcome, model, optimizer, keyed, plot, save, as_json, quiet, method, started)


def _run(
    model: Any,
    given: Any,
    held_out: Any,
    batch_size: int | None,
    silent: bool,
    ramp: dict[str, Any],
) -> Any:
    import keras_lr

    if ramp["stop_factor"] == float("inf"):
        ramp["stop_factor"] = None
    if given.is_arrays:
        ramp["batch_size"] = batch_size
        ramp["sample_weight"] = given.sample_weight
    if held_out is not None:
        parts = (held_out.x, held_out.y, held_out.sample_weight)
        keep = 3 if held_out.sample_weight is not None else 2
        ramp["validation_data"] = parts[:keep] if held_out.is_arrays else held_out.x
    try:
        return keras_lr.lr_find(model, given.x, given.y, verbose=0 if silent else "auto", **ramp)
    except click.ClickException:
        raise
    except Exception as error:
        if getattr(given.x, "problem", None) is not None:
            raise given.x.problem from error
        if isinstance(error, keras_lr.NoSuggestion):
            raise RunFailed(one_line(error)) from error
        if isinstance(error, (ValueError, TypeError)):
            raise BadInput(one_line(error)) from error
        raise


def _judge(test: Any, method: str) -> dict[str, Any]:
    """Every rule's answer; those that have none say why."""
    import keras_lr

    found, refusal, bounds = None, "", None
    rules: dict[str, Any] = {}
    for name in dict.fromkeys(["auto", method, *RULES]):
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
    model: Any,
    optimizer: str | None,
    multipliers: dict[Any, float],
    plot: str | None,
    save: str | None,
    as_json: bool,
    quiet: bool,
    method: str,
    started: float,
) -> int:
    from . import report
    from .multipliers import in_python

    test, found = outcome["test"], outcome["suggestion"]
    written: dict[str, str] = {}
    with writing():
        if save:
            test.save(save)
            written["save"] = save
        if plot:
            from keras_lr.plotting import save_range_test_plot

            save_range_test_plot(test, plot, method=method)
            written["plot"] = plot
    paste = ""
    if found and multipliers:
        paste = in_python(model, multipliers, float(f"{found.learning_rate:.3g}"))
    elif found:
        paste = report.paste_line(model, found.learning_rate, optimizer)
    result = report.Outcome(
        **outcome, paste=paste, seconds=time.perf_counter() - started, written=written
    )
    if as_json:
        click.echo(report.to_json(result))
    elif quiet:
        if found:
            click.echo(f"{found.learning_rate:.3g}")
            for warning in found.warnings:
                click.echo(f"Warning: {one_line(warning)}", err=True)
    else:
        click.echo(report.to_text(result, method=method, unicode=report.can_draw()))
    if found:
        return 0
    click.echo(f"Error: No learning rate can be suggested. {result.refusal}", err=True)
    return 1
