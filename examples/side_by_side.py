"""Many small networks in one Keras model, trained by one `fit`; used by the other examples.

A comparison of training methods needs many seeds, and for so small a network the overhead of `fit`
exceeds its steps. Therefore one model contains the networks of all seeds. Their weights are
independent: each network has its own random weights and its own order of images, and the loss is
the sum of their losses. All networks train at the same rate.

The first few networks choose the rate on validation images. The others are scored on test images.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from digits_model import digits
from scipy import stats  # scikit-learn needs it too

TUNING = 4  # number of networks that choose the rate
RATES = (0.03, 0.1, 0.3, 1.0)  # the grid
SIZE = 10  # width and height of an image, in pixels


def placed_digits():
    """(x, y) for training, validation and test.

    Each of scikit-learn's digits is placed at a random position of a slightly larger image; each of
    the 1000 training digits at four positions. Without this, all methods reach 98 %.
    """
    rng = np.random.default_rng(0)
    images, labels = digits()
    order = rng.permutation(len(images))
    parts = []
    for chosen, places in ((order[:1000], 4), (order[1000:1400], 2), (order[1400:], 4)):
        chosen = np.repeat(chosen, places)
        x = np.zeros((len(chosen), SIZE, SIZE), "float32")
        for image, digit, (row, column) in zip(
            x, images[chosen, :, :, 0], rng.integers(0, SIZE - 7, (len(chosen), 2)), strict=True
        ):
            image[row : row + 8, column : column + 8] = digit
        parts.append((x.reshape(len(x), -1), labels[chosen]))
    return parts


def dense(networks, units, **options):
    """One Dense layer per network: (rows, networks, inputs) to (rows, networks, units)."""

    def glorot_uniform(shape, dtype=None):  # for each network separately
        limit = np.sqrt(6 / (shape[-2] + shape[-1]))
        return keras.random.uniform(shape, -limit, limit, dtype=dtype)

    return keras.layers.EinsumDense(
        "rni,nio->rno",
        (networks, units),
        bias_axes="no",
        kernel_initializer=glorot_uniform,
        **options,
    )


def summed_loss(y, logits):
    """Cross-entropy, scaled so that Keras's mean over rows and networks is a sum over networks."""
    entropy = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
    return entropy * logits.shape[1]


def reset(model, weights):
    """Set the weights, and reset the optimizer, without a new `compile`."""
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))


def accuracies(model, x, y, networks):
    """Accuracy of each network, in per cent."""
    logits = model.predict(np.repeat(x[:, None], networks, axis=1), batch_size=1000, verbose=0)
    return 100 * np.mean(np.argmax(logits, axis=-1) == y[:, None], axis=0)


def tuned(model, networks, rates, train_at, validation, test):
    """The rate that the tuning networks choose, and the test accuracies of the others at it.

    Args:
        train_at: Function that resets the model and trains it at a rate.
    """
    best = -np.inf
    for tried in rates:
        train_at(tried)
        validated = accuracies(model, *validation, networks)[:TUNING].mean()
        if validated > best:
            best, rate = validated, tried
            tested = accuracies(model, *test, networks)[TUNING:]
    return rate, tested


class Networks:
    """Small networks with batch normalisation, for SGD with momentum.

    Args:
        judged: Number of networks in addition to those that choose the rate.
        rates: Grid of rates.
    """

    def __init__(self, judged, rates=RATES):
        self.count = count = TUNING + judged
        self.rates = rates
        (x, y), self.validation, self.test = placed_digits()
        orders = [np.random.default_rng(network).permutation(len(x)) for network in range(count)]
        self.steps_per_epoch = -(-len(x) // 64)
        self.x, self.y = x[np.stack(orders, axis=1)], y[np.stack(orders, axis=1)]

        keras.utils.set_random_seed(0)
        layers = [
            dense(count, 64),
            keras.layers.Reshape((count * 64,)),
            keras.layers.BatchNormalization(momentum=0.9),  # normalizes each feature separately
            keras.layers.Reshape((count, 64)),
            keras.layers.ReLU(),
            dense(count, 10),
        ]
        self.model = keras.Sequential([keras.Input((count, SIZE * SIZE)), *layers])
        self.model.compile(keras.optimizers.SGD(momentum=0.9), summed_loss)
        self.weights = self.model.get_weights()

    def reset(self):
        """Set the initial weights of all networks."""
        # All methods see the batches in the same order, except in the very first `fit`, where Keras
        # draws random numbers to build the model.
        keras.utils.set_random_seed(0)
        reset(self.model, self.weights)

    def train(self, rate, callbacks=(), *, epochs, batch_size=64):
        """Train all networks from their initial weights, at `rate` or as the callbacks set it."""
        self.reset()
        self.model.optimizer.learning_rate = rate
        fit = {"epochs": epochs, "batch_size": batch_size, "callbacks": list(callbacks)}
        self.model.fit(self.x, self.y, verbose=0, **fit)

    def judge(self, rate, callbacks=(), **fit):
        """Train, and return the test accuracy of each network that did not choose the rate."""
        self.train(rate, callbacks, **fit)
        return accuracies(self.model, *self.test, self.count)[TUNING:]

    def tuned(self, callbacks_at=lambda rate: (), **fit):
        """The rate that the tuning networks choose, and the test accuracies of the others at it.

        Args:
            callbacks_at: Function from a rate to a list of callbacks.
            fit: `epochs` and `batch_size`.
        """

        def train_at(rate):
            self.train(rate, callbacks_at(rate), **fit)

        return tuned(self.model, self.count, self.rates, train_at, self.validation, self.test)


def options(description, rates=RATES):
    """The options of the command line: `networks` and `rates`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--networks", type=int, default=12, help="networks to score, at least 2")
    parser.add_argument("--rates", type=float, nargs="+", default=rates, help="grid of rates")
    found = parser.parse_args()
    if found.networks < 2:
        parser.error(f"--networks must be at least 2 to give a spread; got {found.networks}.")
    return found


def interval(differences, intervals=1):
    """Mean and its Student's t interval, with 95 % confidence for all `intervals` together.

    The simultaneous confidence uses Bonferroni's correction.
    """
    count = len(differences)
    margin = stats.t.ppf(1 - 0.025 / intervals, count - 1) * differences.std(ddof=1)
    middle, margin = differences.mean(), margin / np.sqrt(count)
    return middle, middle - margin, middle + margin


def judged(claim, one, other, at_least=0.0):
    """One line on whether a claim holds, from the paired differences of `one` and `other`.

    Args:
        claim: Claim of the literature.
        one, other: Accuracies of the same networks, trained with two methods.
        at_least: Minimum gain in points; negative for the tolerance of "as good".
    """
    mean, low, high = interval(one - other)
    if low > at_least:
        verdict = "reproduced"
    elif high < at_least:
        verdict = "did not reproduce"
    else:
        verdict = "not shown by so few networks"
    return f"{claim}: {verdict}, {mean:+.1f} points ({low:+.1f} to {high:+.1f})."


def head(networks):
    backend = keras.backend.backend()
    title = f"{backend}: test accuracy in per cent, {networks} networks"
    return f"{title}\n{'':36}{'epochs':>6}{'rate':>8}{'mean':>8}{'spread':>8}"


def row(name, epochs, rate, tested, rates=()):
    """A row of the table under `head`, with a star at the lowest or highest of `rates`."""
    edge = "*" if rates and rate in (min(rates), max(rates)) else " "
    return f"{name:36}{epochs:>6}{rate:8.3g}{edge}{tested.mean():7.1f}{tested.std(ddof=1):8.1f}"


FOOT = "Spread: standard deviation over networks. *: at the edge of the grid of rates."
