"""Make pages that read well on a repository's site into pages of the documentation.

A page of one line, "This page is [benchmarks/README.md](../benchmarks/README.md).", becomes that
file. Links to files outside of docs/ lead to the page that such a file has, or become plain text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
STUB = re.compile(r"This page is \[(?P<file>[^]]+)\]\([^)]+\)\.\n")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def stubs() -> dict[str, str]:
    """The page in docs/ of each file that has one."""
    found = {"README.md": "index.md"}
    for page in DOCS.rglob("*.md"):
        match = STUB.fullmatch(page.read_text("utf-8"))
        if match:
            found[match["file"]] = page.relative_to(DOCS).as_posix()
    return found


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs with the text of each page."""
    match = STUB.fullmatch(markdown)
    file = match["file"] if match else f"docs/{page.file.src_uri}"
    if match:
        markdown = (ROOT / file).read_text("utf-8")
    return outside_code(markdown, lambda text: relinked(text, file, page.file.src_uri))


def relinked(text: str, file: str, page: str) -> str:
    """The text of a file, with links that hold on a page of docs/."""
    pages = stubs()

    def link(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if not target or ":" in target:
            return match[0]
        at = os.path.normpath(PurePosixPath(file).parent / target)
        if not (ROOT / at).exists():
            return match[0]  # the strict build reports it
        at = f"docs/{pages[at]}" if at in pages else at
        if not at.startswith("docs/"):
            return match["text"]
        to = os.path.relpath(at.removeprefix("docs/"), PurePosixPath(page).parent)
        return f"[{match['text']}]({to}{anchor})"

    return LINK.sub(link, text)


def outside_code(text: str, change: Any) -> str:
    """Apply a change to everything but the fenced blocks of a page."""
    parts, end = [], 0
    for block in FENCE.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])
