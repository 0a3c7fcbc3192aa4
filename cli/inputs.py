"""A model and its data, read for a command that trains."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import click

from . import data as sources
from .class_options import flag_of
from .data_checks import check_data, describe_inputs
from .distribution import distributed, shared_equally
from .errors import BadInput, RunFailed, one_line
from .functions import import_modules, is_function
from .model_files import check_model_file
from .models import load_model
from .multipliers import put_multipliers, read_multipliers
from .outputs import check_outputs, try_outputs
from .startup import start

__all__ = ["InputOptions", "Inputs", "read_inputs"]


@dataclass(frozen=True)
class InputOptions:
    """The options of `find` and `search` that name a model, data and a backend.

    `multipliers` is a file and `factors` its content. `distribute` is a name of `STRATEGIES`:
    Keras then trains on all devices until the command ends.
    """

    spec: str
    data: str | None
    target: str | None
    features: str | None
    drop: str | None
    validation: str | None
    batch_size: int | None
    optimizer: str | None
    loss: str | None
    metric: tuple[str, ...]
    multipliers: str | None
    trust: bool
    backend: str | None
    cache: bool
    imports: tuple[str, ...] = ()
    distribute: str | None = None
    factors: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def take(spec: str, given: dict[str, Any]) -> InputOptions:
        """Take these options out of all those of a command, and read the multipliers.

        Raises:
            BadInput: If the file of multipliers is missing, damaged or wrong.
        """
        names = {each.name for each in fields(InputOptions)}.intersection(given)
        options = InputOptions(spec, **{name: given.pop(name) for name in names})
        if options.multipliers is None:
            return options
        return replace(options, factors=read_multipliers(options.multipliers))

    def load_model(self, lean: bool = False) -> tuple[Any, dict[Any, float]]:
        """Load the compiled model with its multipliers; return it and the multipliers by layer."""
        model = load_model(
            self.spec,
            trust=self.trust,
            optimizer=self.optimizer,
            loss=self.loss,
            metrics=self.metric,
            lean=lean,
        )
        if self.multipliers is None:
            return model, {}
        return model, put_multipliers(model, self.factors, self.multipliers)


@dataclass(frozen=True)
class Inputs:
    """The model and the data, loaded.

    Attributes:
        options: The options that named them.
        model: The compiled model.
        multipliers: The multipliers of its optimizer, by layer.
        given: The training data.
        held_out: The data of --validation; None without it.
        data_spec: The source of the training data.
        backend: The backend of Keras.
        own_code: Whether code of the user made the model or the data.
    """

    options: InputOptions
    model: Any
    multipliers: dict[Any, float]
    given: sources.Data
    held_out: sources.Data | None
    data_spec: str
    backend: str
    own_code: bool

    @property
    def validation(self) -> Any:
        """The `validation_data` of `fit`; None without --validation."""
        held_out = self.held_out
        if held_out is None:
            return None
        parts = (held_out.x, held_out.y, held_out.sample_weight)
        keep = 3 if held_out.sample_weight is not None else 2
        return parts[:keep] if held_out.is_arrays else held_out.x

    def arguments(self) -> dict[str, Any]:
        """The data as arguments of the library's functions, which take the same as `fit`."""
        given = self.given
        found = {"x": given.x, "y": given.y, "validation_data": self.validation}
        if given.is_arrays:
            found.update(batch_size=self.options.batch_size, sample_weight=given.sample_weight)
        return found

    @contextmanager
    def command_errors(self, *wrong: type[Exception]) -> Iterator[None]:
        """Turn errors of the library into `BadInput` and `RunFailed`.

        Args:
            wrong: Exceptions, besides ValueError and TypeError, that mean a wrong input.
        """
        import keras_lr

        try:
            yield
        except click.ClickException:
            raise
        except Exception as error:
            if getattr(self.given.x, "problem", None) is not None:
                raise self.given.x.problem from error
            if isinstance(error, (keras_lr.NoSuggestion, keras_lr.SearchError)):
                raise RunFailed(one_line(error)) from error
            if isinstance(error, (ValueError, TypeError, *wrong)):
                raise BadInput(_with_options(one_line(error))) from error
            raise


# Arguments of the library that are options of that name; the others have other values there.
_ARGUMENTS = (
    *("low", "high", "fraction", "epochs", "fine_rounds", "points", "final_seeds", "max_runs"),
    *("also", "objective", "mode", "pruner", "validation_split", "timeout", "heartbeat", "study"),
    *("storage", "monitor", "start_lr", "end_lr", "total_steps", "stop_factor", "repeats", "seed"),
)


def _with_options(text: str) -> str:
    """A message of the library with the options of the command in place of its arguments.

    >>> _with_options("low and high must be given together; got low=1 and high=None.")
    '--low and --high must be given together; got --low 1 and --high None.'
    >>> _with_options("The step logs no 'x'. Pass monitor='loss', or leave warmup out of also.")
    "The step logs no 'x'. Pass --monitor loss, or leave warmup out of --also."
    """
    names = "|".join(_ARGUMENTS)
    text = re.sub(
        rf"\b({names})=(?:'([\w-]+)'|([\w.-]*\w))",
        lambda found: (
            f"{flag_of(found[1])} {(found[2] or found[3]).replace('_', '-')}"
            if found[1] == "also"
            else f"{flag_of(found[1])} {found[2] or found[3]}"
        ),
        text,
    )
    begin = re.match(rf"(?:(?:{names}),? (?:and )?)+(?=must )", text)
    if begin:
        text = re.sub(names, lambda found: flag_of(found[0]), begin[0]) + text[begin.end() :]
    text = re.sub(r"^optimizer(?= must name)", "--optimizer-name", text)
    text = text.replace("With resume=False", "With --no-resume")
    text = text.replace("Pass None to run the ramp", "Pass inf to run the ramp")
    return re.sub(r"\b(out of also|below high)\b", lambda found: _last_flag(found[0]), text)


def _last_flag(words: str) -> str:
    before, _, argument = words.rpartition(" ")
    return f"{before} {flag_of(argument)}"


def _check_used(options: InputOptions, data: Sequence[str]) -> None:
    """Refuse --target if no source of data is a table: it would be ignored."""
    if options.target is None or any(map(sources.is_table, data)):
        return
    named = " and ".join(data) or "the default data"
    raise BadInput(f"--target chooses a column of a table; {named} is not a table.")


def read_inputs(
    options: InputOptions, outputs: Mapping[str, str | None], seed: int | None = None
) -> Inputs:
    """Import Keras and load the model and the data: quick checks first, slow ones last.

    Args:
        outputs: The files that the command will write, by the options that name them.
        seed: Seeds every generator before the model and the data are made, since layers draw the
            seed of their noise when they are made.

    Raises:
        BadInput: If a file is missing, damaged or cannot be written, or the data do not fit.
    """
    spec, size, validation = options.spec, options.batch_size, options.validation
    check_model_file(spec)
    data = options.data or sources.source_beside(spec)
    for source, option in ((data, "--data"), (validation, "--validation")):
        if source:
            sources.check_source(source, option, options.target, options.features, options.drop)
    read = [spec, *(source for source in (data, validation) if source)]
    _check_used(options, [source for source in (data, validation) if source])
    files = [path for source in read for path in sources.files_of(source)]
    check_outputs(outputs, [*files, *([options.multipliers] if options.multipliers else [])])
    own_code = bool(options.imports) or any(is_function(each) for each in read)
    backend = start(options.backend, cache=options.cache, lean=not own_code)
    if options.distribute:
        click.get_current_context().with_resource(distributed(options.distribute, backend))
    if seed is not None:
        import keras

        keras.utils.set_random_seed(seed % 2**32)
    import_modules(options.imports)
    model, multipliers = options.load_model(lean=not own_code)
    try_outputs(*outputs.values())
    if not data:
        beside = os.path.splitext(spec)[0] + ".npz"
        raise BadInput(
            f"No --data was given and there is no {beside}; the model takes "
            f"{describe_inputs(model)}."
        )
    columns: dict[str, Any] = {
        "target": options.target,
        "features": options.features,
        "drop": options.drop,
    }
    given = sources.load_data(data, model, batch_size=size, **columns)
    if size is not None and given.own_batches:
        raise BadInput(
            f"--batch-size cannot be used with {data}, which has batches of its own; leave it out."
        )
    check_data(given, model, data)
    held_out = None
    if validation:
        held_out = sources.load_data(
            validation, model, batch_size=size, classes=given.classes, validation=True, **columns
        )
        check_data(held_out, model, validation)
    if options.distribute:
        given = shared_equally(given, options.distribute)
        held_out = held_out and shared_equally(held_out, options.distribute)
    return Inputs(options, model, multipliers, given, held_out, data, backend, own_code)
