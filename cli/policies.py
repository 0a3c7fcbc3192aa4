"""The policies of `keras-lr preview`: which classes have a command, and how it introduces them.

The options of a policy are not here: they are the arguments of its class (`class_options.py`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import click

from .class_options import REQUIRED, Argument, arguments_of, option_of

__all__ = ["OF_KERAS", "OURS", "POLICIES", "Policy", "warm_up_options"]

OURS, CURVES, OF_KERAS = "keras_lr", "keras_lr.schedules", "keras.optimizers.schedules"
# `--steps` is the first, and the others have no curve over updates.
UNSEEN = ("total_steps", "couple_weight_decay", "minutes")
TYPED = ("bool", "float", "int", "str")  # kinds of arguments that a command line can give


@dataclass(frozen=True)
class Policy:
    """One policy of the command line.

    Args:
        home: The module of its class, which is a callback of keras_lr or a schedule.
        name: The class.
        text: One line of help.
        example: Options that show it.
        rest: The argument that is the rest of the run unless its option is given.
        warms_up: Whether `--warmup-steps` adds a `WarmUp`.
        needs: Options that require another option.
        schedule: The option and the help of the argument `schedule`, which is a constant rate.
    """

    home: str
    name: str
    text: str
    example: str
    rest: str | None = None
    warms_up: bool = False
    needs: dict[str, str] = field(default_factory=dict)
    schedule: tuple[str, str] | None = None

    @functools.cached_property
    def arguments(self) -> list[Argument]:
        """The arguments of the class."""
        source = "keras_lr_cli.keras_schedules" if self.home == OF_KERAS else self.home
        return arguments_of(source, self.name)

    @property
    def length(self) -> str | None:
        """The argument that is the length of the run unless an option gives it."""
        totals = [each for each in self.arguments if each.name == "total_steps"]
        return "total_steps" if totals and totals[0].default is REQUIRED else self.rest

    @functools.cached_property
    def options(self) -> list[click.Option]:
        """An option for each argument that can be typed; `--steps` gives `total_steps`."""
        found = []
        for each in self.arguments:
            if each.name == "schedule" and self.schedule:
                flag, text = self.schedule
                found.append(option_of(each, flag, metavar="RATE", help=text))
            elif each.kind in TYPED and each.name not in UNSEEN:
                changes: dict[str, Any] = {"required": False} if each.name == self.rest else {}
                negated = each.name in self.needs.values()
                found.append(option_of(each, negated=negated, **changes))
        return found


def warm_up_options() -> list[click.Option]:
    """Return the options of `WarmUp` for policies that have no warm-up of their own."""
    arguments = {each.name: each for each in arguments_of(OURS, "WarmUp")}
    return [
        option_of(replace(arguments["steps"], name="warmup_steps", kind="int")),
        option_of(arguments["start_factor"]),
    ]


CYCLES = {"base_momentum": "cycle_momentum", "max_momentum": "cycle_momentum"}
POLICIES = {
    "constant": Policy(
        CURVES,
        "ConstantSchedule",
        "One rate.",
        "--learning-rate 0.1",
    ),
    "cosine": Policy(
        OF_KERAS,
        "CosineDecay",
        "Keras's CosineDecay: half a cosine.",
        "--initial-learning-rate 0.1",
        rest="decay_steps",
        needs={"warmup_steps": "warmup_target", "warmup_target": "warmup_steps"},
    ),
    "cosine-restarts": Policy(
        OF_KERAS,
        "CosineDecayRestarts",
        "Keras's CosineDecayRestarts: half cosines (SGDR).",
        "--initial-learning-rate 0.1 --first-decay-steps 100",
        warms_up=True,
    ),
    "cyclic": Policy(
        OURS,
        "CyclicLR",
        "Climb and fall between two rates, over and over.",
        "--base-lr 0.01 --max-lr 0.1 --step-size 99",
        warms_up=True,
        needs=CYCLES,
    ),
    "exponential": Policy(
        OF_KERAS,
        "ExponentialDecay",
        "Keras's ExponentialDecay: a constant factor.",
        "--initial-learning-rate 0.1 --decay-steps 100 --decay-rate 0.9",
        warms_up=True,
    ),
    "exponential-ramp": Policy(
        CURVES,
        "ExponentialRampSchedule",
        "From one rate to another in equal ratios.",
        "--start-lr 1e-7 --end-lr 10 --steps 100",
    ),
    "flat-cosine": Policy(
        CURVES,
        "FlatCosineSchedule",
        "Hold a rate, then decay along half a cosine.",
        "--max-lr 0.1 --pct-start 0.75",
        warms_up=True,
    ),
    "inverse-sqrt": Policy(
        CURVES,
        "InverseSqrtSchedule",
        "Warm up, then decay with 1 / sqrt(step) (Noam).",
        "--max-lr 0.001 --warmup-steps 100",
    ),
    "inverse-time": Policy(
        OF_KERAS,
        "InverseTimeDecay",
        "Keras's InverseTimeDecay: 1 / step.",
        "--initial-learning-rate 0.1 --decay-steps 100 --decay-rate 0.5",
        warms_up=True,
    ),
    "linear-ramp": Policy(
        CURVES,
        "LinearRampSchedule",
        "From one rate to another in a straight line.",
        "--start-lr 0.1 --end-lr 0.001",
    ),
    "one-cycle": Policy(
        OURS,
        "OneCycle",
        "One climb and one longer decay; momentum mirrored.",
        "--max-lr 0.1 --steps 1000",
        needs=CYCLES,
    ),
    "polynomial": Policy(
        OF_KERAS,
        "PolynomialDecay",
        "Keras's PolynomialDecay: a line or a power of it.",
        "--initial-learning-rate 0.1 --end-learning-rate 0.001",
        rest="decay_steps",
        warms_up=True,
    ),
    "slanted-triangular": Policy(
        CURVES,
        "SlantedTriangularSchedule",
        "A short climb and a long decay (ULMFiT).",
        "--max-lr 0.01",
    ),
    "step": Policy(
        CURVES,
        "StepDecaySchedule",
        "Decay by a factor at regular intervals.",
        "--start-lr 0.1 --step-size 300",
        warms_up=True,
    ),
    "warm-up": Policy(
        CURVES,
        "WarmUpSchedule",
        "Warm up to one rate and hold it.",
        "--learning-rate 0.1 --warmup-steps 200",
        schedule=("--learning-rate", "Learning rate after the warm-up; above 0."),
    ),
    "wsd": Policy(
        CURVES,
        "WarmUpStableDecaySchedule",
        "Warm up, hold, and decay at the end.",
        "--max-lr 0.001 --warmup-steps 100",
    ),
}
