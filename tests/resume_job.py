"""A program that trains and is killed: `python resume_job.py FOLDER RUNS`, until it exits with 0.

RUNS is JSON, a list of runs: the name of a stack of callbacks, where the backup stands in the list
(`"first"`, `"last"`, or `"none"` without a backup), and the kills: each an epoch and a moment of
it, which is the number of a batch, `"before backup"` or `"after backup"`. Started again, the
program skips the runs that are done and goes on with the one that it was killed in.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import types
from pathlib import Path

if __name__ == "__main__":
    # Keras imports them where it finds them, and is slower by seconds.
    for package in {"tensorflow", "jax", "torch", "sklearn", "pandas", "matplotlib"}:
        if package != os.environ["KERAS_BACKEND"]:
            sys.modules[package] = None

EPOCHS, BATCHES, BATCH_SIZE = 6, 5, 8


def data():
    """Rows of 6 features with a noisy class, 0 to 2: 5 batches to train with and 24 to validate."""
    import numpy as np

    rows = BATCHES * BATCH_SIZE + 24
    random = np.random.default_rng(5)
    x = random.normal(size=(rows, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)
    y[::6] = random.integers(0, 3, len(y[::6]))
    split = BATCHES * BATCH_SIZE
    return (x[:split], y[:split]), (x[split:], y[split:])


def batch_clock():
    """A callback that is the clock of time budgets: 32 batches are a minute."""
    import keras

    from keras_lr.steering import clock

    class BatchClock(keras.callbacks.Callback):
        seconds = 0.0

        def on_train_batch_end(self, batch, logs=None):
            self.seconds += 60 / 32

    made = BatchClock()
    clock.time = types.SimpleNamespace(monotonic=lambda: made.seconds)
    return made


def stacks():
    """For each name, an optimizer and the callbacks that steer it."""
    import keras

    import keras_lr

    optimizers = keras.optimizers
    cosine = optimizers.schedules.CosineDecay
    plateau = keras_lr.ReduceLROnPlateau
    return {
        "one cycle": lambda: (optimizers.Adam(1.0), [keras_lr.OneCycle(0.05)]),
        "cyclic": lambda: (
            optimizers.SGD(1.0, momentum=0.9, nesterov=True),
            [
                keras_lr.CyclicLR(
                    0.01, 0.2, 4, 3, mode="exp_range", gamma=0.97, cycle_mult=1.5,
                    cycle_momentum=True,
                )
            ],
        ),
        "warm-up and plateau over a schedule": lambda: (
            optimizers.Adam(cosine(0.5, EPOCHS * BATCHES)),
            [
                keras_lr.WarmUp(steps=3),
                plateau("val_loss", 0.5, patience=1, restore_best_weights=True),
            ],
        ),
        "plateau over a number": lambda: (
            optimizers.RMSprop(0.05),
            [plateau("loss", 0.5, patience=1, min_delta=0.1, smoothing=0.4, cooldown=2)],
        ),
        "schedule and plateau with growth": lambda: (
            optimizers.SGD(1.0, momentum=0.9),
            [
                keras_lr.ScheduleLR(cosine(0.4, 40), momentum=0.8),
                plateau(
                    "val_loss", 0.25, patience=1, growth_factor=2.0, growth_patience=1,
                    restore_best_weights=True,
                ),
            ],
        ),
        "plateau over windows": lambda: (
            optimizers.Adam(0.05),
            [plateau("loss", 0.5, patience=1, window=7, min_delta=0.25, restore_best_weights=True)],
        ),
        "warm-up, stable, decay": lambda: (
            optimizers.SGD(1.0, momentum=0.9),
            # It stalls after two epochs, and decays until the end of the run.
            [keras_lr.WarmUpStableDecay(0.2, 3, 20, monitor="loss", patience=1, min_delta=9.0)],
        ),
        "weight decay and beta_2": lambda: (
            optimizers.AdamW(0.05, weight_decay=0.1),
            [
                keras_lr.ScheduleHyperparameter(
                    "weight_decay", keras_lr.schedules.LinearRampSchedule(0.5, 0.01, 30)
                ),
                keras_lr.ScheduleHyperparameter(
                    "beta_2", lambda step: 0.9 + 0.003 * keras.ops.cast(step, "float32")
                ),
            ],
        ),
        "schedule-free": lambda: (
            keras_lr.optimizers.ScheduleFree(optimizers.AdamW(0.1), warmup_steps=7, r=0.5),
            [],
        ),
        "one cycle by the clock": lambda: (
            optimizers.Adam(1.0),
            [batch_clock(), keras_lr.OneCycle(0.05, minutes=1)],
        ),
        "warm-up, accumulating": lambda: (
            optimizers.Adam(0.02, gradient_accumulation_steps=2),
            [keras_lr.WarmUp(epochs=3.5), plateau("val_loss", 0.5, patience=1, min_delta=0.13)],
        ),
    }  # fmt: skip


def classifier(optimizer):
    """No dropout: Keras saves no random state, so a backup cannot bring it back."""
    import keras
    import numpy as np

    random = np.random.default_rng(0)  # the same weights, and plateaus, on each backend
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    for kernel in model.trainable_variables:
        if len(kernel.shape) == 2:
            kernel.assign(random.normal(0.0, 0.5, kernel.shape))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(folder: Path, stack: str, backup: str, kills: list) -> None:
    import keras
    import numpy as np

    import keras_lr

    optimizer, ours = stacks()[stack]()
    model = classifier(optimizer)
    ours.append(keras_lr.LRLogger(folder / "rates.csv"))
    marks = folder / "kills"
    done = len(marks.read_text()) if marks.exists() else 0
    epoch, moment = kills[done] if done < len(kills) else (None, None)

    class Kill(keras.callbacks.Callback):
        """Kills this process, and leaves a mark so that it does so once."""

        def __init__(self, at):
            super().__init__()
            self.at = at

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            self.kill_at(self.epoch, batch)

        def on_epoch_end(self, epoch, logs=None):
            self.kill_at(epoch, self.at)

        def kill_at(self, now, at):
            if (now, at) == (epoch, moment):
                with marks.open("a") as file:
                    file.write("x")
                os.kill(os.getpid(), signal.SIGKILL)

    callbacks = [Kill("before backup"), Kill("after backup")]
    if backup != "none":
        callbacks.insert(1, keras.callbacks.BackupAndRestore(folder / "backup"))
    callbacks = ours + callbacks if backup == "last" else callbacks + ours

    (x, y), validation_data = data()
    history = model.fit(
        x, y, batch_size=BATCH_SIZE, shuffle=False, epochs=EPOCHS, verbose=0,
        validation_data=validation_data, callbacks=callbacks,
    )  # fmt: skip
    arrays = {f"weight {i}": v for i, v in enumerate(model.variables)}
    arrays |= {f"optimizer {i}": v for i, v in enumerate(model.optimizer.variables)}
    arrays = {name: keras.ops.convert_to_numpy(v.value) for name, v in arrays.items()}
    report = {"history": {name: list(map(float, v)) for name, v in history.history.items()
                          if not name.startswith("batch_")},
              "batches": {name: history.history[name] for name in history.history
                          if name.startswith("batch_")},
              "logger": ours[-1].history}  # fmt: skip
    for callback in ours:
        if isinstance(callback, keras_lr.ReduceLROnPlateau):
            report["events"] = [vars(event) for event in callback.events]
            report["rule"] = callback._rule.state()
            arrays |= {f"best {i}": each for i, each in enumerate(callback._best_weights)}
    np.savez(folder / "arrays.npz", **arrays)
    (folder / "report.json").write_text(json.dumps(report))


def main(folder: str, runs: str) -> None:
    for stack, backup, kills in json.loads(runs):
        place = Path(folder) / stack / backup
        if (place / "report.json").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        train(place, stack, backup, kills)


if __name__ == "__main__":
    main(*sys.argv[1:])
