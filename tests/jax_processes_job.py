"""One of several JAX processes that train together: prints range tests and weights as JSON.

Arguments: the rank, and a port for each process. Run by test_distribution.py.
"""

import json
import sys

import jax
import keras
import numpy as np
import pytest

import keras_lr

RANK, COUNT = int(sys.argv[1]), len(sys.argv) - 2


def made(rate=0.01, multipliers=None):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(1)])
    optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    if multipliers:
        optimizer = keras_lr.optimizers.LayerwiseLR(optimizer, multipliers)
    model.compile(optimizer, "mse")
    return model


class Stuck(keras.callbacks.Callback):
    """An entry of the logs that never falls, so that a plateau acts."""

    def on_epoch_end(self, epoch, logs=None):
        logs["stuck"] = 1.0


def fitted(model, data, callbacks, **options):
    """The weights after a `fit`, and the rates and momenta of its updates."""
    logger = keras_lr.LRLogger()
    model.fit(*data, epochs=3, callbacks=[*callbacks, logger], **options)
    weights = [w for each in model.get_weights() for w in each.ravel().tolist()]
    history = {name: [float(v) for v in values] for name, values in logger.history.items()}
    return [weights, history["learning_rate"], history.get("momentum")]


def state(model):
    return [np.asarray(v.value) for v in [*model.variables, *model.optimizer.variables]]


def main():
    if COUNT > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(f"127.0.0.1:{sys.argv[2]}", COUNT, RANK)
        shares = keras.distribution.DataParallel(auto_shard_dataset=False)
        keras.distribution.set_distribution(shares)
        assert jax.process_count() == COUNT
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    # Each process has its share of the rows, and of each batch: an odd number, for one device.
    data = x[RANK::COUNT], x.sum(axis=1, keepdims=True)[RANK::COUNT]
    options = {"batch_size": 6 // COUNT, "shuffle": False, "verbose": 0}
    model = made()
    before = state(model)
    test = keras_lr.lr_find(model, *data, steps=30, repeats=2, **options)
    for ours, theirs in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    found = {
        # A ramp that runs off magnifies what the order of a sum leaves.
        "losses": test.losses[:, :20].tolist(),
        # Each process holds some of its own rows out, so these are other rows than one would.
        "short_runs": test.suggest().learning_rate,
    }
    cosine = keras.optimizers.schedules.CosineDecay(0.1, 40)
    plateau = keras_lr.ReduceLROnPlateau("stuck", 0.5, 1, mode="min", restore_best_weights=True)
    weights, rates, momenta = fitted(model, data, [keras_lr.OneCycle(0.05)], **options)
    found.update(cycle=weights, cycle_rates=rates, cycle_momenta=momenta)
    weights, rates, _ = fitted(made(cosine), data, [Stuck(), plateau], **options)
    found.update(plateau=weights, plateau_rates=rates)
    assert rates[-1] < 0.6 * float(cosine(len(rates) - 1))  # it has acted
    several = made(0.05, {".*/kernel": 0.5, ".*/bias": 2.0})
    found["multipliers"] = fitted(several, data, [], **options)[0]
    if COUNT > 1:
        with pytest.raises(ValueError, match="got 2 JAX processes that train together"):
            keras_lr.search(model, *data, low=0.01, high=0.1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
