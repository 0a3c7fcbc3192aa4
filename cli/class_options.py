"""Options of a command, made from the signature and the docstring of a class.

The source file of the class is parsed, not imported: help and the checks of options need no Keras.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

__all__ = ["Argument", "arguments_of", "flag_of", "option_of"]

REQUIRED = ...  # the default of an argument that has none
RATES = ("_lr", "learning_rate", "warmup_target")  # ends of the names of learning rates


@dataclass(frozen=True)
class Argument:
    """An argument of a class.

    Args:
        name: Its name.
        kind: Its annotation without `| None`, as in "float"; "" without an annotation.
        default: Its default, or `REQUIRED`.
        text: Its description in the `Args:` section of the class.
    """

    name: str
    kind: str
    default: Any
    text: str


def arguments_of(module: str, name: str) -> list[Argument]:
    """Return the arguments of a class, read from its source.

    Args:
        module: The module that defines the class, or a package that imports it.
        name: The class.

    Raises:
        LookupError: If the module neither defines nor imports the class.
    """
    module, node = _find_class(module, name)
    texts = _descriptions(ast.get_docstring(node) or "")
    inits = [each for each in node.body if getattr(each, "name", "") == "__init__"]
    if not inits:
        inherited = arguments_of(module, ast.unparse(node.bases[0]))
        return [
            Argument(each.name, each.kind, each.default, texts.get(each.name, each.text))
            for each in inherited
        ]
    (init,) = inits
    assert isinstance(init, ast.FunctionDef)  # noqa: S101
    positional, keywords = init.args.args[1:], init.args.kwonlyargs
    missing = len(positional) - len(init.args.defaults)
    defaults = [None] * missing + init.args.defaults + init.args.kw_defaults
    return [
        Argument(
            each.arg,
            ast.unparse(each.annotation).replace(" | None", "") if each.annotation else "",
            REQUIRED if default is None else ast.literal_eval(default),
            texts.get(each.arg, ""),
        )
        for each, default in zip([*positional, *keywords], defaults, strict=True)
    ]


def _find_class(module: str, name: str) -> tuple[str, ast.ClassDef]:
    """The class of that name, and the module in which it stands."""
    for node in _parsed(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and name in [each.name for each in node.names]:
            return _find_class(str(node.module), name)
    raise LookupError(f"{module} has no class {name}.")


@functools.cache
def _parsed(module: str) -> ast.Module:
    package, *path = module.split(".")
    spec = importlib.util.find_spec(package)  # of a package alone, it imports nothing
    if spec is None or spec.origin is None:
        raise LookupError(f"{package} is not installed.")
    file = Path(spec.origin).parent.joinpath(*path)
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _descriptions(docstring: str) -> dict[str, str]:
    """The descriptions in the `Args:` section, by argument."""
    section = docstring.partition("Args:\n")[2].split("\n\n")[0]
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", section, re.M)
    return {
        name: inspect.cleandoc(text).replace("\n", " ")
        for names, text in entries
        for name in names.split(", ")
    }


def option_of(
    argument: Argument, flag: str | None = None, *, negated: bool = False, **changes: Any
) -> click.Option:
    """Return the option for an argument, with its default and the first sentence of its text.

    The choices of a string are the words in double quotes in its description.

    Args:
        argument: An argument of kind "bool", "float", "int" or "str".
        flag: The name of the option; by default that of the argument.
        negated: Whether a bool has a `--no-` form too; always if its default is True.
        changes: Arguments of `click.Option` to use instead.
    """
    flag = flag or flag_of(argument.name)
    sentence = re.split(r"(?<=\.)\s", argument.text)[0].replace("`", "")
    given: dict[str, Any] = {"help": sentence}
    if argument.default is REQUIRED:
        given["required"] = True
    else:
        given.update(default=argument.default, show_default=argument.default is not None)
    if argument.kind == "bool":
        negated = negated or argument.default
        flag = f"{flag}/{flag.replace('--', '--no-', 1)}" if negated else flag
        given.update(is_flag=True, show_default=negated)
    elif argument.kind == "str":
        given["type"] = click.Choice(list(dict.fromkeys(re.findall('"(.+?)"', argument.text))))
    elif argument.kind == "int":
        given.update(type=int, metavar="N")
    else:
        given.update(type=float, metavar="RATE" if argument.name.endswith(RATES) else "X")
    return click.Option([flag, argument.name], **{**given, **changes})


def flag_of(argument: str) -> str:
    """Return the option's name for an argument: `--max-lr` for `max_lr`."""
    return "--" + argument.replace("_", "-")
