"""`LRLogger`: records the rate and the momentum of every batch."""

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

from keras_lr._util.checks import file_path, flag
from keras_lr._util.files import atomic_write, check_writable
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.callbacks.trackers import checked_tracker, log_batches, open_tracker
from keras_lr.steering import Length, UsedRates


class LRLogger(SteeringCallback):
    """Record the learning rate and the momentum of every batch.

    It records the values that the training step used: with or without other callbacks of
    keras_lr, with a schedule, with `steps_per_execution`, and if another callback sets the rate
    between two batches. It writes at the end of each epoch, and does not wait for the device in
    between.

    The values are in `history` of this callback; in the `History` that `fit` returns, as
    `batch_learning_rate` and `batch_momentum`, a list of numbers for each epoch; and optionally in
    a CSV file, in TensorBoard and in an experiment tracker. The logs of the epoch get
    `learning_rate`, for other loggers.

    Args:
        csv: Path of a CSV file with a row for each batch: `epoch`, `step` (the update, from the
            start of the run), `learning_rate`, `momentum`. A resumed run continues its file.
        append: Whether a new run adds its rows to an existing file; otherwise it replaces the
            file.
        tensorboard: Log directory, the same as for Keras's `TensorBoard`. Needs the packages
            tensorflow and tensorboard, on each backend.
        tracker: `"wandb"` or `"mlflow"`, the active run of Weights & Biases or of MLflow; or any
            object with a method `log(metrics, step)`, where `metrics` is a dictionary of floats
            and `step` the update. It gets an entry for each update: `learning_rate`, `momentum`
            and, for a `MultiOptimizer`, `learning_rate/<group>`. If callbacks steer several
            optimizers, the keys are `learning_rate/<optimizer>` and `momentum/<optimizer>`. In W&B
            the updates are the axis `update`.
        optimizer: The optimizer to log, if the model trains with several: the optimizer itself,
            or its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Attributes:
        history: Lists of equal length, one entry per batch: `epoch`, `step`, `learning_rate` and,
            if the optimizer has one, `momentum`; for a `MultiOptimizer` also a
            `learning_rate_<name>` for each optimizer, and `learning_rate` is the largest.

    Raises:
        OSError: When `fit` begins, if the CSV file cannot be written; later it is a warning.
        ValueError: If `tracker` is another name; when `fit` begins, if the tracker has no active
            run, or if it should continue a file that `LRLogger` did not write.
        TypeError: If `append` is not a bool, `csv` or `tensorboard` not a path, or `tracker` has no
            method `log`.
        ModuleNotFoundError: If a package of `tensorboard` or of `tracker` is missing.

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
        tracker: Any = None,
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        if callable(getattr(csv, "log", None)):
            raise TypeError(f"csv must be a path; got {csv!r}. Pass a tracker as tracker=.")
        for name, path in (("csv", csv), ("tensorboard", tensorboard)):
            if path is not None:
                file_path(name, path)
        for package in ("tensorflow", "tensorboard") if tensorboard is not None else ():
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(
                    f"tensorboard needs the package {package}, which is not installed; got "
                    f"tensorboard={tensorboard!r}. Run `pip install {package}`, or pass csv."
                )
        self.csv = csv
        self.append = flag("append", append)
        self.tensorboard = tensorboard
        self.tracker = checked_tracker(tracker)
        self.history: dict[str, list[float]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self.history = {}
        self._epochs: list[dict[str, list[float]]] = []
        self._writer: Any = None
        self._tracked: Any = None if self.tracker is None else open_tracker(self.tracker)
        if self.csv is not None:
            check_writable(Path(self.csv))

    def begin(self, length: Length) -> None:
        if self.csv is not None:
            epoch = self._session.run.first_epoch
            rows = _read(self.csv) if self.append or epoch > 0 else []
            if epoch > 0:
                rows = _until(epoch, self._steered.account.updates_done(), rows)
            self._header = list(rows[0]) if rows else []
            self._unwritten: list[dict[str, float]] = []
            atomic_write(self.csv, _text(self._header, rows, head=bool(rows)))
        if self.tensorboard is not None:
            import tensorflow as tf

            self._writer = tf.summary.create_file_writer(str(Path(self.tensorboard) / "train"))

    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        used = self._steered.account.used(self)
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
        if self._tracked is not None:
            self._log_to_tracker(epoch, columns)

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        history = getattr(self._unsynced_model, "history", None)
        suffix = self._suffix()
        for name in ("learning_rate", "momentum"):
            epochs = [columns[name] for columns in self._epochs if name in columns]
            if history is not None and epochs:
                history.history[f"batch_{name}{suffix}"] = epochs

    def _own_name(self) -> str | None:
        """The name of the optimizer if the fit steers several, which loggers must not mix."""
        return self._steered.name if len(self._session.optimizers) > 1 else None

    def _suffix(self) -> str:
        """What it adds to the names of columns."""
        own = self._own_name()
        return "" if own is None else f"_{own}"

    def _append(self, path: str | os.PathLike[str], columns: list[str]) -> None:
        """Write the rows that are not written yet; a full disk does not end the run."""
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
                    os.truncate(path, size)  # remove an incomplete write
            warnings.warn(
                f"LRLogger could not write {path}: {error.strerror}. It tries again after the next "
                "epoch; its history is complete.",
                stacklevel=2,
            )
            return
        self._header, self._unwritten = header, []

    def _log_to_tracker(self, epoch: int, columns: dict[str, list[float]]) -> None:
        """Log the batches of an epoch; a tracker that fails does not end the run."""
        try:
            log_batches(self._tracked, columns, self._own_name())
        except Exception as error:
            warnings.warn(
                f"LRLogger could not log epoch {epoch} to its tracker: {type(error).__name__}: "
                f"{error}. Its history is complete.",
                stacklevel=2,
            )

    def _write_summaries(self, columns: dict[str, list[float]]) -> None:
        import tensorflow as tf

        suffix = self._suffix()
        with self._writer.as_default():
            for name, values in columns.items():
                if name in ("epoch", "step"):
                    continue
                for step, value in zip(columns["step"], values, strict=True):
                    tf.summary.scalar(f"batch_{name}{suffix}", value, step=int(step))
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
    """The rows that a run has written, without an incomplete last one.

    Raises:
        ValueError: If `LRLogger` did not write the file.
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
            f"{path} must be a file that LRLogger wrote; it is another file, or damaged: "
            f"{missing}{str(error)[:200]}. Pass another path, or move the file."
        ) from error
    return rows


def _until(epoch: int, updates: int, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows without those of the last run that the resumed run trains and writes again.

    A backup may be from the middle of an epoch, and an update may need the first batches of the
    next epoch: a row stays if its epoch or its update is complete.
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
