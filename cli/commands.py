"""The command group, and how every command ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from .diagnose import diagnose
from .errors import Interrupted, one_line
from .find import find
from .layers import layers
from .preview import preview
from .search import search
from .shell import fit_to_terminal
from .signals import leave, stop_signals

__all__ = ["main"]

# Click's words for a wrong kind of value, and plain ones.
_KINDS = {
    f"is not a valid {kind}{span}.": f"is not {words}."
    for kind, words in {"integer": "an integer", "float": "a number"}.items()
    for span in ("", " range")
}
EPILOG = "Example: keras-lr find model.keras --data train.npz --plot range_test.png"


class Group(click.Group):
    """A group that reports each error in one line on stderr.

    It exits with 130 on Ctrl-C, SIGTERM and SIGHUP.
    """

    def invoke(self, ctx: click.Context) -> Any:
        with stop_signals() as stop:
            ctx.obj = stop
            return super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except Interrupted as error:
            click.echo(error.format_message(), err=True)
            code = error.exit_code
            if sys.stdout is sys.__stdout__:  # not in a test, nor in a program that calls this one
                leave(code)
        except click.ClickException as error:
            where = getattr(error, "ctx", None)
            hint = f" Try '{where.command_path} --help'." if where else ""
            message = one_line(error.format_message(), 1200)
            for kind, words in _KINDS.items():
                message = message.replace(kind, words)
            click.echo(f"Error: {message}{hint}", err=True)
            code = error.exit_code
        except click.Abort:  # Ctrl-C before a command has begun
            code = Interrupted.exit_code
        except OSError as error:  # stdout is full, or closed: `keras-lr ... | head`
            if error.errno != errno.EPIPE:
                click.echo(f"Error: The answer could not be written: {one_line(error)}", err=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"keras-lr {version('keras-lr')}")
        context.exit()


@click.group(cls=Group, epilog=EPILOG)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Find a learning rate for a Keras 3 model; the model is not changed."""


main.add_command(diagnose)
main.add_command(find)
main.add_command(layers)
main.add_command(preview)
main.add_command(search)
fit_to_terminal(main)
