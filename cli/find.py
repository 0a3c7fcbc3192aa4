"""`keras-lr find`: a range test on a saved model."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .errors import BadInput, RunFailed, ending, one_line
from .find_options import device_options, output_options, ramp_options, run_options
from .options import data_options, model_options, process_options
from .outputs import print_answer, write_all
from .report import RULES
from .text import can_draw

if TYPE_CHECKING:
    from .inputs import Inputs
    from .report import Outcome

__all__ = ["find"]


@click.command(
    short_help="Suggest a learning rate for MODEL.",
    epilog="Example: keras-lr find model.keras --policy one-cycle --epochs 20",
)
@click.argument("model", metavar="MODEL")
@data_options
@run_options
@ramp_options
@model_options
@output_options
@device_options
@process_options
def find(model: str, **given: Any) -> None:
    """Suggest a learning rate for MODEL, for the run that you plan.

    It trains MODEL briefly, with rising rates and then at a few constant rates
    that are compared on held-out data.

    MODEL is a .keras or .h5 file, or module:function that returns a model. The
    file is only read.

    \b
    SRC is one of
      train.npz           arrays x and y, or one for each named input and y
      x.npy,y.npy         two arrays, with a comma between the files
      train.csv           a table, also .tsv or .parquet, with --target COL
      folder/             a subfolder for each class, of images or .txt files
      saved/              the folder of a saved tf.data.Dataset
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


@dataclass(frozen=True)
class Request:
    """What the command was asked for, besides its inputs and the options of the library."""

    policy: str | None
    method: str
    optimizer_name: str | None
    plot: str | None
    save: str | None
    report: str | None
    compare: bool
    as_json: bool
    quiet: bool

    @property
    def rules(self) -> list[str]:
        """The rules that answer."""
        every = (
            ["auto", self.method, *RULES]
            if self.compare or self.as_json or self.report
            else [self.method]
        )
        return list(dict.fromkeys(every))


def _find(spec: str, *, traceback: bool, **given: Any) -> int:  # `find` reads traceback
    from .inputs import InputOptions, read_inputs
    from .quiet import stdout_to_stderr

    started = time.perf_counter()
    _check(given)
    asked = InputOptions.take(spec, given)
    names = ("method", "plot", "save", "report", "compare", "as_json", "quiet")
    warm_up = given.pop("warmup")
    taken = {name: given.pop(name) for name in names}
    request = Request(given["policy"], optimizer_name=given["optimizer_name"], **taken)
    with stdout_to_stderr():
        files = {"--plot": request.plot, "--save": request.save, "--report": request.report}
        inputs = read_inputs(asked, files, given["seed"])
        test = _run(inputs, request.quiet or request.as_json, given)
    warnings.simplefilter("ignore")  # the answer shows them; undone by `short_warnings`
    outcome = _judge(test, inputs, request)
    if warm_up and outcome.suggestion:
        with stdout_to_stderr():
            silent = request.quiet or request.as_json
            outcome.warm_up = _warm_up(outcome, inputs, silent, given)
    outcome.seconds = time.perf_counter() - started
    problem = _write(outcome, request, inputs)
    outcome.seconds = time.perf_counter() - started
    _print(outcome, request)
    if problem:
        raise problem
    return 0 if outcome.suggestion else 1


def _check(given: dict[str, Any]) -> None:
    """Refuse options that exclude each other, and name the successor of a deprecated one."""
    if given["warmup"] and given["quiet"]:
        raise BadInput("--quiet prints the rate only, and --warmup adds a line; pass one of them.")
    start, end = given["start_lr"], given["end_lr"]
    if None not in (start, end) and start >= end:
        raise BadInput(f"--start-lr must be below --end-lr; got {start:g} and {end:g}.")
    if None not in (given["epochs"], given["total_steps"]):
        raise BadInput(
            "--epochs and --total-steps both give the length of the planned run; pass one of them."
        )
    confirm = given["confirm"]
    if confirm and given["budget"] is not None:
        raise BadInput("--confirm means --budget 500; pass --budget alone.")
    if confirm is not None:
        option, instead = "--confirm", "--budget 500"
        if not confirm:
            steps = given["steps"] or 100  # of a ramp without short runs
            option = "--no-confirm"
            instead = f"--steps {steps} --budget {steps * given['repeats']}"
        click.echo(f"Warning: {option} is deprecated; write {instead}.", err=True)


def _run(inputs: Inputs, silent: bool, ramp: dict[str, Any]) -> Any:
    import keras_lr
    from keras_lr.steering.optimizers import SeveralOptimizers

    if ramp["stop_factor"] == float("inf"):
        ramp["stop_factor"] = None
    ramp["optimizer"] = ramp.pop("optimizer_name")
    ramp.update(inputs.arguments(), verbose=0 if silent else "auto")
    with inputs.command_errors():
        try:
            return keras_lr.lr_find(inputs.model, **ramp)
        except SeveralOptimizers as error:
            raise BadInput(
                f"{error.problem} Choose one with --optimizer-name, as in --optimizer-name "
                f"{error.example}, and name the entry of the logs that is its loss with --monitor."
            ) from error


def _warm_up(outcome: Outcome, inputs: Inputs, silent: bool, ramp: dict[str, Any]) -> Any:
    """The search for a warm-up at the suggested rate, for the planned run."""
    import keras_lr

    names = ("optimizer", "monitor", "seed", *inputs.arguments())
    options = {name: ramp[name] for name in names if name in ramp}
    options.pop("validation_data", None)
    if ramp["stop_factor"] is not None:
        options["stop_factor"] = ramp["stop_factor"]
    with inputs.command_errors():
        return keras_lr.find_warmup(
            inputs.model,
            max_lr=outcome.suggestion.learning_rate,
            total_steps=outcome.total_steps,
            verbose=0 if silent else "auto",
            **options,
        )


def _judge(test: Any, inputs: Inputs, request: Request) -> Outcome:
    """The answers of the rules, or the reason for none, with what to say about the run."""
    import keras_lr

    from .report import Outcome

    rules = _answers(test, request.rules)
    answer = rules[request.method]
    found, refusal = (None, answer) if isinstance(answer, str) else (answer, "")
    bounds = None
    with contextlib.suppress(keras_lr.NoSuggestion):
        bounds = test.bounds()
    asked = inputs.options
    used = type(getattr(inputs.model, "optimizer", None)).__name__
    outcome = Outcome(
        test=test,
        suggestion=found,
        refusal=refusal,
        bounds=bounds,
        rules=rules,
        policy=request.policy,
        method=request.method,
        model_spec=asked.spec,
        data_spec=inputs.data_spec,
        backend=inputs.backend,
        optimizer=test.provenance.get("optimizer", used),
        classes=inputs.given.classes,
    )
    if found:
        outcome.paste = _paste(outcome, inputs, request.optimizer_name)
        outcome.policy_factors = _policy_factors(outcome)
    if asked.multipliers:
        outcome.multipliers = test.provenance["multipliers"] = dict(asked.factors)
        outcome.multipliers_spec = asked.multipliers
    return outcome


def _answers(test: Any, names: Iterable[str]) -> dict[str, Any]:
    """By rule, its suggestion, or the reason for none."""
    import keras_lr

    rules: dict[str, Any] = {}
    for name in names:
        try:
            rules[name] = test.suggest(name)
        except keras_lr.NoSuggestion as error:
            rules[name] = one_line(error)
    return rules


def _policy_factors(outcome: Outcome) -> dict[str, float]:
    """What multiplies the rate for other policies, if none was given and the rule knows them."""
    planned = getattr(outcome.test.planned, "policy", None)  # named also for ScheduleFree
    if outcome.policy or planned or outcome.method not in ("auto", "curve"):
        return {}
    suggest, rate = outcome.test.suggest, outcome.suggestion.learning_rate
    policies = {"constant": "constant", "decaying": "one-cycle"}
    return {
        name: suggest(outcome.method, policy=policy).learning_rate / rate
        for name, policy in policies.items()
    }


def _paste(outcome: Outcome, inputs: Inputs, optimizer: str | None) -> str:
    from .multipliers import in_python as multipliers_in_python
    from .paste import in_python

    found, policy, steps = outcome.suggestion, outcome.policy, outcome.total_steps
    compiled = not inputs.options.optimizer
    if not inputs.multipliers or (optimizer or "optimizer") != "optimizer":
        return in_python(found, inputs.model, policy, steps, optimizer, compiled=compiled)
    rate = float(f"{found.learning_rate:.3g}")
    wrapped = multipliers_in_python(inputs.model, inputs.multipliers, rate)
    if policy in (None, "constant"):
        return wrapped
    run = in_python(found, inputs.model, policy, steps, optimizer, compiled=True)
    return f"{wrapped}\n{run}"


def _write(outcome: Outcome, request: Request, inputs: Inputs) -> RunFailed | None:
    """Write curve, picture and report; returns the first error, to raise after the answer."""

    def draw(path: str) -> None:
        from keras_lr.plotting import save_range_test_plot

        save_range_test_plot(outcome.test, path, method=request.method)

    def report(path: str) -> None:
        from .find_page import write_page
        from .workers import arguments

        command = arguments(without=("quiet", "as_json"))
        write_page(outcome, path, inputs.model, command, _search_command())

    files = {
        "save": (request.save, outcome.test.save),
        "plot": (request.plot, draw),
        "report": (request.report, report),
    }
    outcome.written, problem = write_all(files)
    return problem


def _search_command() -> list[str]:
    """The arguments of a search on the same model and data.

    [] for one of several optimizers, since a search sets the rate of the only one.
    """
    from .search import search
    from .workers import arguments

    context = click.get_current_context()
    if context.params["optimizer_name"]:
        return []
    theirs = {each.name for each in search.params} - {"plot", "save", "report", "as_json", "quiet"}
    other = tuple(str(each.name) for each in context.command.params if each.name not in theirs)
    return ["search", *arguments(without=other)[1:], "--report", "search.html"]


def _print(outcome: Outcome, request: Request) -> None:
    from . import report

    found = outcome.suggestion
    gist = f"No learning rate can be suggested. {outcome.refusal}"
    if found:
        gist = f"The learning rate is {found.learning_rate:.3g}."
    if request.as_json:
        print_answer(report.to_json(outcome), gist)
    elif not request.quiet:
        text = report.to_text(outcome, compare=request.compare, unicode=can_draw())
        print_answer(text, gist)
    elif found:
        print_answer(f"{found.learning_rate:.3g}", gist)
        for warning in found.warnings:
            click.echo(f"Warning: {one_line(warning)}", err=True)
    if not found:
        click.echo(f"Error: {gist}", err=True)
