"""`keras-lr preview`: what a schedule gives each step, without training."""

from __future__ import annotations

import importlib
import json
import operator
import textwrap
from dataclasses import dataclass, field
from typing import Any

import click
from click.core import ParameterSource

from .errors import BadInput, RunFailed, one_line, visible
from .outputs import check_outputs, try_outputs, writing

__all__ = ["POLICIES", "preview"]

OURS, CURVES, OF_KERAS = "keras_lr", "keras_lr.schedules", "keras.optimizers.schedules"


def _option(
    flags: str, metavar: str, text: str, default: Any = ..., kind: Any = float
) -> click.Option:
    """An option of a policy: required if it has no default, free if that is None."""
    given: dict[str, Any] = {"required": True} if default is ... else {"default": default}
    given["show_default"] = default not in (..., None)
    return click.Option(flags.split(), type=kind, metavar=metavar, help=text, **given)


def _rate(flags: str, text: str, default: Any = ...) -> click.Option:
    return _option(flags, "RATE", text, default)


def _factor(flags: str, text: str, default: Any = ...) -> click.Option:
    return _option(flags, "X", text, default)


def _count(flags: str, text: str, default: Any = ...) -> click.Option:
    return _option(flags, "N", text, default, int)


def _choice(flags: str, text: str, *names: str) -> click.Option:
    return click.Option(
        [flags], type=click.Choice(names), default=names[0], show_default=True, help=text
    )


def _flag(flags: str, text: str, default: bool = False) -> click.Option:
    return click.Option(
        [flags], is_flag=True, default=default, show_default="/" in flags, help=text
    )


def _momentum(cycles: bool, base: float, most: float) -> list[click.Option]:
    return [
        _flag(
            "--cycle-momentum/--no-cycle-momentum",
            "Whether the momentum mirrors the rate.",
            cycles,
        ),
        _factor("--base-momentum", "Momentum at the largest rate.", base),
        _factor("--max-momentum", "Momentum at the smallest rate.", most),
    ]


def _decay() -> list[click.Option]:
    return [
        _rate("--initial-learning-rate", "Rate of the first step."),
        _count("--decay-steps", "Steps of one decay by the decay rate."),
        _factor("--decay-rate", "How much a decay takes."),
        _flag("--staircase", "Decay in jumps."),
    ]


def _ramp() -> list[click.Option]:
    return [
        _rate("--start-lr", "Rate of the first step."),
        _rate("--end-lr", "Rate of the last step."),
    ]


@dataclass(frozen=True)
class Policy:
    """One policy of the command line.

    Args:
        home: The module of its class: of a callback of ours, or of a schedule.
        name: The class.
        text: One line of help.
        example: Options that show it.
        options: Its options; each is an argument of the class, under the same name.
        length: The argument that is the length of the run, unless an option gives it.
        warms_up: Whether `--warmup-steps` puts `WarmUp` over it.
        needs: Options that count only together with another one.
    """

    home: str
    name: str
    text: str
    example: str
    options: list[click.Option]
    length: str | None = None
    warms_up: bool = False
    needs: dict[str, str] = field(default_factory=dict)


CYCLES = {"base_momentum": "cycle_momentum", "max_momentum": "cycle_momentum"}
POLICIES = {
    "constant": Policy(
        CURVES,
        "ConstantSchedule",
        "One rate.",
        "--learning-rate 0.1",
        [_rate("--learning-rate", "The rate.")],
    ),
    "cosine": Policy(
        OF_KERAS,
        "CosineDecay",
        "Half a cosine down, as Keras has it.",
        "--initial-learning-rate 0.1",
        [
            _rate("--initial-learning-rate", "Rate of the first step."),
            _count("--decay-steps", "Steps of the way down; by default the rest.", None),
            _factor("--alpha", "The last rate as a share of the first.", 0.0),
            _rate("--warmup-target", "Climb to this rate first.", None),
            _count("--warmup-steps", "Steps of that climb.", 0),
        ],
        length="decay_steps",
        needs={"warmup_steps": "warmup_target", "warmup_target": "warmup_steps"},
    ),
    "cosine-restarts": Policy(
        OF_KERAS,
        "CosineDecayRestarts",
        "Down along half a cosine, again and again (SGDR).",
        "--initial-learning-rate 0.1 --first-decay-steps 100",
        [
            _rate("--initial-learning-rate", "Rate of the first step."),
            _count("--first-decay-steps", "Steps of the first way down."),
            _factor("--t-mul", "How many times longer each next one is.", 2.0),
            _factor("--m-mul", "How many times higher each next one starts.", 1.0),
            _factor("--alpha", "The lowest rate as a share of the first.", 0.0),
        ],
        warms_up=True,
    ),
    "cyclic": Policy(
        OURS,
        "CyclicLR",
        "Up and down between two rates, over and over.",
        "--base-lr 0.01 --max-lr 0.1 --step-size 99",
        [
            _rate("--base-lr", "Smallest rate."),
            _rate("--max-lr", "Largest rate."),
            _count("--step-size", "Steps of the climb."),
            _count("--step-size-down", "Steps of the fall; by default as many.", None),
            _choice(
                "--mode", "What becomes of the height.", "triangular", "triangular2", "exp_range"
            ),
            _factor("--gamma", "Factor of each step, for exp_range.", 1.0),
            _factor("--cycle-mult", "How many times longer each cycle is.", 1.0),
            *_momentum(False, 0.8, 0.9),
        ],
        warms_up=True,
        needs=CYCLES,
    ),
    "exponential": Policy(
        OF_KERAS,
        "ExponentialDecay",
        "Down by a factor in so many steps, as Keras has it.",
        "--initial-learning-rate 0.1 --decay-steps 100 --decay-rate 0.9",
        _decay(),
        warms_up=True,
    ),
    "exponential-ramp": Policy(
        CURVES,
        "ExponentialRampSchedule",
        "From one rate to another in equal ratios.",
        "--start-lr 1e-7 --end-lr 10 --steps 100",
        _ramp(),
        length="total_steps",
    ),
    "flat-cosine": Policy(
        CURVES,
        "FlatCosineSchedule",
        "Flat, then half a cosine down.",
        "--max-lr 0.1 --pct-start 0.75",
        [
            _rate("--max-lr", "Rate of the flat part."),
            _factor("--pct-start", "Share of the run that is flat.", 0.75),
            _factor("--final-div-factor", "Ends at the largest rate over this.", 1e5),
        ],
        length="total_steps",
        warms_up=True,
    ),
    "inverse-sqrt": Policy(
        CURVES,
        "InverseSqrtSchedule",
        "Warm up, then fall with the root of the steps (Noam).",
        "--max-lr 0.001 --warmup-steps 100",
        [
            _rate("--max-lr", "Largest rate."),
            _count("--warmup-steps", "Steps of the climb."),
            _count("--timescale", "Steps of the fall by a root of 2; as the climb.", None),
        ],
    ),
    "inverse-time": Policy(
        OF_KERAS,
        "InverseTimeDecay",
        "Down with one over the steps, as Keras has it.",
        "--initial-learning-rate 0.1 --decay-steps 100 --decay-rate 0.5",
        _decay(),
        warms_up=True,
    ),
    "linear-ramp": Policy(
        CURVES,
        "LinearRampSchedule",
        "From one rate to another in a straight line.",
        "--start-lr 0.1 --end-lr 0.001",
        _ramp(),
        length="total_steps",
    ),
    "one-cycle": Policy(
        OURS,
        "OneCycle",
        "One rise and one long fall, with the momentum mirrored.",
        "--max-lr 0.1 --steps 1000",
        [
            _rate("--max-lr", "Largest rate."),
            _factor("--pct-start", "Share of the run that rises.", 0.3),
            _choice("--anneal", "Shape of the phases.", "cos", "linear"),
            _factor("--div-factor", "Starts at the largest rate over this.", 25.0),
            _factor("--final-div-factor", "Ends at the first rate over this.", 1e4),
            _flag("--three-phase", "Fall as steeply as it rose, then to the end."),
            *_momentum(True, 0.85, 0.95),
        ],
        needs=CYCLES,
    ),
    "polynomial": Policy(
        OF_KERAS,
        "PolynomialDecay",
        "Down in a line or a power of it, as Keras has it.",
        "--initial-learning-rate 0.1 --end-learning-rate 0.001",
        [
            _rate("--initial-learning-rate", "Rate of the first step."),
            _count("--decay-steps", "Steps of the way down; by default the run.", None),
            _rate("--end-learning-rate", "Rate after that.", 1e-4),
            _factor("--power", "1 is a straight line.", 1.0),
            _flag("--cycle", "Begin anew where it ends."),
        ],
        length="decay_steps",
        warms_up=True,
    ),
    "slanted-triangular": Policy(
        CURVES,
        "SlantedTriangularSchedule",
        "A short climb and a long way down (ULMFiT).",
        "--max-lr 0.01",
        [
            _rate("--max-lr", "Largest rate."),
            _factor("--cut-frac", "Share of the run that climbs.", 0.1),
            _factor("--ratio", "Largest rate over the smallest.", 32.0),
        ],
        length="total_steps",
    ),
    "step": Policy(
        CURVES,
        "StepDecaySchedule",
        "Down in equal steps.",
        "--start-lr 0.1 --step-size 300",
        [
            _rate("--start-lr", "Rate of the first steps."),
            _count("--step-size", "Steps between two drops."),
            _factor("--gamma", "Factor of each drop.", 0.1),
        ],
        warms_up=True,
    ),
    "warm-up": Policy(
        CURVES,
        "WarmUpSchedule",
        "Up to one rate, and stay.",
        "--learning-rate 0.1 --warmup-steps 200",
        [
            _rate("--learning-rate schedule", "The rate after the warm-up."),
            _count("--warmup-steps", "Steps of the warm-up."),
            _factor("--start-factor", "The first rate as a share of it.", 0.0),
            _choice("--mode", "Shape of the climb.", "linear", "exponential", "constant"),
        ],
    ),
    "wsd": Policy(
        CURVES,
        "WarmUpStableDecaySchedule",
        "Warm up, stay, and decay at the end.",
        "--max-lr 0.001 --warmup-steps 100",
        [
            _rate("--max-lr", "Rate between warm-up and decay."),
            _count("--warmup-steps", "Steps of the climb.", 0),
            _count("--decay-steps", "Steps of the decay; a tenth of the run.", None),
            _choice("--decay", "Shape of the decay.", "1-sqrt", "linear", "cosine"),
            _rate("--start-lr", "Rate of the first step of a climb.", 0.0),
            _rate("--min-lr", "Rate at the end.", 0.0),
        ],
        length="total_steps",
    ),
}


@click.group(
    short_help="Show what a schedule gives each step.",
    epilog="Example: keras-lr preview one-cycle --max-lr 0.1 --plot one_cycle.png",
)
def preview() -> None:
    """Show the learning rate and the momentum of each step, without training.

    The answer has the curve and its key points; --plot, --csv and --json give
    all of it. Each policy has its own options: keras-lr preview POLICY --help.
    """


def _make_command(name: str, policy: Policy) -> click.Command:
    warm_up = [
        _count("--warmup-steps", "Warm up to it for so many steps.", None),
        _factor("--start-factor", "The first rate of the warm-up, as a share.", 0.0),
    ]
    common = [
        _count("--steps", "Updates of the run.", 1000),
        _option("--plot", "FILE", "Write the picture: .png, .svg, .pdf.", None, str),
        _option("--csv", "FILE", "Write a row for each step.", None, str),
        click.Option(
            ["--json", "as_json"], is_flag=True, help="Print one JSON object and no more."
        ),
        click.Option(
            ["--log/--no-log"], default=None, help="Logarithmic rates; by default for ramps."
        ),
    ]
    example = " \\\n    ".join(_wrap(f"keras-lr preview {name} {policy.example}", 64))
    return click.Command(
        name,
        params=[*policy.options, *(warm_up if policy.warms_up else []), *common],
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
            raise BadInput(f"{_flag_of(option)} counts only with {_flag_of(other)}.")
    check_outputs({"--plot": plot, "--csv": csv})
    warm_up = None
    if policy.warms_up:
        warm_up = {"steps": given.pop("warmup_steps"), "start_factor": given.pop("start_factor")}
        warm_up = None if warm_up["steps"] is None else warm_up
    if policy.length and given.get(policy.length) is None:
        given[policy.length] = steps - given.get("warmup_steps", 0) * (policy.home == OF_KERAS)
        typed.add(policy.length)
    given = {option: value for option, value in given.items() if value is not None}
    with short_warnings():
        # Keras's warm-up looks at one step at a time; only JAX can make that quick.
        backend = start(prefer="jax" if given.get("warmup_target") else "numpy", cache=False)
        try:
            shown = _shown(policy, given, warm_up, steps)
            written = _write(shown, plot, csv, log)
        except click.ClickException:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {one_line(error)}"
            raise RunFailed(f"The preview could not be made. {text}") from error
    python = _in_python(policy, {each: given[each] for each in given if each in typed}, warm_up)
    if as_json:
        answer = {"policy": name, "python": python, "backend": backend, "written": written}
        click.echo(json.dumps({**answer, **shown.to_dict()}, allow_nan=False))
        return
    from .text import can_draw, width

    click.echo(shown.to_text(width=width(), log=log, unicode=can_draw()))
    if written:
        click.echo()
        click.echo(visible(f"Wrote {', '.join(written.values())}"))
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
        raise BadInput(one_line(error)) from error


def _in_python(
    policy: Policy, typed: dict[str, Any], warm_up: dict[str, Any] | None
) -> dict[str, str]:
    """The arguments of an optimizer and of `fit` that train so."""
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


def _flag_of(argument: str) -> str:
    return "--" + argument.replace("_", "-")


for _name, _policy in POLICIES.items():
    preview.add_command(_make_command(_name, _policy))
