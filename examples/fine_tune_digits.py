"""Fine-tune networks from the digits 0-4 to the digits 5-9: do multipliers gain accuracy?

    python examples/fine_tune_digits.py                   # TensorFlow, or your Keras backend
    KERAS_BACKEND=jax python examples/fine_tune_digits.py --networks 40

Takes less than a minute on two CPU cores and writes no files. Needs keras-lr and scikit-learn.

Small networks learn the digits 0-4 from all their images. Each network then gets a new head and
learns the digits 5-9 from ten images per digit, at one rate for all layers or with one of six
methods for layer-wise rates. All methods make the same number of steps and choose their rate from
the same grid, by the accuracy of four networks on validation images. The other networks are scored
on 500 test images. Each network has its own body, head and training images, the same for every
method, so that the methods are compared network by network.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from digits_model import digits
from side_by_side import (
    FOOT,
    TUNING,
    dense,
    head,
    interval,
    options,
    reset,
    row,
    summed_loss,
    tuned,
)

import keras_lr
from keras_lr.optimizers import LayerwiseLR

RATES = (3e-3, 1e-2, 4e-2, 0.15, 0.6)
EPOCHS = 3
PASSES = 6  # passes over the images per epoch; few long epochs are faster than many short ones
FIT = {"batch_size": 10, "shuffle": False, "verbose": 0}  # the images are in random order

# The training of each method. `compiled` below makes the models, including their multipliers.


def constant(model, x, y, rate):
    model.optimizer.learning_rate = rate
    model.fit(x, y, epochs=EPOCHS, **FIT)


def unfreezing(model, x, y, rate):
    model.optimizer.learning_rate = rate
    unfreeze = keras_lr.GradualUnfreeze(["head", "body_2", "body_1"], epochs_per_group=1)
    model.fit(x, y, epochs=EPOCHS, callbacks=[unfreeze], **FIT)


def two_phases(model, x, y, rate):
    keras_lr.fine_tune(model, x, y, head_epochs=1, epochs=EPOCHS - 1, base_lr=rate, **FIT)


ONE_RATE = "one rate"
METHODS = {  # name: (function that makes the multipliers, function that trains)
    ONE_RATE: (None, constant),
    "frozen body": (lambda model: {"body_.*": 0.0}, constant),
    "boost_head x10": (lambda model: keras_lr.boost_head(model, "head", 10.0), constant),
    "layer_decay 0.5": (lambda model: keras_lr.layer_decay(model, 0.5), constant),
    "discriminative 1:100": (lambda model: keras_lr.discriminative(model, 0.01, 1.0), constant),
    "GradualUnfreeze": (None, unfreezing),
    "fine_tune (cycles its rate)": (None, two_phases),
}


def compiled(count, make_multipliers=None):
    """A model of `count` independent networks, trained by one `fit`."""
    layers = [
        dense(count, 128, activation="relu", name="body_1"),
        dense(count, 64, activation="relu", name="body_2"),
        dense(count, 5, name="head"),
    ]
    model, optimizer = (
        keras.Sequential([keras.Input((count, 64)), *layers]),
        keras.optimizers.Adam(),
    )
    if make_multipliers:
        optimizer = LayerwiseLR(optimizer, make_multipliers(model))
    model.compile(optimizer, summed_loss)
    return model


def rows_of_each(x, y, rows):
    """Images and labels for all networks; `rows` has the row numbers of each network."""
    rows = np.stack(rows, axis=1)
    return x[rows], y[rows]


class Task:
    """Pretrained networks with new heads; for each, ten images of each digit from 5 to 9."""

    def __init__(self, count):
        self.count = count
        x, y = digits()
        x, old = x.reshape(len(x), 64), y < 5
        draws = [np.random.default_rng(network) for network in range(count)]

        keras.utils.set_random_seed(0)
        model = compiled(count)
        first = model.get_weights()
        model.optimizer.learning_rate = 3e-3
        orders = [draw.permutation(np.flatnonzero(old)) for draw in draws]
        model.fit(*rows_of_each(x, y, orders), batch_size=64, epochs=5, verbose=0)
        self.weights = [*model.get_weights()[:-2], *first[-2:]]

        x, y = x[~old], y[~old] - 5
        shuffled = np.random.default_rng(0).permutation(len(x))
        test, validation, rest = np.split(shuffled, [500, 650])
        self.test, self.validation = (x[test], y[test]), (x[validation], y[validation])
        epochs = []
        for draw in draws:
            rest = draw.permutation(rest)
            learned = np.concatenate([rest[y[rest] == digit][:10] for digit in range(5)])
            epochs.append(np.concatenate([draw.permutation(learned) for _ in range(PASSES)]))
        self.train = rows_of_each(x, y, epochs)

    def tuned(self, make_multipliers, train, rates):
        """The rate that the tuning networks choose, and the test accuracies of the others."""
        model = compiled(self.count, make_multipliers)

        def train_at(rate):
            reset(model, self.weights)
            train(model, *self.train, rate)

        return tuned(model, self.count, rates, train_at, self.validation, self.test)


def shown(mean, low, high):
    return f"{mean:+.1f} points ({low:+.1f} to {high:+.1f})"


def verdict(found):
    """One sentence on the gain of multipliers over one rate."""

    def listed(names):
        names = sorted(names, key=lambda name: -found[name][0])
        return ", ".join(f"{name} {shown(*found[name])}" for name in names)

    better = [name for name, (_, low, _) in found.items() if low > 0]
    worse = [name for name, (_, _, high) in found.items() if high < 0]
    best = max(found, key=lambda name: found[name][0])
    if better:
        sentence = f"Compared with one tuned rate, multipliers gained: {listed(better)}"
    else:
        sentence = (
            "Compared with one tuned rate, multipliers gained nothing significant; the best was "
            f"{listed([best])}"
        )
    return f"{sentence}; they lost: {listed(worse)}." if worse else f"{sentence}."


def main():
    chosen = options(__doc__.splitlines()[0], RATES)
    begin = time.perf_counter()
    task = Task(TUNING + chosen.networks)
    print(f"{head(chosen.networks)}   minus one rate (95 %, simultaneous)")
    found, plain = {}, None
    for name, method in METHODS.items():
        rate, tested = task.tuned(*method, chosen.rates)
        line = row(name, EPOCHS * PASSES, rate, tested, chosen.rates)
        if plain is None:
            plain = tested
        else:
            found[name] = interval(tested - plain, len(METHODS) - 1)
            line = f"{line}   {shown(*found[name])}"
        print(line, flush=True)
    print(FOOT)
    print(verdict(found))
    print(f"{time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
