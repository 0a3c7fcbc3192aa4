"""Write docs/reference/json.md from the schemas of the output of --json.

python docs/json_reference.py            # write the page
python docs/json_reference.py --check    # exit with 1 if the page is not what this would write
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = ROOT / "cli" / "schemas"
PAGE = Path(__file__).with_name("reference") / "json.md"
INTRODUCTION = """\
# JSON output

With `--json` a command prints one JSON object on a line and nothing else to stdout (`keras-lr
diagnose` one for each log). The member `schema` names its schema with a version. The schemas are
[JSON Schema](https://json-schema.org) files in the package:

```python
import importlib.resources
import json

files = importlib.resources.files("keras_lr_cli") / "schemas"
schema = json.loads((files / "find.json").read_text("utf-8"))
print(schema["$id"])
```

Within a version, members may be added, and none is removed, renamed or changed in meaning; so
ignore members that you do not know. Numbers that are not finite are null or the text "inf". This
page is written by `python docs/json_reference.py`; a test validates real output of each command.
"""


def page() -> str:
    parts = [INTRODUCTION]
    for path in sorted(SCHEMAS.glob("*.json")):
        schema = json.loads(path.read_text("utf-8"))
        rows = [
            f"| `{name}` | {kind(each)} | {each.get('description', '')} |"
            for name, each in schema["properties"].items()
        ]
        head = f"## keras-lr {path.stem}\n\n{schema['title']}. Schema: `{schema['$id']}`.\n"
        parts.append(
            "\n".join([head, "| member | type | content |", "| --- | --- | --- |", *rows, ""])
        )
    return "\n".join(parts)


def kind(schema: dict[str, Any]) -> str:
    """The type of a member in words."""
    if "const" in schema:
        return f'"{schema["const"]}"'
    if "enum" in schema:
        return " or ".join("null" if each is None else f'"{each}"' for each in schema["enum"])
    named = schema.get("type", "any")
    return named if isinstance(named, str) else " or ".join(named)


def main() -> None:
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), "utf-8")
    elif PAGE.read_text("utf-8") != page():
        raise SystemExit(f"{PAGE.name} is out of date; run python docs/json_reference.py.")


if __name__ == "__main__":
    main()
