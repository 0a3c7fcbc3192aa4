"""Fine-tune a network from the digits 0-4 to the digits 5-9: what do multipliers buy?

    python examples/fine_tune_digits.py                   # TensorFlow, or what Keras is set to
    KERAS_BACKEND=jax python examples/fine_tune_digits.py --seeds 20

Takes one to two minutes on a CPU and writes nothing. Needs scikit-learn beside keras-lr.

A small network learns 0-4 from all images of these. Then it gets a new head, and learns 5-9 from
ten images of each: at one rate everywhere, or at rates that differ from layer to layer, in six
ways. Every way makes the same number of steps, and takes its rate from the same few, by the
accuracy on validation images under a seed of its own. What it is worth is then measured under
other seeds, on 500 test images. A seed gives another pretrained body, another head and other
images to learn from, the same for every way: so the ways are compared seed by seed.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from digits_model import digits
from scipy import stats  # scikit-learn needs it too

import keras_lr
from keras_lr.optimizers import LayerwiseLR

RATES = (3e-3, 1e-2, 3e-2, 1e-1)
TUNING_SEEDS = (1001,)  # more choose the rate more surely, and take longer
EPOCHS = 3
PASSES = 6  # over the images in an epoch; few long epochs are faster than many short ones
FIT = {"batch_size": 10, "shuffle": False, "verbose": 0}  # a task has its images in random order

# How each way trains. `compiled` below makes the models, which have the multipliers in them.


def constant(model, x, y, rate):
    model.optimizer.learning_rate = rate
    model.fit(x, y, epochs=EPOCHS, **FIT)


def unfreezing(model, x, y, rate):
    model.optimizer.learning_rate = rate
    thaw = keras_lr.GradualUnfreeze(["head", "body_2", "body_1"], epochs_per_group=1)
    model.fit(x, y, epochs=EPOCHS, callbacks=[thaw], **FIT)


def two_phases(model, x, y, rate):
    keras_lr.fine_tune(model, (x, y), head_epochs=1, epochs=EPOCHS - 1, base_lr=rate, **FIT)


ONE_RATE = "one rate everywhere"
WAYS = {  # name: how the multipliers are made, how the model is trained
    ONE_RATE: (None, constant),
    "frozen body": (lambda model: {"body_.*": 0.0}, constant),
    "boost_head x10": (lambda model: keras_lr.boost_head(model, "head", 10.0), constant),
    "layer_decay 0.5": (lambda model: keras_lr.layer_decay(model, 0.5), constant),
    "discriminative 1:100": (lambda model: keras_lr.discriminative(model, 0.01, 1.0), constant),
    "GradualUnfreeze": (None, unfreezing),
    "fine_tune (cycles its rate)": (None, two_phases),
}


def network():
    layers = [
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu", name="body_1"),
        keras.layers.Dense(64, activation="relu", name="body_2"),
        keras.layers.Dense(5, name="head"),
    ]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


def compiled(make_multipliers=None):
    model, optimizer = network(), keras.optimizers.Adam()
    if make_multipliers:
        optimizer = LayerwiseLR(optimizer, make_multipliers(model))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def begin_anew(model, weights):
    """Other weights, and an optimizer that never made a step; nothing is compiled again."""
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))


class Task:
    """What a seed gives: a pretrained body with a new head, and ten images of each digit."""

    def __init__(self, seed, pretraining):
        keras.utils.set_random_seed(seed)
        x, y = digits()
        old = y < 5
        begin_anew(pretraining, network().get_weights())
        pretraining.optimizer.learning_rate = 3e-3
        pretraining.fit(x[old], y[old], batch_size=64, epochs=5, verbose=0)
        self.weights = pretraining.get_weights()
        self.weights[-2:] = network().get_layer("head").get_weights()

        x, y = x[~old], y[~old] - 5
        shuffled, rng = np.random.default_rng(0).permutation(len(x)), np.random.default_rng(seed)
        test, rest = shuffled[:500], rng.permutation(shuffled[500:])
        learnt = np.concatenate([rest[y[rest] == digit][:10] for digit in range(5)])
        validation = np.setdiff1d(rest, learnt)
        epoch = np.concatenate([rng.permutation(learnt) for _ in range(PASSES)])
        self.train = x[epoch], y[epoch]
        self.validation, self.test = (x[validation], y[validation]), (x[test], y[test])

    def accuracy(self, model, train, rate, images):
        """Per cent of `images` that are right after fine-tuning."""
        begin_anew(model, self.weights)
        train(model, *self.train, rate)
        return 100.0 * model.evaluate(*images, batch_size=500, verbose=0)[1]


def compare(seeds, rates):
    """For each way the rate that it chose, and its test accuracy under each seed."""
    pretraining = compiled()
    tuning = [Task(seed, pretraining) for seed in TUNING_SEEDS] if len(rates) > 1 else []
    tasks = [Task(seed, pretraining) for seed in range(seeds)]
    results = {}
    for name, (make_multipliers, train) in WAYS.items():
        model = compiled(make_multipliers)
        validated = {
            rate: sum(task.accuracy(model, train, rate, task.validation) for task in tuning)
            for rate in rates
        }
        rate = max(validated, key=validated.get)
        tested = [task.accuracy(model, train, rate, task.test) for task in tasks]
        results[name] = rate, np.array(tested)
    return results


def intervals(results):
    """Each way's mean difference to one rate, in points, and its interval: 95 % for all at once.

    Student's t of the differences under each seed, with Bonferroni's correction: of six
    intervals of 95 % each, one would often miss the truth.
    """
    _, plain = results[ONE_RATE]
    others = [name for name in results if name != ONE_RATE]
    quantile = stats.t.ppf(1.0 - 0.025 / len(others), len(plain) - 1)
    found = {}
    for name in others:
        difference = results[name][1] - plain
        margin = quantile * difference.std(ddof=1) / np.sqrt(len(difference))
        found[name] = difference.mean(), difference.mean() - margin, difference.mean() + margin
    return found


def shown(mean, low, high):
    return f"{mean:+.1f} points ({low:+.1f} to {high:+.1f})"


def verdict(found):
    """One sentence on what multipliers bought over one rate."""

    def listed(names):
        names = sorted(names, key=lambda name: -found[name][0])
        return ", ".join(
            "{} {:+.1f} points ({:+.1f} to {:+.1f})".format(n, *found[n]) for n in names
        )

    better = [name for name, (_, low, _) in found.items() if low > 0]
    worse = [name for name, (_, _, high) in found.items() if high < 0]
    best = max(found, key=lambda name: found[name][0])
    if better:
        sentence = f"Over one rate that is tuned as well, multipliers bought: {listed(better)}"
    else:
        sentence = (
            "Over one rate that is tuned as well, multipliers bought nothing that chance would not "
            f"explain; the best was {listed([best])}"
        )
    return f"{sentence}; they cost: {listed(worse)}." if worse else f"{sentence}."


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="to compare under, at least 2")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="to choose from")
    options = parser.parse_args()
    seeds, rates = options.seeds, options.rates
    if seeds < 2:
        parser.error(f"--seeds must be at least 2, for a spread; got {seeds}.")

    begin = time.perf_counter()
    results = compare(seeds, rates)
    found = intervals(results)
    print(f"{keras.backend.backend()}: test accuracy on 5-9 in per cent, mean of {seeds} seeds")
    print(f"{'':28}{'rate':>7}{'mean':>7}{'spread':>8}   over one rate (95 % for all at once)")
    for name, (rate, tested) in results.items():
        edge = "*" if rate in (min(rates), max(rates)) else " "
        row = f"{name:28}{rate:7g}{edge}{tested.mean():6.1f}{tested.std(ddof=1):8.1f}"
        print(row if name == ONE_RATE else f"{row}   {shown(*found[name])}")
    print("Spread: standard deviation over seeds. *: the last rate of those tried.")
    print(verdict(found))
    print(f"{time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
