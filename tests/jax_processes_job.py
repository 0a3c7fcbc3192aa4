"""One of several JAX processes that train together: prints range tests and weights as JSON.

Arguments: the rank, and a port for each process. Run by test_distribution.py.
"""

import json
import sys

import jax
import keras
import numpy as np

import keras_lr

RANK, COUNT = int(sys.argv[1]), len(sys.argv) - 2


def made():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model


def state(model):
    return [np.asarray(v.value) for v in [*model.variables, *model.optimizer.variables]]


def main():
    if COUNT > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(f"127.0.0.1:{sys.argv[2]}", COUNT, RANK)
        shares = keras.distribution.DataParallel(auto_shard_dataset=False)
        keras.distribution.set_distribution(shares)
        assert jax.process_count() == COUNT
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    # Each process has its share of the rows, and of each batch.
    data = x[RANK::COUNT], x.sum(axis=1, keepdims=True)[RANK::COUNT]
    options = {"batch_size": 8 // COUNT, "shuffle": False, "verbose": 0}
    model = made()
    before = state(model)
    test = keras_lr.lr_find(model, *data, steps=30, repeats=2, **options)
    for ours, theirs in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    found = {
        # A ramp that runs off magnifies what the order of a sum leaves.
        "losses": test.losses[:, :20].tolist(),
        "rate": test.suggest().learning_rate,
    }
    logger = keras_lr.LRLogger()
    model.fit(*data, epochs=3, callbacks=[keras_lr.OneCycle(0.05), logger], **options)
    found["weights"] = [w for each in model.get_weights() for w in each.ravel().tolist()]
    found["momentum"] = [float(value) for value in logger.history["momentum"]]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
