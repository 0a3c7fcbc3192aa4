"""The jobs that `soak.py` kills: `python jobs.py KIND FOLDER` runs a job of that kind in a folder.

Started again in the same folder, a job continues or repeats its work. All its results are in the
folder at the end; the file `began` appears when the work begins, and `busy` exists while Keras
writes its backup.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

if "keras" not in sys.modules:
    # Keras imports them if installed, which takes seconds.
    for package in {"tensorflow", "jax", "torch", "sklearn"} - {os.environ["KERAS_BACKEND"]}:
        sys.modules[package] = None  # type: ignore[assignment]

import keras
import numpy as np

import keras_lr
from keras_lr_cli import main as command_line

# Imported here, so that forked processes have them at once.
for _name in (
    "h5py", "matplotlib.backends.backend_agg", "optuna.storages.journal", "sqlalchemy", "PIL.Image",
    "keras_lr.plotting", "keras_lr.rate_search.study", "keras_lr_cli.inputs", "torch._dynamo",
):  # fmt: skip
    with contextlib.suppress(ImportError):
        importlib.import_module(_name)

EPOCHS, BATCHES, BATCH_SIZE, FEATURES, CLASSES = 6, 5, 8, 8, 4
OUTPUTS = ("curve.json", "curve.png")
SEARCHES = {"search, SQLite": "search.sqlite3", "search, journal": "journal:search.log"}
GRACE = 2  # heartbeats of a second that a process may miss, so that a dead one is found soon


def data(rows: int = BATCHES * BATCH_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Rows with a noisy class, the same each time."""
    random = np.random.default_rng(5)
    x = random.normal(size=(rows, FEATURES)).astype("float32")
    y = x[:, :CLASSES].argmax(axis=1).astype("int32")
    y[::6] = random.integers(0, CLASSES, len(y[::6]))
    return x, y


def classifier(optimizer: Any) -> Any:
    """No dropout: Keras does not save random state, so a backup cannot restore it."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Dense(16, activation="relu", name="first"),
            layers.BatchNormalization(name="middle"),
            layers.Dense(CLASSES, activation="softmax", name="last"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def stacks() -> dict[str, Any]:
    """For each name, an optimizer and the callbacks whose run is killed."""
    optimizers = keras.optimizers
    cosine = optimizers.schedules.CosineDecay(0.1, EPOCHS * BATCHES)
    plateau = keras_lr.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=0.05)
    best = keras_lr.ReduceLROnPlateau("val_loss", 0.5, patience=1, restore_best_weights=True)
    return {
        "OneCycle": (optimizers.Adam(1.0), [keras_lr.OneCycle(0.05)]),
        "CyclicLR": (
            optimizers.SGD(1.0, momentum=0.9),
            [keras_lr.CyclicLR(0.01, 0.2, 7, cycle_momentum=True)],
        ),
        "WarmUp": (optimizers.Adam(cosine), [keras_lr.WarmUp(steps=17)]),
        "ScheduleLR": (
            optimizers.SGD(1.0, momentum=0.9),
            [keras_lr.ScheduleLR(cosine, momentum=0.8)],
        ),
        "ReduceLROnPlateau": (optimizers.RMSprop(0.05), [plateau]),
        "ReduceLROnPlateau, best weights": (optimizers.Adam(0.05), [best]),
        "LRLogger": (optimizers.SGD(cosine, momentum=0.9), []),
        "HalveOnDivergence": (
            optimizers.SGD(50.0, momentum=0.9),
            [keras_lr.HalveOnDivergence(check_every=4)],
        ),
        "GradualUnfreeze": (
            optimizers.Adam(0.01),
            [keras_lr.GradualUnfreeze(["last", "middle", "first"])],
        ),
        "LRFinder(every=3)": (optimizers.Adam(0.01), [keras_lr.LRFinder(every=3, steps=12)]),
        "LRFinder(every=3, apply=True)": (
            optimizers.Adam(0.01),
            [keras_lr.LRFinder(every=3, steps=12, apply=True)],
        ),
    }


class Backup(keras.callbacks.BackupAndRestore):
    """Keras's callback, which marks the time while it writes: its writes are not atomic."""

    def _save_model(self) -> None:
        with busy():
            super()._save_model()

    def on_train_end(self, logs: Any = None) -> None:
        with busy():
            super().on_train_end(logs)


@contextlib.contextmanager
def busy() -> Any:
    Path("busy").touch()
    yield
    Path("busy").unlink()


def fit(stack: str) -> None:
    optimizer, callbacks = stacks()[stack]
    model = classifier(optimizer)
    validation = data(24)
    logger = keras_lr.LRLogger("rates.csv")
    backup = Backup("backup", double_checkpoint=Path("double").exists())
    x, y = data()
    model.fit(
        x, y, batch_size=BATCH_SIZE, shuffle=False, epochs=EPOCHS, verbose=0,
        validation_data=validation, callbacks=[*callbacks, logger, backup],
    )  # fmt: skip
    values = [keras.ops.convert_to_numpy(each.value) for each in model.variables]
    values += [keras.ops.convert_to_numpy(each.value) for each in model.optimizer.variables]
    answer("arrays.npz", lambda file: np.savez(file, *values))


def answer(name: str, write: Any) -> None:
    """Write a file of the job atomically."""
    with open(f"{name}.part", "wb") as file:
        write(file)
    os.replace(f"{name}.part", name)


def command(*arguments: str) -> None:
    """Run `keras-lr`, with its stdout in a file."""
    from click.testing import CliRunner

    result = CliRunner().invoke(command_line, list(arguments))
    if result.exit_code:
        sys.exit(f"exit {result.exit_code}: {result.output}")
    answer("stdout.json", lambda file: file.write(result.stdout.encode()))


def work(kind: str) -> None:
    if kind == "find":
        command(
            *"find model.keras --data model.npz --steps 60 --seed 0 --no-cache --json".split(),
            "--save", OUTPUTS[0], "--plot", OUTPUTS[1],
        )  # fmt: skip
    elif kind in SEARCHES:
        from keras_lr.rate_search import storage

        storage.GRACE = GRACE
        command(
            *"search model.keras --data model.npz --json --heartbeat 1 --low 1e-3 --high 1".split(),
            *"--fine-rounds 1 --points 3 --final-seeds 2 --epochs 2 --pruner none".split(),
            "--no-cache",
            "--storage", SEARCHES[kind],
        )  # fmt: skip
    else:
        fit(kind)


def job(kind: str, folder: str) -> None:
    """Everything in a process that may be killed."""
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    warnings.simplefilter("ignore")
    keras.config.disable_traceback_filtering()  # show all frames
    Path("began").touch()
    try:
        work(kind)
    except Exception:
        import traceback

        traceback.print_exc()
        Path("error").write_text(traceback.format_exc())
        os._exit(3)
    Path("ended").touch()
    sys.stdout.flush()
    os._exit(0)


def prepare(folder: Path) -> None:
    """The files that a job reads, made once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier(keras.optimizers.Adam()).save(folder / "model.keras")
    x, y = data(320)
    np.savez(folder / "model.npz", x=x, y=y)


def kinds() -> list[str]:
    return ["find", *stacks(), *SEARCHES]


if __name__ == "__main__":
    if sys.argv[1] == "--prepare":
        prepare(Path(sys.argv[2]))
        print(json.dumps(kinds()))
    else:
        job(*sys.argv[1:])
