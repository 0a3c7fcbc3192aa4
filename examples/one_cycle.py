"""One cycle against a constant rate and against step decay, each at its best rate.

    python examples/one_cycle.py                          # TensorFlow, or your Keras backend
    KERAS_BACKEND=jax python examples/one_cycle.py --networks 30

Takes less than a minute on two CPU cores and writes no files. Needs keras-lr and scikit-learn.

Smith and Topin ("Super-convergence", 2018) claim that one cycle of the rate, with a momentum that
mirrors it, reaches a better accuracy than step decay in a fraction of the training. The gain may
come from the cycle, from a baseline that was not tuned, or from a training that was longer than
needed. Here, each method chooses from the same rates, for each number of epochs, and step decay
also runs for the short training.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from side_by_side import FOOT, Networks, head, judged, options, row

import keras_lr

LONG, SHORT = 4, 2  # epochs


def constant(epochs):
    return lambda rate: []


def step_decay(epochs):
    """A tenth of the rate from half of the training on, a hundredth from three quarters on."""

    def steps(rate, epoch):
        return rate * 0.1 ** int((epoch >= epochs / 2) + (epoch >= epochs * 3 / 4))

    return lambda rate: [keras.callbacks.LearningRateScheduler(lambda epoch: steps(rate, epoch))]


def one_cycle(epochs):
    return lambda rate: [keras_lr.OneCycle(max_lr=rate)]


METHODS = [
    (constant, LONG),
    (step_decay, LONG),
    (one_cycle, LONG),
    (step_decay, SHORT),
    (one_cycle, SHORT),
]


def main():
    chosen = options(__doc__.splitlines()[0])
    begin = time.perf_counter()
    networks = Networks(chosen.networks, chosen.rates)
    print(head(chosen.networks))
    tested = {}
    for method, epochs in METHODS:
        rate, tested[method, epochs] = networks.tuned(method(epochs), epochs=epochs)
        name = method.__name__.replace("_", " ")
        print(row(name, epochs, rate, tested[method, epochs], chosen.rates), flush=True)
    print(FOOT)

    cycle, steps = tested[one_cycle, LONG], tested[step_decay, LONG]
    print(judged("One cycle better than a constant rate", cycle, tested[constant, LONG]))
    print(judged("One cycle better than step decay", cycle, steps))
    cycle = tested[one_cycle, SHORT]
    print(
        judged("One cycle in half of the epochs as good, within a point", cycle, steps, at_least=-1)
    )
    print(judged("One cycle better if both are short", cycle, tested[step_decay, SHORT]))
    print(f"{time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
