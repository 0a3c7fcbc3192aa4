"""One cycle against a constant rate and against step decay, each at its own best rate.

    python examples/one_cycle.py                          # TensorFlow, or what Keras is set to
    KERAS_BACKEND=jax python examples/one_cycle.py --networks 30

Takes less than a minute on two CPU cores and writes nothing. Needs scikit-learn beside keras-lr.

Smith and Topin ("Super-convergence", 2018) say that one cycle of the rate, with a momentum that
mirrors it, ends better than a rate that falls in steps, and gets there in a fraction of the
training. How much of that is the cycle, and how much that the other rate was not tuned, or that
less training would have done? Here each way chooses from the same rates, at each length of
training, and the short step decay stands beside the short cycle.
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
    """A tenth from half of the training on, and a hundredth from three quarters on."""

    def steps(rate, epoch):
        return rate * 0.1 ** int((epoch >= epochs / 2) + (epoch >= epochs * 3 / 4))

    return lambda rate: [keras.callbacks.LearningRateScheduler(lambda epoch: steps(rate, epoch))]


def one_cycle(epochs):
    return lambda rate: [keras_lr.OneCycle(max_lr=rate)]


WAYS = [
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
    for way, epochs in WAYS:
        rate, tested[way, epochs] = networks.tuned(way(epochs), epochs=epochs)
        name = way.__name__.replace("_", " ")
        print(row(name, epochs, rate, tested[way, epochs], chosen.rates), flush=True)
    print(FOOT)

    cycle, steps = tested[one_cycle, LONG], tested[step_decay, LONG]
    print(judged("One cycle better than a constant rate", cycle, tested[constant, LONG]))
    print(judged("One cycle better than step decay", cycle, steps))
    cycle = tested[one_cycle, SHORT]
    print(judged("One cycle in half of the epochs as good, to a point", cycle, steps, at_least=-1))
    print(judged("One cycle better if both are short", cycle, tested[step_decay, SHORT]))
    print(f"{time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
