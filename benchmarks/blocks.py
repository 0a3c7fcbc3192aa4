"""The blocks of the pages that scripts make, each between two marks:

<!-- begin suggestion -->
...
<!-- end suggestion -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable

BLOCK = re.compile(
    r"^<!-- begin (?P<name>[\w-]+) -->\n(?P<text>.*?)^<!-- end (?P=name) -->$",
    re.DOTALL | re.MULTILINE,
)


def block(name: str, text: str | Iterable[str]) -> str:
    """The text, or the lines, between the marks with this name."""
    text = text if isinstance(text, str) else "".join(f"{line}\n" for line in text)
    return f"<!-- begin {name} -->\n{text}<!-- end {name} -->"


def blocks(page: str) -> dict[str, str]:
    """The text of each block of a page, by name."""
    return {found["name"]: found["text"] for found in BLOCK.finditer(page)}


def replaced(page: str, made: dict[str, str]) -> str:
    """The page with the blocks in `made` in place of its own."""
    return BLOCK.sub(
        lambda found: block(found["name"], made.get(found["name"], found["text"])), page
    )
