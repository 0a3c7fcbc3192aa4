"""Prepare README.md and setup.cfg for a package registry, which knows no repository.

    python .github/for_registry.py OWNER/NAME v0.2.0

Links and images of README.md become absolute, at the tag; setup.cfg gets the project's addresses.
The release workflow calls this in its own checkout. The result is not committed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(
    r"(?P<image>!?)(?P<text>\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<target>(?!https?:|#)[^)\s]+)\)"
)


def with_absolute_links(readme: str, repository: str, tag: str) -> str:
    def link(found: re.Match[str]) -> str:
        host = f"https://raw.githubusercontent.com/{repository}/{tag}"
        if not found["image"]:
            host = f"https://github.com/{repository}/blob/{tag}"
        return f"{found['image']}{found['text']}({host}/{found['target']})"

    return LINK.sub(link, readme)


def with_addresses(setup: str, repository: str) -> str:
    home = f"https://github.com/{repository}"
    lines = [
        f"url = {home}",
        "project_urls =",
        f"    Source = {home}",
        f"    Issues = {home}/issues",
        f"    Changelog = {home}/blob/main/CHANGELOG.md",
        f"    Documentation = {home}/blob/main/docs/index.md",
    ]
    return setup.replace("\nlicense = ", "\n" + "\n".join([*lines, "license = "]), 1)


def main(repository: str, tag: str) -> None:
    for file, change in (
        (ROOT / "README.md", lambda text: with_absolute_links(text, repository, tag)),
        (ROOT / "setup.cfg", lambda text: with_addresses(text, repository)),
    ):
        file.write_text(change(file.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
