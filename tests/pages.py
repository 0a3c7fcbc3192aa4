"""The pages that people read: README.md, docs/, and the other pages of the project."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
SITE = sorted((ROOT / "docs").rglob("*.md"))
OTHERS = [
    ROOT / name for name in ("benchmarks/README.md", "CONTRIBUTING.md", "examples/README.md",
                             "CHANGELOG.md", "SECURITY.md")
]  # fmt: skip
OTHERS += sorted((ROOT / "benchmarks" / "tables").glob("*.md"))
PAGES = [README, *SITE, *OTHERS]

FENCE = re.compile(r"^```(?P<kind>\w*)[^\n]*\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, kind: str) -> list[str]:
    """The fenced blocks of a page, of one kind ("" for blocks without a language)."""
    text = page.read_text("utf-8")
    return [found["code"] for found in FENCE.finditer(text) if found["kind"] == kind]


def source(page: Path) -> str:
    """The Python code of a page, each line at its line of the page."""
    text = page.read_text("utf-8")
    lines = [""] * (text.count("\n") + 1)
    for found in FENCE.finditer(text):
        if found["kind"] == "python":
            first = text.count("\n", 0, found.start()) + 1
            code = found["code"].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(lines)


def commands(page: Path, kind: str = "console") -> list[str]:
    """The calls of `keras-lr` on a page: after a prompt in "console", whole lines elsewhere."""
    lines = [line for block in blocks(page, kind) for line in block.splitlines()]
    if kind == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.startswith("keras-lr ")]


def links(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text("utf-8"))
    return [found["target"] or found["image"] for found in LINK.finditer(text)]


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub and MkDocs make them."""
    text = FENCE.sub("", page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
