"""Everything in the package that reads a file, each with a valid file.

A reader reads a file or refuses it in one sentence that names the file. `READERS` has a row for
each: how its file is made, the kind of the file (see `mutations.py`), and how it is read. Nothing
is trained: formulas replace the range test and the runs of a search.
"""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROWS, FEATURES, CLASSES = 64, 8, 4
LONGEST = 1200  # characters of a refusal; the command shortens longer ones


class Refused(Exception):
    """The file was refused as it should be; the text is the message."""


class Wrong(Exception):
    """The file was neither read nor refused in a sentence that names it."""


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        name: What it reads, for the table.
        kind: The kind of damage, a name in `mutations.INSIDE` or "".
        make: Writes a valid file into a folder and returns its path.
        read: Reads the file at a path; the folder holds the other files that it needs.
        backend: The backend that Keras must run on; "" for any.
        limit: Seconds for one file; a search also writes its record, and on SQLite to the disk.
    """

    name: str
    kind: str
    make: Callable[[Path], Path]
    read: Callable[[Path, Path], None]
    backend: str = ""
    limit: int = 10


# Refusals


@contextlib.contextmanager
def refusing(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """In the block the library reads `path`; these errors are its refusals."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except errors as error:
        _check_words(str(error), path)
        raise Refused(str(error)) from error


def command(path: Path, *arguments: object) -> None:
    """Run `keras-lr` on `path`: exit 0, or exit 2 and one line that says what is wrong."""
    from click.testing import CliRunner

    from keras_lr_cli import main

    result = CliRunner().invoke(main, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 0:
        return
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    if result.exit_code != 2 or len(errors) != 1 or result.stdout:
        raise Wrong(f"exit {result.exit_code}: {result.output}")
    _check_words(errors[0], path)
    raise Refused(errors[0])


def _check_words(text: str, path: Path) -> None:
    if path.stem not in text or len(text) > LONGEST or "Traceback" in text:
        raise Wrong(f"refused with the words: {text[:2000]!r}")


# Models and data, by `keras-lr find`


def model_of(shape: tuple[int, ...]) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(shape),
            *([layers.Conv2D(4, 3), layers.Flatten()] if len(shape) > 1 else []),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def arrays() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype("float32")
    return x, x[:, :CLASSES].argmax(axis=1).astype("int32")


def _ramp(*_: object, **__: object) -> Any:
    """A range test computed without training."""
    import keras_lr

    rates = np.geomspace(1e-6, 1.0, 60)
    return keras_lr.RangeTest(rates, 2.3 - 2.0 / (1 + (3e-3 / rates) ** 1.5) + 40 * rates**2)


def _find(path: Path, folder: Path, *arguments: object) -> None:
    with mock.patch("keras_lr.lr_find", _ramp):
        command(path, "find", *arguments, "--quiet")


def _saved(name: str, shape: tuple[int, ...] = (FEATURES,)) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model_of(shape).save(folder / name)
        return folder / name

    return make


def good_model(folder: Path) -> Path:
    """A valid model for damaged data."""
    path = folder / "good.keras"
    return path if path.exists() else _saved(path.name)(folder)


def good_data(folder: Path) -> Path:
    """Valid data for a damaged model."""
    x, y = arrays()
    np.savez(folder / "good.npz", x=x, y=y)
    return folder / "good.npz"


def _read_model(path: Path, folder: Path) -> None:
    _find(path, folder, path, "--data", folder / "good.npz")


def _read_data(path: Path, folder: Path) -> None:
    _find(path, folder, folder / "good.keras", "--data", path, "--target", "label")


def _make_model(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        good_data(folder)
        return _saved(name)(folder)

    return make


def _make_npz(folder: Path) -> Path:
    good_model(folder)
    x, y = arrays()
    np.savez(folder / "data.npz", x=x, y=y)
    return folder / "data.npz"


def _make_npy(folder: Path) -> Path:
    good_model(folder)
    x, y = arrays()
    np.save(folder / "data.npy", x)
    np.save(folder / "labels.npy", y)
    return folder / "data.npy"


def _read_npy(path: Path, folder: Path) -> None:
    _find(path, folder, folder / "good.keras", "--data", f"{path},{folder / 'labels.npy'}")


def _frame() -> Any:
    import pandas as pd

    x, y = arrays()
    return pd.DataFrame({**{f"f{i}": x[:, i] for i in range(FEATURES)}, "label": y})


def _make_csv(folder: Path) -> Path:
    good_model(folder)
    _frame().to_csv(folder / "data.csv", index=False)
    return folder / "data.csv"


def _make_parquet(folder: Path) -> Path:
    good_model(folder)
    _frame().to_parquet(folder / "data.parquet")
    return folder / "data.parquet"


def _make_images(ending: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        """A class with one image beside three valid ones; the damage is to the first."""
        from PIL import Image

        _saved("good_images.keras", (12, 12, 3))(folder)
        pixels = np.random.default_rng(0).integers(0, 255, (CLASSES, 12, 12, 3), dtype="uint8")
        for label, image in enumerate(pixels):
            place = folder / f"images_{ending}" / f"class{label}"
            place.mkdir(parents=True)
            Image.fromarray(image).save(place / f"image.{ending}")
        return place / f"image.{ending}"

    return make


def _read_images(path: Path, folder: Path) -> None:
    def ramp(model: Any, x: Any, *_: object, **__: object) -> Any:
        for index in range(len(x)):
            x[index]
        return _ramp()

    good = path.with_name(f"image{path.suffix}")
    content = good.read_bytes()
    good.write_bytes(path.read_bytes())
    path.unlink()
    try:
        with mock.patch("keras_lr.lr_find", ramp):
            model = folder / "good_images.keras"
            command(good, "find", model, "--data", path.parent.parent, "--quiet")
    finally:
        good.write_bytes(content)


def _make_texts(folder: Path) -> Path:
    import keras

    words = keras.layers.TextVectorization(output_mode="multi_hot", vocabulary=["good", "bad"])
    model = keras.Sequential([keras.Input((), dtype="string"), words, keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(folder / "good_texts.keras")
    for name in ("good", "bad"):
        place = folder / "texts" / name
        place.mkdir(parents=True)
        (place / "words.txt").write_text(f"{name} words and {name} ends\n" * 5)
    return place / "words.txt"


def _read_texts(path: Path, folder: Path) -> None:
    _find(path, folder, folder / "good_texts.keras", "--data", folder / "texts")


def _make_multipliers(folder: Path) -> Path:
    good_data(folder)
    good_model(folder)
    model = model_of((FEATURES,))
    names = [layer.name for layer in model.layers if layer.weights]
    values = {name: 0.5**place for place, name in enumerate(names)}
    model.save(folder / "good.keras")
    content = {"model": "good.keras", "multipliers": values, "parameters": 100}
    (folder / "layers.json").write_text(json.dumps(content))
    return folder / "layers.json"


def _read_multipliers(path: Path, folder: Path) -> None:
    data = folder / "good.npz"
    _find(path, folder, folder / "good.keras", "--data", data, "--multipliers", path)


# Results and logs


def _make_range_test(folder: Path) -> Path:
    import keras_lr

    test = _ramp()
    probes = keras_lr.Probes(
        [1e-4, 1e-3, 1e-2, 1e-1], [2.0, 0.5, 0.7, math.inf], [40] * 4, 2.2, 500, 160, -2.5
    )
    test = keras_lr.RangeTest(
        test.learning_rates,
        np.stack([test.losses, test.losses + 0.01]),
        metrics={"accuracy": 1 - test.losses / 10},
        validation={"learning_rates": test.learning_rates[::10], "loss": test.losses[::10]},
        probes=probes,
        provenance={"backend": "torch", "batch_size": 32},
    )
    test.save(folder / "range_test.json")
    return folder / "range_test.json"


def _read_range_test(path: Path, folder: Path) -> None:
    import keras_lr

    with refusing(path, ValueError, OSError):
        test = keras_lr.RangeTest.load(path)
    # The loaded result must support its usual uses.
    test.to_dict()
    with warnings.catch_warnings(), contextlib.suppress(keras_lr.NoSuggestion):
        warnings.simplefilter("ignore")
        test.suggest()
        test.bounds()


def _history() -> dict[str, list[float]]:
    epochs = np.arange(12)
    return {
        "loss": list(2.3 * 0.8**epochs),
        "accuracy": list(1 - 0.9 * 0.8**epochs),
        "val_loss": list(2.3 * 0.82**epochs + 0.02 * epochs),
        "learning_rate": list(1e-3 * 0.9**epochs),
    }


def _make_training_csv(folder: Path) -> Path:
    columns = {"epoch": range(12), **_history()}
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values()))]  # noqa: B905
    (folder / "training.csv").write_text("\n".join(rows) + "\n")
    return folder / "training.csv"


def _make_history(folder: Path) -> Path:
    content = {"history": _history(), "epoch": list(range(12)), "params": {"epochs": 12}}
    (folder / "history.json").write_text(json.dumps(content))
    return folder / "history.json"


def _make_lines(folder: Path) -> Path:
    rows = [dict(zip(_history(), row)) for row in zip(*_history().values())]  # noqa: B905
    lines = [json.dumps({"epoch": epoch, **row}) for epoch, row in enumerate(rows)]
    (folder / "training.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "training.jsonl"


def _make_events(folder: Path) -> Path:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    place = folder / "logs" / "train"
    writer = EventFileWriter(str(place))
    for name in ("loss", "accuracy", "learning_rate"):
        for step, number in enumerate(_history()[name]):
            value = Summary.Value(tag=f"epoch_{name}", simple_value=number)
            writer.add_event(Event(step=step, wall_time=step, summary=Summary(value=[value])))
    writer.close()
    (path,) = place.iterdir()
    return path


def _read_log(path: Path, folder: Path) -> None:
    command(path, "diagnose", path, "--json")


# Files that a run continues from


def _make_rates(folder: Path) -> Path:
    columns = "epoch,step,learning_rate,momentum"
    rows = [f"{step // 4},{step},{0.1 * 0.9**step},0.9" for step in range(12)]
    (folder / "rates.csv").write_text("\r\n".join([columns, *rows]) + "\r\n")
    return folder / "rates.csv"


def _read_rates(path: Path, folder: Path) -> None:
    """A run resumed in its third epoch continues the file of `LRLogger`."""
    import keras

    import keras_lr

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    x = np.ones((8, 2), "float32")
    logger = keras_lr.LRLogger(path)
    content = path.read_bytes()
    try:
        with refusing(path, ValueError, OSError):
            model.fit(
                x, x[:, :1], batch_size=2, epochs=4, initial_epoch=2, verbose=0,
                callbacks=[logger],
            )  # fmt: skip
    except Refused:
        if path.read_bytes() != content:
            raise Wrong("it was refused and changed all the same") from None
        raise
    if not path.read_bytes().endswith(b"\r\n"):
        raise Wrong("the file that goes on ends in the middle of a line")


def _searched(path: Path, storage: str, **options: Any) -> Any:
    import keras

    import keras_lr
    from keras_lr.rate_search import storage as places
    from keras_lr.rate_search.plan import Outcome
    from keras_lr.rate_search.runner import Runner

    def run(self: Any, job: Any, report: Any = None) -> Any:
        loss = 0.5 + math.log10(job.setting.learning_rate / 0.02) ** 2 + 0.01 * job.seed
        for epoch in (1, 2):
            report(epoch, loss / epoch)
        history = {"loss": [loss, loss / 2], "val_loss": [loss, loss / 2]}
        return Outcome(job, "finished", loss / 2, history, 0.1)

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with (
        mock.patch.object(Runner, "run", run),
        mock.patch.object(places, "GRACE", 1),
        refusing(path, keras_lr.SearchError, ValueError),
    ):
        return keras_lr.search(
            model, *arrays(), storage=storage, low=1e-3, high=1.0, epochs=2, fine_rounds=1,
            points=3, final_seeds=1, heartbeat=1, verbose=0, **options,
        )  # fmt: skip


def _make_search(name: str, prefix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        _searched(folder / name, f"{prefix}{folder / name}")
        return folder / name

    return make


def _read_search(prefix: str) -> Callable[[Path, Path], None]:
    def read(path: Path, folder: Path) -> None:
        found = _searched(path, f"{prefix}{path}")
        json.dumps(found.to_dict(), allow_nan=False)
        str(found)

    return read


def _make_settings(folder: Path) -> Path:
    (folder / "keras.json").write_text(json.dumps({"floatx": "float32", "backend": "torch"}))
    return folder / "keras.json"


def _read_settings(path: Path, folder: Path) -> None:
    """Keras's settings file, from which the command takes the backend."""
    from keras_lr_cli import startup

    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / "keras.json").write_bytes(path.read_bytes())
    with mock.patch.dict("os.environ", KERAS_HOME=str(home)):
        assert startup._backend_of_settings() in startup.BACKENDS


READERS = (
    Reader("range test, JSON", "json", _make_range_test, _read_range_test),
    Reader("model, .keras", "zip", _make_model("model.keras"), _read_model),
    Reader("model, .h5", "h5", _make_model("model.h5"), _read_model),
    Reader("data, .npz", "zip", _make_npz, _read_data),
    Reader("data, .npy", "npy", _make_npy, _read_npy),
    Reader("data, .csv", "csv", _make_csv, _read_data),
    Reader("data, .parquet", "", _make_parquet, _read_data),
    Reader("data, .png in folders", "", _make_images("png"), _read_images),
    Reader("data, .jpg in folders", "", _make_images("jpg"), _read_images),
    Reader("data, .txt in folders", "", _make_texts, _read_texts, "tensorflow"),
    Reader("multipliers, JSON", "json", _make_multipliers, _read_multipliers),
    Reader("log, CSV", "csv", _make_training_csv, _read_log),
    Reader("log, JSON of a History", "json", _make_history, _read_log),
    Reader("log, JSON in lines", "lines", _make_lines, _read_log),
    Reader("log, TensorBoard", "events", _make_events, _read_log),
    Reader("CSV of `LRLogger`, going on", "csv", _make_rates, _read_rates),
    Reader(
        "search, SQLite", "sqlite", _make_search("search.sqlite3", ""), _read_search(""),
        limit=60,
    ),
    Reader(
        "search, journal", "lines", _make_search("search.log", "journal:"),
        _read_search("journal:"), limit=60,
    ),
    Reader("Keras's settings", "json", _make_settings, _read_settings),
)  # fmt: skip
