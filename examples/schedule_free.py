"""Schedule-Free against one cycle and a cosine, at several lengths, each at its best rate.

    python examples/schedule_free.py                      # TensorFlow, or your Keras backend
    KERAS_BACKEND=jax python examples/schedule_free.py --networks 30

Takes a few minutes on two CPU cores and writes no files. Needs keras-lr and scikit-learn.

A schedule needs the length of the training in advance: another length is another run. Schedule-Free
(Defazio et al., 2024) trains at a constant rate and evaluates an average of the weights, so one run
answers for every length. Here, one run of Schedule-Free at each rate is read after 1, 2 and 4
epochs; one cycle and the cosine train anew for each of these lengths. Each method chooses its rate
for each length. The last lines also name the lengths at which Schedule-Free is worse.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from side_by_side import FOOT, TUNING, Networks, accuracies, head, judged, options, row, summed_loss

import keras_lr
from keras_lr.optimizers import ScheduleFree

LENGTHS = (1, 2, 4)  # epochs
HIGHER = 10.0  # Schedule-Free SGD needs rates 10 to 50 times those with a schedule


def one_cycle(epochs, steps):
    return lambda rate: [keras_lr.OneCycle(max_lr=rate)]


def cosine(epochs, steps):
    def callbacks(rate):
        return [keras_lr.ScheduleLR(keras.optimizers.schedules.CosineDecay(rate, epochs * steps))]

    return callbacks


def schedule_free(networks):
    """For each length, the chosen rate and the test accuracies; one run at each rate."""
    count = networks.count
    inner = keras.optimizers.SGD(momentum=0.9)
    networks.model.compile(ScheduleFree(inner, warmup_steps=20), summed_loss)
    best = {}
    for rate in (HIGHER * each for each in networks.rates):

        def read(epoch, logs, rate=rate):
            if epoch + 1 in LENGTHS:  # the weights of the model are the average
                validated = accuracies(networks.model, *networks.validation, count)[:TUNING].mean()
                if validated > best.get(epoch + 1, (-np.inf,))[0]:
                    tested = accuracies(networks.model, *networks.test, count)[TUNING:]
                    best[epoch + 1] = validated, rate, tested

        reader = keras.callbacks.LambdaCallback(on_epoch_end=read)
        networks.train(rate, [reader], epochs=max(LENGTHS))
    return {epochs: found[1:] for epochs, found in best.items()}


def main():
    chosen = options(__doc__.splitlines()[0])
    begin = time.perf_counter()
    networks = Networks(chosen.networks, chosen.rates)
    print(head(chosen.networks))
    tested = {}
    for method in (one_cycle, cosine):
        for epochs in LENGTHS:
            callbacks = method(epochs, networks.steps_per_epoch)
            rate, tested[method, epochs] = networks.tuned(callbacks, epochs=epochs)
            name = method.__name__.replace("_", " ")
            print(row(name, epochs, rate, tested[method, epochs], chosen.rates), flush=True)
    higher = [HIGHER * rate for rate in chosen.rates]
    for epochs, (rate, found) in schedule_free(networks).items():
        tested[schedule_free, epochs] = found
        print(row("schedule-free", epochs, rate, found, higher), flush=True)
    print(FOOT)

    for epochs in LENGTHS:
        for method in (one_cycle, cosine):
            name = (
                f"Schedule-Free better than {method.__name__.replace('_', ' ')}, epochs: {epochs}"
            )
            print(judged(name, tested[schedule_free, epochs], tested[method, epochs]))
    print(f"{time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
