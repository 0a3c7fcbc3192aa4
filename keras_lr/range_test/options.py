"""The options of a range test: type, default, description and check of each, in one place."""

from __future__ import annotations

import inspect
import textwrap
import warnings
from typing import Annotated, Any, TypedDict, TypeVar, get_type_hints

import numpy as np

from keras_lr._util import checks

Target = TypeVar("Target")


RAMP_STEPS = 50  # with a budget of 200 or more; below, a ramp costs more than it tells
RAMP_ALONE = 100  # steps of a ramp without short runs
SHORTEST = 100  # budget below which there are no short runs
SHORT_RUNS = 150  # updates of short runs beside a ramp whose steps are given
SHARE_OF_RUN, BUDGETS = 0.05, (100, 500)  # default budget: share of the planned run, and its limits
WIDEST = (1e-7, 10.0)  # the ramp for an optimizer whose usual rates are unknown
BELOW, ABOVE = 2.5, 1.5  # decades of the ramp to each side of the usual rate


class Options(TypedDict, total=False):
    """Keyword arguments that `lr_find` and `LRFinder` share: type, default and description."""

    policy: Annotated[
        Any,
        None,
        'How the planned run changes the rate: "constant", "one-cycle", "cosine" (warm-up, then a '
        'cosine to 0), "wsd" (warm-up, constant, then linear to 0), a schedule of Keras or '
        "keras-lr, or a callback of keras-lr; only its shape counts. The suggestion is then its "
        "highest rate. None: unknown; the rate is then between those of all policies.",
    ]
    total_steps: Annotated[
        int | None,
        None,
        "Updates of the planned run; its best rate falls with its length. None: unknown.",
    ]
    epochs: Annotated[
        int | None, None, "Instead of `total_steps`: epochs of the planned run, on this data."
    ]
    budget: Annotated[
        int | None,
        None,
        "Training steps of the whole test: those of the ramp, and those of short runs at constant "
        "rates that start from the same weights and are compared on held-out data. By default 5% "
        "of the planned run, within 100 and 500; 200 if its length is unknown. A budget equal to "
        "`steps` leaves only the ramp. The held-out data are those of `validation_data`; without "
        "them, a part of the training data on which the short runs do not train: rows of arrays, "
        "batches of a `PyDataset`, the first batches of any other data set. A data set that "
        "shuffles anew each time (`tf.data.Dataset.shuffle`, a shuffling `DataLoader`) may bring "
        "those back in later epochs; give `validation_data` with it.",
    ]
    start_lr: Annotated[
        float | None,
        None,
        "Rate of the first step of the ramp, above 0; by default 2.5 decades below the usual rate "
        "of the optimizer's family, or 1e-7 if that is unknown.",
    ]
    end_lr: Annotated[
        float | None,
        None,
        "Rate of its last step, above `start_lr`; by default 1.5 decades above the usual rate, or "
        "10.",
    ]
    steps: Annotated[
        int | None,
        None,
        "Steps of the ramp, at least 3; by default 50, and no ramp with a budget below 200. A step "
        "is one update of the weights; with gradient accumulation it takes several batches, at one "
        "rate, and records their mean.",
    ]
    ramp: Annotated[str, "exponential", '"exponential" or "linear" (Smith\'s).']
    repeats: Annotated[
        int,
        1,
        "Ramps to run, each from the same weights on the next batches of the data. Without short "
        "runs, the suggestion is the median of theirs, and its interval holds all of them.",
    ]
    stop_factor: Annotated[
        float | None,
        4.0,
        "The test stops when the smoothed loss exceeds the best one by `stop_factor - 1` times "
        "the scale of the losses (`range_test.stopping` has the rule, which also holds for "
        "losses below zero); above 1, or None to run to the end. It always stops at a loss that "
        "is not finite.",
    ]
    monitor: Annotated[
        str,
        "loss",
        'Name of the log entry that is the loss, for a training step that logs others ("g_loss"). '
        "Nested logs are flattened, as `fit` does.",
    ]
    validation_every: Annotated[
        int | None,
        None,
        "Steps between two measurements of the validation loss; a 25th of the ramp by default.",
    ]
    validation_samples: Annotated[
        int, 256, "Size of the validation sample; all of the data if it has fewer."
    ]
    confirm: Annotated[bool | None, None, "Deprecated: True means `budget=500`."]
    seed: Annotated[
        int | None,
        None,
        "Seeds the order of the data and the noise of this test alone, including the model's "
        "dropout: with one seed, equal models give equal curves. None continues from the current "
        "state of the random generators, which is restored in both cases.",
    ]
    verbose: Annotated[
        str | int,
        "auto",
        'Progress bar on stderr: 1 shows it, 0 does not, "auto" shows it in a terminal and in a '
        "notebook.",
    ]


_HINTS = get_type_hints(Options, include_extras=True)
DEFAULTS = Options(**{name: hint.__metadata__[0] for name, hint in _HINTS.items()})  # type: ignore[typeddict-item]


def checked_options(given: Options, whose: str) -> Options:
    """All options, the given ones checked and the others at their defaults.

    Raises:
        ValueError: If a value is out of its range.
        TypeError: If a value is of the wrong kind, or there is no such option.
    """
    for name in given:
        if name not in DEFAULTS:
            raise TypeError(f"{whose} got an unexpected keyword argument {name!r}.")
    options: Options = {**DEFAULTS, **given}
    start, end = options["start_lr"], options["end_lr"]
    for name, value in (("start_lr", start), ("end_lr", end)):
        if value is not None:
            checks.number(name, value, above=0.0)
    if start is not None and end is not None and start >= end:
        raise ValueError(
            f"start_lr must be below end_lr; got start_lr={start!r} and end_lr={end!r}."
        )
    if options["steps"] is not None:
        checks.count("steps", options["steps"], 3)
    checks.count("repeats", options["repeats"], 1)
    checks.count("validation_samples", options["validation_samples"], 1)
    if options["validation_every"] is not None:
        checks.count("validation_every", options["validation_every"], 1)
    if options["seed"] is not None:
        checks.count("seed", options["seed"], 0)
    checks.choice("ramp", options["ramp"], ("exponential", "linear"))
    if options["stop_factor"] is not None:
        way_out = "Pass None to run the ramp to its end."
        checks.number("stop_factor", options["stop_factor"], above=1.0, way_out=way_out)
    checks.log_entry("monitor", options["monitor"])
    _check_run(options, whose)
    checks.verbosity(options["verbose"], auto=True)
    return options


def _check_run(options: Options, whose: str) -> None:
    """Check what describes the planned run and the budget, and fill in the budget."""
    for name, value in (("total_steps", options["total_steps"]), ("epochs", options["epochs"])):
        if value is not None:
            checks.count(name, value)
    if options["total_steps"] is not None and options["epochs"] is not None:
        raise ValueError(
            "Pass total_steps or epochs, not both; got "
            f"total_steps={options['total_steps']!r} and epochs={options['epochs']!r}."
        )
    if options["confirm"] is not None:
        if options["budget"] is not None:
            raise ValueError(
                f"Pass budget alone; got budget={options['budget']!r} and "
                f"confirm={options['confirm']!r}, which is deprecated."
            )
        confirm, repeats = checks.flag("confirm", options["confirm"]), options["repeats"]
        steps = options["steps"] or (RAMP_STEPS if confirm else RAMP_ALONE)
        if confirm:
            options["budget"] = max(500, steps * repeats)
            instead = f"budget={options['budget']}"
        else:
            options["steps"], options["budget"] = steps, steps * repeats
            instead = f"steps={steps}, budget={steps * repeats}"
        warnings.warn(
            f"confirm={confirm} of {whose} is deprecated; pass {instead}.",
            DeprecationWarning,
            stacklevel=4,
        )
    if options["budget"] is not None:
        checks.count("budget", options["budget"], 3)
        ramps = (options["steps"] or 0) * options["repeats"]
        if ramps > options["budget"]:
            raise ValueError(
                f"budget must be at least the {ramps} steps of the ramp; got {options['budget']!r}."
            )


def divided_budget(options: Options, total_steps: int | None) -> tuple[int, int]:
    """Steps of each ramp, and updates of all short runs together.

    Args:
        total_steps: Updates of the planned run; None if unknown.
    """
    budget, steps, repeats = options["budget"], options["steps"], options["repeats"]
    if budget is None and total_steps is None:
        budget = (steps or RAMP_STEPS) * repeats + SHORT_RUNS
    elif budget is None:
        share = round(SHARE_OF_RUN * (total_steps or 0))
        budget = max(int(np.clip(share, *BUDGETS)), (steps or 0) * repeats)
    if steps is None:
        enough = budget >= (RAMP_STEPS + SHORT_RUNS if repeats == 1 else RAMP_STEPS * repeats)
        steps = RAMP_STEPS if enough else 0
        steps = steps or (budget if budget < SHORTEST else 0)
    return steps, max(0, budget - steps * repeats)


def ramp_rates(options: Options, steps: int, usual: float | None) -> np.ndarray:
    """The rate of each step of the ramp, both ends included.

    Args:
        usual: log10 of the usual rate of the optimizer's family; None if it is unknown.

    Raises:
        ValueError: If the default of one end does not fit the other.
    """
    low, high = WIDEST if usual is None else (10 ** (usual - BELOW), 10 ** (usual + ABOVE))
    start = low if options["start_lr"] is None else options["start_lr"]
    end = high if options["end_lr"] is None else options["end_lr"]
    if start >= end and options["start_lr"] is None:
        start = end / 10 ** (BELOW + ABOVE)
    elif start >= end:
        end = start * 10 ** (BELOW + ABOVE)
    space = np.geomspace if options["ramp"] == "exponential" else np.linspace
    return space(start, end, steps)


def takes_options(target: Target) -> Target:
    """Write the options out in the signature and the docstring of what takes `**options`.

    Type checkers and editors know them from `Unpack[Options]`; `help()` and `inspect` from here.
    In the docstring they replace the entry `options:`.
    """
    function: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    signature = inspect.signature(function)
    kinds = inspect.Parameter
    parameters = [p for p in signature.parameters.values() if p.kind is not kinds.VAR_KEYWORD]
    entries = []
    for name, hint in _HINTS.items():
        default, description = hint.__metadata__
        kind, annotation = kinds.KEYWORD_ONLY, hint.__origin__
        parameters.append(kinds(name, kind, default=default, annotation=annotation))
        entries.append(f"{name}: {description}")
    function.__signature__ = signature.replace(parameters=parameters)
    if target.__doc__:  # python -OO has none
        lines = inspect.cleandoc(target.__doc__).split("\n")
        (place,) = [i for i, line in enumerate(lines) if line.startswith("    options:")]
        width, indent = 100, " " * 8
        lines[place : place + 1] = [
            textwrap.fill(entry, width, initial_indent=indent[:4], subsequent_indent=indent)
            for entry in entries
        ]
        target.__doc__ = "\n".join(lines)
    return target
