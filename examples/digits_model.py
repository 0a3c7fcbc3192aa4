"""Save a small compiled CNN for scikit-learn's digits, and the digits as arrays.

    python examples/digits_model.py digits.keras     # also writes digits.npz

`keras-lr find digits.keras` reads both files.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 gray images of 8 x 8 pixels in [0, 1], and their labels 0 to 9."""
    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8, 1).astype("float32") / 16.0, labels.astype("int32")


def small_cnn() -> keras.Model:
    """A convolutional classifier with batch normalization and dropout, compiled with Adam."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.25),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def main(path: Path) -> None:
    keras.utils.set_random_seed(0)
    x, y = digits()
    small_cnn().save(path)
    np.savez_compressed(path.with_suffix(".npz"), x=x, y=y)
    print(f"Saved {path} and {path.with_suffix('.npz')}.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "digits.keras"))
