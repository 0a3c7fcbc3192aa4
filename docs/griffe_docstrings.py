"""What the reference needs to know of docstrings that griffe, which reads the source, does not.

- `takes_options` writes the options of a range test into the signature and the docstring of what it
  decorates. Here the same is done without importing anything.
- "low, high: The ends." in a list of attributes is two entries.
- An example with `>>>` becomes a block of code; Markdown would make it a quotation.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

import griffe

OPTIONS = Path(__file__).resolve().parents[1] / "keras_lr" / "range_test" / "options.py"
ATTRIBUTES = re.compile(r"^Attributes:\n(?:    .*\n?|\n)+", re.MULTILINE)
SEVERAL = re.compile(r"^    (\w+(?:, \w+)+): (.*\n?(?:        .*\n?)*)", re.MULTILINE)
EXAMPLE = re.compile(r"(?:^ *>>> .*\n(?: *\S.*\n)*)+", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Called by griffe for each object that it has read."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        self._rewrite(func, func)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        self._rewrite(cls, cls.members.get("__init__"))

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        self._rewrite(attr, None)

    def _rewrite(self, obj: griffe.Object, function: Any) -> None:
        if obj.docstring is None:
            return
        decorated = getattr(obj, "decorators", ())
        if any(str(each.value).endswith("takes_options") for each in decorated):
            self._take_options(obj, function)
        one_each = ATTRIBUTES.sub(lambda found: split(found[0]), obj.docstring.value)
        obj.docstring.value = with_fences(one_each)

    def _take_options(self, obj: griffe.Object, function: griffe.Function) -> None:
        options = range_test_options()
        entries = "\n".join(f"    {each.name}: {each.description}" for each in options)
        docstring = obj.docstring
        docstring.value, found = re.subn(
            r"^    options:.*\n(?:        .*\n)*",
            lambda _: f"{entries}\n",
            docstring.value,
            flags=re.M,
        )
        if found != 1:
            raise ValueError(f"The docstring of {obj.path} must have one entry 'options:'.")
        function.parameters = griffe.Parameters(
            *(p for p in function.parameters if p.kind is not griffe.ParameterKind.var_keyword),
            *(
                griffe.Parameter(
                    each.name, kind=griffe.ParameterKind.keyword_only, default=each.default
                )
                for each in options
            ),
        )


class Option(NamedTuple):
    name: str
    default: str
    description: str


def range_test_options() -> list[Option]:
    """The entries of `Options`, each `Annotated[type, default, description]`."""
    tree = ast.parse(OPTIONS.read_text("utf-8"))
    (options,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Options"]
    found = []
    for entry in options.body:
        if isinstance(entry, ast.AnnAssign):
            _, default, description = entry.annotation.slice.elts
            found.append(
                Option(entry.target.id, ast.unparse(default), ast.literal_eval(description))
            )
    return found


def split(attributes: str) -> str:
    """The section with an entry for each attribute."""

    def entries(found: re.Match[str]) -> str:
        text = found[2] if found[2].endswith("\n") else f"{found[2]}\n"
        return "".join(f"    {name}: {text}" for name in found[1].split(", "))

    return SEVERAL.sub(entries, attributes)


def with_fences(docstring: str) -> str:
    """The docstring with its examples in fences."""
    text = docstring if docstring.endswith("\n") else f"{docstring}\n"
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}```\n", text)
