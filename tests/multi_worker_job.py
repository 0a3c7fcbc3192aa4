"""One worker of MultiWorkerMirroredStrategy: is refused, then mends Keras; prints losses as JSON.

Arguments: the rank, and a port for each worker. Run by test_distribution.py.
"""

import json
import os
import sys

ADDRESSES = [f"127.0.0.1:{port}" for port in sys.argv[2:]]
TASK = {"type": "worker", "index": int(sys.argv[1])}
os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": ADDRESSES}, "task": TASK})

import tensorflow as tf  # noqa: E402

STRATEGY = tf.distribute.MultiWorkerMirroredStrategy()  # before any other operation

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras.src.backend.tensorflow import trainer  # noqa: E402

import keras_lr  # noqa: E402


def mended(values, strategy, reduction="auto"):
    """Keras's function without the axis that a step's logs do not have."""
    return keras.tree.map_structure(lambda v: strategy.reduce("MEAN", v, axis=None), values)


def fails(action, *arguments):
    try:
        action(*arguments)
    except ValueError as error:
        return str(error)
    return ""


def main():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    with STRATEGY.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        if fails(model.fit, x, y, 8, 1, 0):
            rule = f"Keras {keras.__version__} cannot train under MultiWorkerMirroredStrategy"
            assert fails(keras_lr.lr_find, model, x, y).startswith(rule)
            assert fails(keras_lr.OneCycle(0.1).set_model, model).startswith(rule)
            trainer.reduce_per_replica = mended
        before = model.get_weights()
        test = keras_lr.lr_find(model, x, y, batch_size=8, steps=20, shuffle=False, verbose=0)
        assert all(map(np.array_equal, before, model.get_weights()))
        keras_lr.OneCycle(0.1).set_model(model)
    print(json.dumps(test.losses.tolist()), flush=True)
    os._exit(0)  # the other worker may have gone, which this one would wait for


if __name__ == "__main__":
    main()
