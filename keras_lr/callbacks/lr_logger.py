"""`LRLogger`: the rate and the momentum of every batch, where people look for them."""

from __future__ import annotations

import contextlib
import csv as csv_files
import importlib.util
import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from keras_lr._util.files import atomic_write, check_writable
from keras_lr.callbacks.base import Policy
from keras_lr.steering import Length, UsedRates


class LRLogger(Policy):
    """Record the learning rate and the momentum of every batch.

    What is recorded is what the training step used: with or without callbacks of ours, under a
    schedule, inside `steps_per_execution`, and when another callback sets the rate between two
    batches. It is written at the end of each epoch; nothing waits for the device in between.

    Where to find it: in `history` of this callback; in the `History` that `fit` returns, as
    `batch_learning_rate` and `batch_momentum`, a list of numbers for each epoch; and in a CSV
    file and TensorBoard, if asked. The epoch's logs get `learning_rate`, for other loggers.

    Args:
        csv: Path of a CSV file with a row for each batch: `epoch`, `step` (the update, from the
            start of the run), `learning_rate`, `momentum`. A run that is resumed continues the
            file that it began.
        append: Whether a new run adds its rows to an existing file; otherwise it replaces it.
        tensorboard: Log directory, that of Keras's `TensorBoard`. Needs the packages tensorflow
            and tensorboard, on each backend.
        optimizer: Which optimizer of the model it is for, where the model trains with several: the
            optimizer, or its name in the model, as `"d_optimizer"` or `"optimizers[0]"`.

    Attributes:
        history: Lists of equal length, an entry a batch: `epoch`, `step`, `learning_rate` and,
            if the optimizer has one, `momentum`; for a `MultiOptimizer` also a
            `learning_rate_<name>` for each optimizer, and `learning_rate` is the largest.

    Raises:
        OSError: When `fit` begins, if the CSV file cannot be written. Later a warning says so.
        ValueError: When `fit` begins, if it should go on with a file that is none of these.
        ModuleNotFoundError: If `tensorboard` is asked for and one of its packages is missing.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> logger = keras_lr.LRLogger()
    >>> history = model.fit(x, x.sum(axis=1), batch_size=16, verbose=0,
    ...                     callbacks=[keras_lr.WarmUp(steps=2), logger])
    >>> [round(lr, 2) for lr in logger.history["learning_rate"]]
    [0.0, 0.05, 0.1, 0.1]
    """

    watches = True

    def __init__(
        self,
        csv: str | os.PathLike[str] | None = None,
        *,
        append: bool = False,
        tensorboard: str | os.PathLike[str] | None = None,
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        for package in ("tensorflow", "tensorboard") if tensorboard is not None else ():
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(
                    f"TensorBoard's files are written with {package}, which is not installed; got "
                    f"tensorboard={tensorboard!r}. Run `pip install {package}`, or pass csv."
                )
        self.csv = csv
        self.append = append
        self.tensorboard = tensorboard
        self.history: dict[str, list[float]] = {}

    def get_config(self) -> dict[str, Any]:
        names = ("csv", "append", "tensorboard", "optimizer")
        return {name: getattr(self, name) for name in names}

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self.history = {}
        self._epochs: list[dict[str, list[float]]] = []
        self._writer: Any = None
        if self.csv is not None:
            check_writable(Path(self.csv))

    def begin(self, length: Length) -> None:
        if self.csv is not None:
            epoch = self._fit.first_epoch
            rows = _read(self.csv) if self.append or epoch > 0 else []
            if epoch > 0:
                rows = _until(epoch, self._fit.updates_done(), rows)
            self._header = list(rows[0]) if rows else []
            self._unwritten: list[dict[str, float]] = []
            atomic_write(self.csv, _text(self._header, rows, head=bool(rows)))
        if self.tensorboard is not None:
            import tensorflow as tf

            self._writer = tf.summary.create_file_writer(str(Path(self.tensorboard) / "train"))

    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        used = self._fit.used()
        columns: dict[str, list[float]] = {"epoch": [epoch] * len(used.updates)}
        columns.update(_columns(used))
        self._epochs.append(columns)
        for name, values in columns.items():
            self.history.setdefault(name, []).extend(values)
        if self.csv is not None:
            batches = zip(*columns.values(), strict=True)
            self._unwritten += [dict(zip(columns, batch, strict=True)) for batch in batches]
            self._append(self.csv, list(columns))
        if self._writer is not None:
            self._write_summaries(columns)

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        history = getattr(self._unsynced_model, "history", None)
        suffix = f"_{self._fit.name}" if len(self._fit.fit.optimizers) > 1 else ""
        for name in ("learning_rate", "momentum"):
            epochs = [columns[name] for columns in self._epochs if name in columns]
            if history is not None and epochs:
                history.history[f"batch_{name}{suffix}"] = epochs

    def _append(self, path: str | os.PathLike[str], columns: list[str]) -> None:
        """Write what is not written yet. A log is no reason to end a run whose disk is full."""
        header = self._header or columns
        text = _text(header, self._unwritten, head=not self._header)
        size = None
        try:
            with open(path, "ab") as file:
                size = file.tell()
                file.write(text.encode("utf-8"))
        except OSError as error:
            if size is not None:
                with contextlib.suppress(OSError):
                    os.truncate(path, size)  # the part of it that found a place
            warnings.warn(
                f"LRLogger could not write {path}: {error.strerror}. It tries again after the next "
                "epoch; its history has all of it.",
                stacklevel=2,
            )
            return
        self._header, self._unwritten = header, []

    def _write_summaries(self, columns: dict[str, list[float]]) -> None:
        import tensorflow as tf

        with self._writer.as_default():
            for name, values in columns.items():
                if name in ("epoch", "step"):
                    continue
                for step, value in zip(columns["step"], values, strict=True):
                    tf.summary.scalar(f"batch_{name}", value, step=int(step))
        self._writer.flush()


def _columns(used: UsedRates) -> dict[str, list[float]]:
    rates = used.learning_rates
    columns = {"step": used.updates.tolist()}
    columns["learning_rate"] = np.max(list(rates.values()), axis=0).tolist()
    if used.momenta is not None:
        columns["momentum"] = used.momenta.tolist()
    if len(rates) > 1:
        columns.update((f"learning_rate_{name}", rate.tolist()) for name, rate in rates.items())
    return columns


def _read(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows that a run has written, without one that it could not finish.

    Raises:
        ValueError: If the file is none that `LRLogger` wrote.
    """
    if not os.path.exists(path) or not os.path.getsize(path):
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            text = file.read()
        rows = list(csv_files.DictReader(io.StringIO(text, newline=""), strict=True))
        if not text.endswith("\n"):
            del rows[-1:]
        rows = [row for row in rows if None not in row and None not in row.values()]
        for row in rows:
            if min(int(row["epoch"]), int(row["step"])) < 0:
                raise ValueError("an epoch or a step is below 0")
            float(row["learning_rate"])
    except (ValueError, KeyError, csv_files.Error) as error:
        missing = "has no column " if isinstance(error, KeyError) else ""
        raise ValueError(
            f"{path} must be a file of LRLogger to go on with; it is not, or is damaged: "
            f"{missing}{str(error)[:200]}. Name another one, or move it away."
        ) from error
    return rows


def _until(epoch: int, updates: int, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows without those of the last run that are trained, and written, again.

    A backup may stand in the middle of an epoch, and an update may need the first batches of
    the next epoch: what counts as done is either.
    """
    steps = [int(row["step"]) for row in rows]
    begin = max((i for i in range(1, len(rows)) if steps[i] < steps[i - 1]), default=0)
    return rows[:begin] + [
        row for row in rows[begin:] if int(row["epoch"]) < epoch or int(row["step"]) < updates
    ]


def _text(header: list[str], rows: list[Any], *, head: bool) -> str:
    text = io.StringIO(newline="")
    writer = csv_files.DictWriter(text, header, extrasaction="ignore")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
