"""Write docs/reference/cli.md from the help texts of the command line.

python docs/cli_reference.py            # write the page
python docs/cli_reference.py --check    # exit with 1 if the page is not what this would write
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.testing import CliRunner

from keras_lr_cli import main as command

PAGE = Path(__file__).with_name("reference") / "cli.md"
INTRODUCTION = """\
# All options

`keras-lr COMMAND --help` prints these texts. [The command line](command_line.md) explains models,
data, files and exit codes.
"""


def page() -> str:
    """The page: the help of each command, those of `preview` after it."""
    parts = [INTRODUCTION, section("keras-lr", [])]
    for name, each in sorted(command.commands.items()):
        parts.append(section(f"keras-lr {name}", [name]))
        if isinstance(each, click.Group):
            context = each.make_context(name, [], resilient_parsing=True)
            for inner in each.list_commands(context):
                parts.append(section(f"keras-lr {name} {inner}", [name, inner], "###"))
    return "\n".join(parts)


def section(title: str, arguments: list[str], level: str = "##") -> str:
    done = CliRunner().invoke(command, [*arguments, "--help"], terminal_width=80, color=False)
    if done.exit_code:
        raise SystemExit(f"{title} --help failed: {done.output}")
    text = done.stdout.replace("Usage: main", "Usage: keras-lr").rstrip()
    return f"{level} {title}\n\n```text\n{text}\n```\n"


def main() -> None:
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), "utf-8")
    elif PAGE.read_text("utf-8") != page():
        raise SystemExit(f"{PAGE.name} is out of date; run python docs/cli_reference.py.")


if __name__ == "__main__":
    main()
