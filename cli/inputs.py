"""A model and its data, read for a command that trains."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import click

from . import data as sources
from .distribution import distributed, shared_equally
from .errors import BadInput, RunFailed, one_line
from .functions import import_modules, is_function
from .models import check_model_file, load_model
from .multipliers import put_multipliers, read_multipliers
from .outputs import check_outputs, try_outputs
from .startup import start

__all__ = ["Asked", "Inputs", "read_inputs"]


@dataclass(frozen=True)
class Asked:
    """What the options that a command shares with others name: a model, data, a backend.

    `multipliers` is a file, `factors` what it holds; `distribute` a name of `STRATEGIES`, and
    until the command ends Keras trains on all devices then.
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
    def taken(spec: str, options: dict[str, Any]) -> Asked:
        """Take these options out of all that a command was given, and read the multipliers.

        Raises:
            BadInput: If that file is missing, damaged or wrong.
        """
        names = {each.name for each in fields(Asked)}.intersection(options)
        asked = Asked(spec, **{name: options.pop(name) for name in names})
        if asked.multipliers is None:
            return asked
        return replace(asked, factors=read_multipliers(asked.multipliers))

    def load_model(self, lean: bool = False) -> tuple[Any, dict[Any, float]]:
        """The compiled model, with its multipliers in it; and these, by layer."""
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
    """What was read.

    Attributes:
        asked: What the options named.
        model: The compiled model.
        multipliers: Those that were put into it, by layer.
        given: The training data.
        held_out: The data of --validation; None without it.
        data_spec: Where the training data came from.
        backend: What Keras runs on.
        own_code: Whether code of the user's made the model or the data.
    """

    asked: Asked
    model: Any
    multipliers: dict[Any, float]
    given: sources.Data
    held_out: sources.Data | None
    data_spec: str
    backend: str
    own_code: bool

    @property
    def validation(self) -> Any:
        """What `fit` takes as `validation_data`; None without --validation."""
        held_out = self.held_out
        if held_out is None:
            return None
        parts = (held_out.x, held_out.y, held_out.sample_weight)
        keep = 3 if held_out.sample_weight is not None else 2
        return parts[:keep] if held_out.is_arrays else held_out.x

    def arguments(self) -> dict[str, Any]:
        """The data as arguments of the library's functions, which take them as `fit` does."""
        given = self.given
        found = {"x": given.x, "y": given.y, "validation_data": self.validation}
        if given.is_arrays:
            found.update(batch_size=self.asked.batch_size, sample_weight=given.sample_weight)
        return found

    @contextmanager
    def telling(self, *wrong: type[Exception]) -> Iterator[None]:
        """In the block the library works on them; what it refuses is told in one line.

        Args:
            wrong: What else but ValueError and TypeError says that the input is wrong.
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
                raise BadInput(one_line(error)) from error
            raise


def read_inputs(asked: Asked, outputs: Mapping[str, str | None], seed: int | None = None) -> Inputs:
    """Import Keras and read the model and the data: the quick checks first, the slow ones last.

    Args:
        outputs: The files that the command will write, by the options that name them.
        seed: Seeds every generator before the model and the data are made: layers choose the
            seed of their noise when they are made.

    Raises:
        BadInput: If something is missing, damaged, does not fit or cannot be written.
    """
    spec, size, validation = asked.spec, asked.batch_size, asked.validation
    check_model_file(spec)
    data = asked.data or sources.source_beside(spec)
    for source, option in ((data, "--data"), (validation, "--validation")):
        if source:
            sources.check_source(source, option, asked.target, asked.features, asked.drop)
    read = [spec, *(source for source in (data, validation) if source)]
    check_outputs(outputs, [*read, *([asked.multipliers] if asked.multipliers else [])])
    own_code = bool(asked.imports) or any(is_function(each) for each in read)
    backend = start(asked.backend, cache=asked.cache, lean=not own_code)
    if asked.distribute:
        click.get_current_context().with_resource(distributed(asked.distribute, backend))
    if seed is not None:
        import keras

        keras.utils.set_random_seed(seed % 2**32)
    import_modules(asked.imports)
    model, multipliers = asked.load_model(lean=not own_code)
    from .checks import check_data, describe_inputs

    try_outputs(*outputs.values())
    if not data:
        beside = os.path.splitext(spec)[0] + ".npz"
        raise BadInput(
            f"No --data was given and there is no {beside}; the model wants "
            f"{describe_inputs(model)}."
        )
    columns: dict[str, Any] = {
        "target": asked.target,
        "features": asked.features,
        "drop": asked.drop,
    }
    given = sources.load_data(data, model, batch_size=size, **columns)
    check_data(given, model, data)
    held_out = None
    if validation:
        held_out = sources.load_data(
            validation, model, batch_size=size, classes=given.classes, validation=True, **columns
        )
        check_data(held_out, model, validation)
    if asked.distribute:
        given = shared_equally(given, asked.distribute)
        held_out = held_out and shared_equally(held_out, asked.distribute)
    return Inputs(asked, model, multipliers, given, held_out, data, backend, own_code)
