"""Run the command line in this process, on small files: a model, data, and variants of them."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
from click.testing import CliRunner, Result

from keras_lr_cli import main

ROWS, FEATURES, CLASSES = 64, 8, 4


def run(*arguments: object) -> Result:
    """Run `keras-lr` with these arguments; it may raise only SystemExit."""
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output, result.output
    return result


def refused(*arguments: object, exit_code: int = 2) -> str:
    """Run a command that must fail with one line on stderr and nothing on stdout."""
    result = run(*arguments)
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Warning")]
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    return lines[0]


def dense(units: int = CLASSES, activation: str | None = None) -> keras.Model:
    """A classifier with one hidden layer."""
    keras.utils.set_random_seed(0)
    activation = activation or ("softmax" if units > 1 else "sigmoid")
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(units, activation=activation),
        ]
    )


def compiled(loss: str = "sparse_categorical_crossentropy", **options) -> keras.Model:
    model = dense(**options)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Rows whose class is the index of the largest of the first four features."""
    x = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype("float32")
    return x, x[:, :CLASSES].argmax(axis=1).astype("int32")


class Batches(keras.utils.PyDataset):
    """The same rows as a data set, eight to a batch."""

    def __len__(self) -> int:
        return ROWS // 8

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = arrays()
        return x[8 * index : 8 * index + 8], y[8 * index : 8 * index + 8]


def write_files(folder: Path) -> None:
    """model.keras, model.h5, bare.keras (not compiled), model.npz and model.csv."""
    here = os.getcwd()
    os.chdir(folder)
    try:
        compiled().save("model.keras")
        compiled().save("model.h5")
        dense().save("bare.keras")
        x, y = arrays()
        np.savez("model.npz", x=x, y=y)
        table = np.column_stack([x, y])
        header = ",".join([f"f{i}" for i in range(FEATURES)] + ["label"])
        np.savetxt("model.csv", table, delimiter=",", header=header, comments="", fmt="%.6g")
    finally:
        os.chdir(here)
