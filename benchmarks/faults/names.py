"""How do the commands print hostile names?

    python benchmarks/faults/names.py

Layers, metrics, files and the columns of a log get names with escape sequences, rich's markup, line
ends, bidirectional and zero-width characters, and formulas of Matplotlib; each command prints them.
Counted for each command: outputs; `raw`, outputs with a control or formatting character that a
terminal would interpret (any unprintable character but a line end); `lost`, outputs without the
answer that the command gives for a plain name, or with a traceback. Needs optuna.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PLAIN = "name"
NAMES = (
    "a\x1b[31mred",
    "a\x1b]0;title\x07",
    "a\x9b2Jb",
    "a\rb",
    "a\nb",
    "a\bb\tc",
    "\u202egnpabc",
    "a\u2066b\u200bc",
    "a[/all]",
    "[bold]b[/]",
    "[link=x",
    "a\\[b\\",
    ":smile: {0} %s",
    "$\\frac{$",
    "a\u2028b",
)
QUICK = "--epochs 1 --fine-rounds 0 --points 3 --final-seeds 1 --low 0.01 --high 1".split()


def cases(folder: Path, name: str) -> dict[str, list[str]]:
    """The commands that print this name, in their own folder."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    called = name.replace("/", "|")  # which Keras refuses in the name of a layer
    layers = [keras.Input((4,)), keras.layers.Dense(2, name=called), keras.layers.Softmax()]
    model = keras.Sequential(layers, name=f"model_{called}")
    measure = keras.metrics.SparseCategoricalAccuracy(name)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[measure])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(folder / "m.keras")
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    np.savez(folder / "m.npz", x=x, y=(x[:, 0] > 0).astype("int32"))
    column = '"' + name.replace('"', '""') + '"'
    rows = [f"epoch,loss,val_loss,{column}"]
    rows += [f"{i},{1 / (i + 1)},{1 / (i + 1) + i * 0.1},{i}" for i in range(12)]
    (folder / "log.csv").write_text("\n".join(rows) + "\n", newline="")
    beside = name.replace("\n", " ").replace("/", "|")
    model_file, log = str(folder / "m.keras"), str(folder / "log.csv")
    record = ["--storage", str(folder / "r.sqlite3"), "--study", name]
    return {
        "find": ["find", model_file, "--steps", "30", "--no-cache"],
        "find --save": [
            *["find", model_file, "--steps", "30", "--no-cache"],
            *["--save", str(folder / f"{beside}.json")],
        ],
        "search": ["search", model_file, *QUICK, *record, "--no-cache"],
        "search --objective": [
            *["search", model_file, *QUICK, *record[:2], "--study", "o", "--objective"],
            *[f"val_{name}", "--mode", "max", "--plot", str(folder / "s.png")],
        ],
        "layers": ["layers", model_file],
        "preview --csv": [
            *["preview", "one-cycle", "--max-lr", "0.1", "--steps", "20"],
            *["--csv", str(folder / f"{beside}.csv")],
        ],
        "diagnose": ["diagnose", log],
    }


def obeyed(text: str) -> str:
    """The characters that a terminal would interpret."""
    return "".join(sorted({c for c in text if c != "\n" and not c.isprintable()}))


def measure() -> tuple[str, int]:
    """The table as Markdown, and the number of wrong outputs."""
    from click.testing import CliRunner

    from keras_lr_cli import main as command_line

    def run(words: list[str]) -> tuple[int, str, bool]:
        result = CliRunner().invoke(command_line, words)
        crashed = result.exception is not None and not isinstance(result.exception, SystemExit)
        return result.exit_code, result.output, crashed or "Traceback" in result.output

    with tempfile.TemporaryDirectory() as place:
        plain = {what: run(words)[0] for what, words in cases(Path(place), PLAIN).items()}
    counts: dict[str, list[int]] = {what: [0, 0, 0] for what in plain}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as place:
            for what, words in cases(Path(place), name).items():
                code, text, crashed = run(words)
                found = counts[what]
                raw, lost = bool(obeyed(text)), crashed or code != plain[what]
                found[0] += 1
                found[1] += raw
                found[2] += lost
                if raw or lost:
                    told = text if lost else obeyed(text)
                    print(f"{what} {name!r}: exit {code}, {told!r}", file=sys.stderr)
    total = [sum(each) for each in zip(*counts.values(), strict=True)]
    lines = ["| command | outputs | raw | lost |", "| --- | --- | --- | --- |"]
    for what, found in [*counts.items(), ("all", total)]:
        told = what if what == "all" else f"`{what}`"
        lines.append(f"| {told} | {' | '.join(map(str, found))} |")
    return "\n".join(lines), total[1] + total[2]


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    text, wrong = measure()
    print(text)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
