"""The options of a range test: type, default, description and check of each, in one place."""

from __future__ import annotations

import inspect
import textwrap
from typing import Annotated, Any, TypedDict, TypeVar, get_type_hints

import numpy as np

from keras_lr._util import checks

Target = TypeVar("Target")


class Options(TypedDict, total=False):
    """Keyword arguments that `lr_find` and `LRFinder` share: type, default and description."""

    start_lr: Annotated[float, 1e-7, "Rate of the first step, above 0."]
    end_lr: Annotated[float, 10.0, "Rate of the last step, above `start_lr`."]
    steps: Annotated[
        int,
        100,
        "Steps of the ramp, at least 3. A step is one update of the weights; with gradient "
        "accumulation it takes several batches, at one rate, and records their mean.",
    ]
    ramp: Annotated[str, "exponential", '"exponential" or "linear" (Smith\'s).']
    repeats: Annotated[
        int,
        1,
        "Ramps to run, each from the same weights on the next batches of the data. Their spread "
        "gives the suggestion an interval.",
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
        int, 512, "Size of the validation sample; all of the data if it has fewer."
    ]
    confirm: Annotated[
        bool,
        False,
        "After the ramp, train briefly from the same weights at a few constant rates, and suggest "
        "the one that does best on held-out data: at most 500 steps in all, of which the ramp "
        "takes 100. The held-out data are those of `validation_data`; without them, a part of "
        "the training data on which these runs do not train: rows of arrays, batches of a "
        "`PyDataset`, the first batches of any other data set. A data set that shuffles anew "
        "each time (`tf.data.Dataset.shuffle`, a shuffling `DataLoader`) may bring those back in "
        "later epochs; give `validation_data` with it.",
    ]
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
    checks.number("start_lr", options["start_lr"], above=0.0)
    checks.number("end_lr", options["end_lr"], above=0.0)
    if options["start_lr"] >= options["end_lr"]:
        raise ValueError(
            "start_lr must be below end_lr; got "
            f"start_lr={options['start_lr']!r} and end_lr={options['end_lr']!r}."
        )
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
    if not isinstance(options["monitor"], str):
        raise TypeError(f"monitor must be the name of a log entry; got {options['monitor']!r}.")
    checks.flag("confirm", options["confirm"])
    if options["verbose"] not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose must be 'auto', 0 or 1; got {options['verbose']!r}.")
    return options


def ramp_rates(options: Options) -> np.ndarray:
    """The rate of each step of the ramp, both ends included."""
    space = np.geomspace if options["ramp"] == "exponential" else np.linspace
    return space(options["start_lr"], options["end_lr"], options["steps"])


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
