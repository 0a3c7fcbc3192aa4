"""`keras-lr preview`: the learning rate of each step, without training."""

from __future__ import annotations

import importlib
import json
import operator
import re
import textwrap
from collections.abc import Iterable
from typing import Any

import click
from click.core import ParameterSource

from .class_options import flag_of
from .errors import BadInput, ending, one_line, visible
from .outputs import check_outputs, schema_of, try_outputs, writing
from .policies import OF_KERAS, OURS, POLICIES, Policy, warm_up_options
from .shell import fit_to_terminal

__all__ = ["preview"]


class _Policies(click.Group):
    """A group that makes the command of a policy when it is first used.

    Making all of them takes as long as the rest of the command's start.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(POLICIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in POLICIES and cmd_name not in self.commands:
            self.add_command(_make_command(cmd_name, POLICIES[cmd_name]))
            fit_to_terminal(self.commands[cmd_name])
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Policies,
    short_help="Show the learning rate of each step.",
    subcommand_metavar="POLICY [OPTIONS]",
    epilog="Example: keras-lr preview one-cycle --max-lr 0.1 --plot one_cycle.png",
)
def preview() -> None:
    """Show the learning rate and the momentum of each step, without training.

    The output shows the curve and its key points; --plot, --csv and --json
    export all steps.

    For the options of a policy: keras-lr preview POLICY --help
    """


def _make_command(name: str, policy: Policy) -> click.Command:
    common = [
        click.Option(
            ["--steps"],
            type=int,
            metavar="N",
            default=1000,
            show_default=True,
            help="Updates in the run.",
        ),
        click.Option(["--plot"], metavar="FILE", help="Save the plot: .png, .svg, .pdf."),
        click.Option(["--csv"], metavar="FILE", help="Save a table with a row for each step."),
        click.Option(
            ["--json", "as_json"], is_flag=True, help="Print one JSON object and nothing else."
        ),
        click.Option(
            ["--log/--no-log"],
            default=None,
            help="Draw rates on a logarithmic scale; by default only ramps.",
        ),
    ]
    example = " \\\n    ".join(_wrap(f"keras-lr preview {name} {policy.example}", 64))
    return click.Command(
        name,
        params=[*policy.options, *(warm_up_options() if policy.warms_up else []), *common],
        callback=lambda **given: _preview(name, policy, **given),
        short_help=policy.text,
        help=policy.text,
        epilog=f"\b\nExample: {example}",
    )


def _preview(
    name: str,
    policy: Policy,
    *,
    steps: int,
    plot: str | None,
    csv: str | None,
    as_json: bool,
    log: bool | None,
    **given: Any,
) -> None:
    from .quiet import short_warnings
    from .startup import start

    source = click.get_current_context().get_parameter_source
    typed = {each for each in given if source(each) == ParameterSource.COMMANDLINE}
    needs = {"start_factor": "warmup_steps"} if policy.warms_up else {}
    for option, other in {**policy.needs, **needs}.items():
        if option in typed and not given[other]:
            raise BadInput(f"{flag_of(option)} requires {flag_of(other)}.")
    check_outputs({"--plot": plot, "--csv": csv})
    warm_up = None
    if policy.warms_up:
        warm_up = {"steps": given.pop("warmup_steps"), "start_factor": given.pop("start_factor")}
        warm_up = None if warm_up["steps"] is None else warm_up
    if policy.length and given.get(policy.length) is None:
        given[policy.length] = steps - given.get("warmup_steps", 0) * (policy.home == OF_KERAS)
        typed.add(policy.length)
    given = {option: value for option, value in given.items() if value is not None}
    with ending("The preview failed.", False, "Interrupted."), short_warnings():
        # Keras's warm-up accepts only single steps, which are fast on JAX alone.
        backend = start(prefer="jax" if given.get("warmup_target") else "numpy", cache=False)
        shown = _shown(policy, given, warm_up, steps)
        written = _write(shown, plot, csv, log)
    python = _in_python(policy, {each: given[each] for each in given if each in typed}, warm_up)
    if as_json:
        answer = {
            "schema": schema_of("preview"),
            "policy": name,
            "python": python,
            "backend": backend,
            "written": written,
        }
        click.echo(json.dumps({**answer, **shown.to_dict()}, allow_nan=False))
        return
    from .text import can_draw, width

    click.echo(shown.to_text(width=width(), log=log, unicode=can_draw()))
    if written:
        click.echo()
        click.echo(visible(f"Saved {', '.join(written.values())}"))
    click.echo("\nIn Python:")
    for argument, value in python.items():
        click.echo(_wrapped(f"{argument}={value}"))


def _shown(
    policy: Policy, given: dict[str, Any], warm_up: dict[str, Any] | None, steps: int
) -> Any:
    import keras_lr

    package, _, path = policy.home.partition(".")
    home = importlib.import_module(package)
    make = operator.attrgetter(f"{path}.{policy.name}".lstrip("."))(home)
    try:
        stack = [make(**given)]
        if warm_up is not None:
            stack.append(keras_lr.WarmUp(**warm_up))
        return keras_lr.preview(stack, steps)
    except (ValueError, TypeError) as error:
        options = [str(each.name) for each in click.get_current_context().command.params]
        raise BadInput(_with_options(one_line(error), options)) from error


def _with_options(text: str, options: Iterable[str]) -> str:
    """A message of the library with options in place of the arguments of a policy.

    >>> _with_options("base_lr must not be above max_lr; got 1.", ["base_lr", "max_lr"])
    '--base-lr must not be above --max-lr; got 1.'
    """
    text = re.sub(r"\btotal_steps\b(?!=)", "--steps", text)
    names = "|".join(map(re.escape, options)) or "(?!)"
    return re.sub(
        rf"^(?:{names})(?= must )|\b(?=\w+_)(?:{names})\b(?!=)",
        lambda found: flag_of(found[0]),
        text,
    )


def _in_python(
    policy: Policy, typed: dict[str, Any], warm_up: dict[str, Any] | None
) -> dict[str, str]:
    """The arguments of an optimizer and of `fit` that train with this policy."""
    made = _call(f"{policy.home}.{policy.name}", typed)
    callbacks = [made] if policy.home == OURS else []
    if warm_up is not None:
        callbacks.append(_call("keras_lr.WarmUp", warm_up))
    python = {} if policy.home == OURS else {"learning_rate": made}
    if callbacks:
        python["callbacks"] = f"[{', '.join(callbacks)}]"
    return python


def _call(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def _wrapped(text: str) -> str:
    """A line of Python, or several if it is longer than 80 columns."""
    if len(text) <= 78:
        return f"  {text}"
    head, bracket, arguments = text.partition("(")
    return "\n      ".join([f"  {head}{bracket}", *_wrap(arguments, 74)])


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _write(shown: Any, plot: str | None, csv: str | None, log: bool | None) -> dict[str, str]:
    written: dict[str, str] = {}
    try_outputs(plot, csv)
    with writing():
        if csv:
            shown.to_csv(csv)
            written["csv"] = csv
        if plot:
            from keras_lr.plotting import save_preview_plot

            save_preview_plot(shown, plot, log=log)
            written["plot"] = plot
    return written
