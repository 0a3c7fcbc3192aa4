"""Trains on two devices with each callback and compares with one device; prints `passed`.

Run by test_distribution.py in a process of its own, because the number of devices is settled
when the backend starts.
"""

import os

BACKEND = os.environ["KERAS_BACKEND"]
if BACKEND == "jax":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import keras  # noqa: E402
import numpy as np  # noqa: E402
from contract import OPTIMIZERS  # noqa: E402

import keras_lr  # noqa: E402

if BACKEND == "tensorflow":
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


class Play(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["played"] = 1.0


def stacks():
    cosine = keras.optimizers.schedules.CosineDecay(0.1, 40)

    def plateau():
        return keras_lr.ReduceLROnPlateau("played", 0.5, 1, mode="min", restore_best_weights=True)

    return {
        "one cycle": (0.01, lambda: [keras_lr.OneCycle(0.05)]),
        "plateau": (0.1, lambda: [Play(), plateau()]),
        "warm-up and plateau": (cosine, lambda: [Play(), keras_lr.WarmUp(epochs=1), plateau()]),
        "unfreezing": (0.01, lambda: [keras_lr.GradualUnfreeze([".*/bias", ".*/kernel"], 2)]),
        "windows": (cosine, lambda: [keras_lr.ReduceLROnPlateau("loss", 0.5, 1, every=3)]),
    }


def trained(optimizer, callbacks, dataset):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile(optimizer(), "mse")
    logger = keras_lr.LRLogger()
    for _ in range(2):
        model.fit(dataset(), epochs=3, verbose=0, callbacks=[*callbacks, logger])
    return model.get_weights(), logger.history


def sgd(rate):
    return lambda: keras.optimizers.SGD(rate, momentum=0.9)


def data():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


def main():
    if BACKEND == "tensorflow":
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        dataset = lambda: tf.data.Dataset.from_tensor_slices(data()).batch(16)  # noqa: E731

        def distributed(*arguments):
            with strategy.scope():
                return trained(*arguments)

    else:

        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 4

            def __getitem__(self, index):
                return tuple(array[index * 16 : index * 16 + 16] for array in data())

        dataset = Batches

        def distributed(*arguments):
            keras.distribution.set_distribution(keras.distribution.DataParallel())
            try:
                return trained(*arguments)
            finally:
                keras.distribution.set_distribution(None)

    runs = {name: (sgd(rate), make) for name, (rate, make) in stacks().items()}
    for cls, make in OPTIMIZERS.items():
        runs[cls.__name__] = (make, lambda: [])
    steady = {"unfreezing", *(cls.__name__ for cls in OPTIMIZERS)}
    for name, (optimizer, make) in runs.items():
        weights, history = distributed(optimizer, make(), dataset)
        expected, expected_history = trained(optimizer, make(), dataset)
        for ours, theirs in zip(weights, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=name)
        for key, values in expected_history.items():
            np.testing.assert_allclose(history[key], values, rtol=1e-5, err_msg=f"{name} {key}")
        assert len(set(history["learning_rate"])) > 1 or name in steady, name
    print("passed")


if __name__ == "__main__":
    main()
