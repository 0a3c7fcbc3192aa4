"""Measurements kept as files of JSON, so that a long benchmark continues where it stopped."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def keep(path: Path, title: str, measure: Callable[[], Any]) -> None:
    """Write what `measure` returns to `path`, whole or not at all, unless the file exists."""
    if path.exists():
        return
    begin = time.perf_counter()
    print(f"{title} ...", file=sys.stderr, flush=True)
    answer = measure()
    new = path.with_suffix(".new")
    new.write_text(json.dumps(answer), "utf-8")
    new.replace(path)
    minutes = (time.perf_counter() - begin) / 60
    print(f"  {minutes:.1f} minutes", file=sys.stderr, flush=True)
