"""`keras-lr layers`: the layers of a saved model, and a multiplier for each."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from .errors import BadInput, ending, one_line, visible
from .options import import_option
from .outputs import schema_of
from .text import can_draw, is_narrow, table_box, table_text, width

__all__ = ["layers", "rows_of"]

PRESETS = {  # the numbers after the name, separated by colons; those of decay may lack the last
    "decay": ("FACTOR", "MIN_SCALE"),
    "head": ("FACTOR",),
    "discriminative": ("LOW", "HIGH"),
}
COLUMNS = ("Parameters", "Share", "Trains", "Multiplier")
FORMS = "decay:FACTOR[:MIN_SCALE], head:FACTOR or discriminative:LOW:HIGH"


@click.command(
    short_help="Show MODEL's layers and multipliers of their rates.",
    epilog="Example: keras-lr layers model.keras --preset decay:0.75",
)
@click.argument("model", metavar="MODEL")
@click.option("--preset", metavar="RECIPE", help="Compute multipliers; see above.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
@import_option
@click.option("--trust", is_flag=True, help="Run the code that MODEL carries (Lambda).")
@click.option("--backend", metavar="NAME", help="Backend of Keras: tensorflow, jax or torch.")
@click.option("--traceback", "show", is_flag=True, help="Show the traceback of an error.")
def layers(
    model: str,
    preset: str | None,
    as_json: bool,
    imports: tuple[str, ...],
    trust: bool,
    backend: str | None,
    show: bool,
) -> None:
    """Show the layers of MODEL, and a multiplier of the learning rate for each.

    MODEL is a .keras or .h5 file, or module:function that returns a model. It
    is not changed. Without --preset, the multipliers are those of MODEL's
    optimizer, or 1. keras-lr find --multipliers reads the output of --json,
    also after you have edited it.

    \b
    RECIPE is one of
      decay:0.75                 each block 0.75 times the next; the head has 1
      decay:0.75:0.01            the same, with no multiplier below 0.01
      head:10                    10 for the head or all heads, 1 for the others
      discriminative:1e-5:1e-3   learning rates from the first block to the head
    """
    from .quiet import short_warnings

    with ending("Could not show the layers.", show), short_warnings():
        _layers(model, preset, as_json, imports, trust, backend)


@dataclass(frozen=True)
class Row:
    """A layer in the table; its multiplier is None if nothing trains or it varies."""

    label: str
    kind: str
    parameters: int
    trained: int
    multiplier: float | None

    @property
    def shown_multiplier(self) -> str:
        return "varies" if self.multiplier is None else f"{self.multiplier:.3g}"


def rows_of(model: Any) -> list[Row]:
    """The layers of a model, each with its multiplier in the model's optimizer, or 1."""
    from keras_lr.optimizers.layer_keys import keys_of
    from keras_lr.optimizers.model_parts import parts_of

    parts = parts_of(model)
    trained = [part for part in parts if part.trained]
    keys = keys_of(trained, model)
    present = _present(model, trained, keys)
    of = {id(part): present.get(key) for part, key in zip(trained, keys, strict=True)}
    return _rows(parts, of)


def _rows(parts: list[Any], of: dict[int, float | None]) -> list[Row]:
    return [
        Row(
            part.label,
            type(part.layer).__name__,
            _size(part.weights),
            _size(part.trained),
            of.get(id(part)),
        )
        for part in parts
    ]


def _layers(
    spec: str,
    preset: str | None,
    as_json: bool,
    imports: tuple[str, ...],
    trust: bool,
    backend: str | None,
) -> None:
    from .functions import import_modules, is_function
    from .model_files import check_model_file
    from .models import load_model
    from .multipliers import in_python
    from .quiet import stdout_to_stderr
    from .startup import start

    recipe = None if preset is None else _recipe(preset)
    check_model_file(spec)
    lean = not imports and not is_function(spec)
    with stdout_to_stderr():
        backend = start(backend, lean=lean)
        import_modules(imports)
        model = load_model(spec, trust=trust, compiled=False, lean=lean)
        from keras_lr.optimizers.blocks import groups_of
        from keras_lr.optimizers.layer_keys import keys_of
        from keras_lr.optimizers.model_parts import parts_of

        if not model.built:
            raise BadInput(
                f"{spec} returned a model that has no weights yet; add an Input, or call its "
                "build(input_shape)."
            )
        parts = parts_of(model)
        trained = [part for part in parts if part.trained]
        keys = keys_of(trained, model)
        chosen, rate = recipe(model) if recipe else (_present(model, trained, keys), None)
        of = {id(part): chosen.get(key) for part, key in zip(trained, keys, strict=True)}
        of = {place: 1.0 if recipe and value is None else value for place, value in of.items()}
        names = {id(key): part.label for part, key in zip(trained, keys, strict=True)}
        if len(chosen) < len(trained) and not recipe:
            chosen = {}  # one number for each layer cannot describe these multipliers
        python = in_python(model, chosen, rate) if chosen else ""
        groups = len(groups_of(model)) if preset and not preset.startswith("head") else None
    rows = _rows(parts, of)
    if as_json:
        as_text = {
            key if isinstance(key, str) else names[id(key)]: value for key, value in chosen.items()
        }
        answer = {
            "schema": schema_of("layers"),
            "model": spec,
            "preset": preset,
            "backend": backend,
            "learning_rate": rate,
        }
        answer["groups"] = groups
        click.echo(_json(answer, rows, as_text, python))
        return
    click.echo(_text(rows, groups, rate, python))


# Recipes


def _recipe(text: str) -> Callable[[Any], tuple[dict[Any, float], float | None]]:
    """A function of a model that returns multipliers, and the learning rate that they are for."""
    name, *numbers = text.split(":")
    most = len(PRESETS.get(name, ()))
    if name not in PRESETS or not (1 if name == "decay" else most) <= len(numbers) <= most:
        raise BadInput(f"--preset must be {FORMS}; got {text!r}.")
    values = []
    for number in numbers:
        try:
            values.append(float(number))
        except ValueError as error:
            raise BadInput(f"--preset {text}: {number!r} is not a number.") from error

    def make(model: Any) -> tuple[dict[Any, float], float | None]:
        import keras_lr

        try:
            if name == "decay":
                scale = values[1] if len(values) > 1 else None
                return keras_lr.layer_decay(model, values[0], min_scale=scale), None
            if name == "head":
                return keras_lr.boost_head(model, factor=values[0]), None
            return keras_lr.discriminative(model, *values), values[1]
        except (ValueError, TypeError) as error:
            raise BadInput(f"--preset {text}: {one_line(error)}") from error

    return make


def _present(model: Any, trained: list[Any], keys: list[Any]) -> dict[Any, float]:
    """The multipliers in the model's optimizer, without layers in which they vary; 1 without."""
    from keras_lr.optimizers import LayerwiseLR

    optimizer = model.optimizer if getattr(model, "compiled", False) else None
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not isinstance(optimizer, LayerwiseLR):
        return dict.fromkeys(keys, 1.0)
    multipliers = optimizer.multipliers_in(model)
    of = dict(zip(map(id, model.trainable_variables), multipliers, strict=True))
    found = {}
    for part, key in zip(trained, keys, strict=True):
        own = {of[id(weight)] for weight in part.trained}
        if len(own) == 1 and not any(each.curves for each in own):
            found[key] = own.pop().number
    return found


def _size(weights: list[Any]) -> int:
    return sum(math.prod(map(int, weight.shape)) for weight in weights)


# The answer


def _json(
    answer: dict[str, Any], rows: list[Row], multipliers: dict[str, float], python: str
) -> str:
    total = sum(row.parameters for row in rows)
    answer["parameters"] = total
    answer["trainable_parameters"] = sum(row.trained for row in rows)
    answer["layers"] = [
        {
            "path": row.label,
            "class": row.kind,
            "parameters": row.parameters,
            "trainable_parameters": row.trained,
            "trainable": row.trained > 0,
            "share": row.parameters / total if total else 0.0,
            "multiplier": row.multiplier,
        }
        for row in rows
    ]
    return json.dumps({**answer, "multipliers": multipliers, "python": python}, allow_nan=False)


def _text(rows: list[Row], groups: int | None, rate: float | None, python: str) -> str:
    total = sum(row.parameters for row in rows)
    without = sum(not row.parameters for row in rows)
    summary = f"{total:,} parameters, {sum(row.trained for row in rows):,} of them train."
    if without:
        summary += f" {without} {'layer' if without == 1 else 'layers'} without weights not shown."
    blocks = [_table([row for row in rows if row.parameters], total), _filled(summary)]
    if groups is not None:
        smallest = min(row.multiplier for row in rows if row.multiplier is not None)
        number = f"{groups} group" if groups == 1 else f"{groups} groups"
        blocks.append(_filled(f"{number} of layers; the smallest multiplier is {smallest:.3g}."))
    if rate is not None:
        blocks.append(
            _filled(f"Set the optimizer's learning rate to {rate:g}, the rate of the head.")
        )
    if any(row.trained and row.multiplier is None for row in rows):
        blocks.append(_filled("A multiplier that varies changes over time or within the layer."))
    if python:
        blocks.append("In Python:\n" + textwrap.indent(python, "  "))
    return "\n\n".join(block for block in blocks if block)


def _filled(text: str) -> str:
    return textwrap.fill(text, width())


def _table(rows: list[Row], total: int) -> str:
    from rich.table import Table

    table = Table(**table_box(can_draw()))
    table.add_column("Layer", overflow="fold")
    names = ("Parameters", "Multiplier") if is_narrow() else COLUMNS
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = {
            "Parameters": f"{row.parameters:,}",
            "Share": f"{row.parameters / total:.1%}",
            "Trains": "yes" if row.trained else "no",
            "Multiplier": "-" if not row.trained else row.shown_multiplier,
        }
        table.add_row(visible(row.label), *(cells[name] for name in names))
    return table_text(table)
