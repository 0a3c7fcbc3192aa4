"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

__all__ = ["data_options", "import_option", "model_options", "options", "process_options"]


def options(*groups: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Apply option decorators in the order in which help shows them."""

    def decorate(function: Any) -> Any:
        for option in reversed(groups):
            function = option(function)
        return function

    return decorate


import_option = click.option(
    "--import",
    "imports",
    metavar="MODULE",
    multiple=True,
    help="Import a module that registers classes; repeatable.",
)
data_options = options(
    click.option(
        "--data", metavar="SRC", help="Training data; by default the .npz file beside MODEL."
    ),
    click.option("--target", metavar="COL", help="Column of a table to predict."),
    click.option("--features", metavar="COLS", help="Columns that MODEL takes, as in a,b,c."),
    click.option("--drop", metavar="COLS", help="Columns of a table to leave out."),
    click.option(
        "--validation", metavar="SRC", help="Held-out data; by default a part of the training data."
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Examples in a batch; 32 by default.",
    ),
    click.option(
        "--shuffle/--no-shuffle",
        default=True,
        help="Whether to shuffle the training data.",
        show_default=True,
    ),
)
model_options = options(
    click.option("--optimizer", metavar="NAME", help="Compile with this optimizer."),
    click.option("--loss", metavar="NAME", help="Compile with this loss."),
    click.option(
        "--metric", metavar="NAME", multiple=True, help="Compile with this metric; repeatable."
    ),
    click.option(
        "--multipliers",
        metavar="FILE",
        help="JSON with a multiplier for each layer, as from keras-lr layers --json.",
    ),
    import_option,
    click.option("--trust", is_flag=True, help="Run the code that MODEL carries (Lambda)."),
)
process_options = options(
    click.option("--backend", metavar="NAME", help="Backend of Keras: tensorflow, jax or torch."),
    click.option(
        "--cache/--no-cache",
        default=True,
        show_default=True,
        help="Keep the programs that JAX compiles.",
    ),
    click.option("--traceback", is_flag=True, help="Show the traceback of an error."),
)
