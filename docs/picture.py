"""Draw the picture of the README: the answer of `lr_find` beside what tuning finds.

    python docs/picture.py        # minutes on two CPU cores; writes docs/images/answer.png

The model is the small CNN of `make demo`, on scikit-learn's digits. One range test plans a run of
10 epochs with one-cycle. Then each rate of a grid trains that run from three other initial weights,
and its validation loss is drawn.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "torch")  # each rate would be compiled on the others

import keras
import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

import keras_lr

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "examples"))

from digits_model import digits, small_cnn  # noqa: E402

EPOCHS, HELD_OUT = 10, 360
RATES = np.geomspace(1e-4, 1.0, 13)
SEEDS = (1, 2, 3)
BLUE, VERMILION = "#0072b2", "#d55e00"


def main(path: Path) -> None:
    x, y = digits()
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    train, held_out = (x[HELD_OUT:], y[HELD_OUT:]), (x[:HELD_OUT], y[:HELD_OUT])

    keras.utils.set_random_seed(0)
    test = keras_lr.lr_find(small_cnn(), *train, policy="one-cycle", epochs=EPOCHS, verbose=0)
    found = test.suggest()
    print(f"{found.learning_rate:.3g}, {found.low:.3g} to {found.high:.3g}", test.training_steps)

    tuned = np.array([[trained(rate, seed, train, held_out) for rate in RATES] for seed in SEEDS])
    steps = EPOCHS * -(-len(train[0]) // 32)

    figure, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
    ax.axvspan(found.low, found.high, color=VERMILION, alpha=0.15, lw=0, label="its interval")
    label = f"lr_find: {found.learning_rate:.2g}, after {test.training_steps} training steps"
    ax.axvline(found.learning_rate, color=VERMILION, lw=2.5, label=label)
    ax.axvline(1e-3, color="0.4", ls=":", lw=1.5, label="Adam's default rate in Keras")
    label = f"tuning: {tuned.size} runs of {steps} steps"
    ax.fill_between(RATES, tuned.min(axis=0), tuned.max(axis=0), color=BLUE, alpha=0.2, lw=0)
    ax.plot(RATES, tuned.mean(axis=0), "o-", color=BLUE, label=label)
    ax.set(xscale="log", yscale="log", xlabel="Highest learning rate of one-cycle")
    ax.set_ylabel(f"Validation loss after {EPOCHS} epochs")
    ax.grid(color="0.9")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)


def trained(rate: float, seed: int, train: tuple, held_out: tuple) -> float:
    """The validation loss after a one-cycle run with this highest rate, in new weights."""
    keras.utils.set_random_seed(seed)
    model = small_cnn()
    cycle = keras_lr.OneCycle(max_lr=rate)
    model.fit(*train, epochs=EPOCHS, callbacks=[cycle], verbose=0)
    loss = model.evaluate(*held_out, verbose=0, return_dict=True)["loss"]
    print(f"seed {seed}, rate {rate:.3g}: {loss:.4f}", flush=True)
    return loss


if __name__ == "__main__":
    main(ROOT / "docs" / "images" / "answer.png")
