"""Trains on two devices with each callback and compares with one device; prints `passed`.

Run by test_distribution.py in a process of its own, because the number of devices is settled
when the backend starts.
"""

import tempfile

import keras
import numpy as np
import two_devices
from contract import OPTIMIZERS

import keras_lr


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
        "halving": (0.01, lambda: [keras_lr.HalveOnDivergence(check_every=3)]),
        "windows": (cosine, lambda: [keras_lr.ReduceLROnPlateau("loss", 0.5, 1, window=3)]),
    }


def trained(optimizer, callbacks):
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


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return tuple(array[index * 16 : index * 16 + 16] for array in data())


def averaged(file):
    """A run of `ScheduleFree` with multipliers: its validations, and its saved and last weights."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    inner = keras_lr.optimizers.LayerwiseLR(keras.optimizers.AdamW(0.1), {"dense.*/bias": 0.5})
    model.compile(keras_lr.optimizers.ScheduleFree(inner, warmup_steps=3), "mse")
    saved = keras.callbacks.ModelCheckpoint(file, save_weights_only=True)
    options = {"epochs": 3, "verbose": 0, "callbacks": [saved]}
    history = model.fit(dataset(), validation_data=dataset(), **options).history
    np.testing.assert_allclose(model.evaluate(dataset(), verbose=0), history["val_loss"][-1])
    last, predicted = model.get_weights(), model.predict(data()[0], verbose=0)
    model.fit(dataset(), verbose=0)  # goes back to the point of the training
    again = model.get_weights()
    model.load_weights(file)
    for ours, theirs in zip(model.get_weights(), last, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return [np.array(history["val_loss"]), predicted, *last, *again]


def dataset():
    if two_devices.BACKEND == "jax":
        return Batches()
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data()).batch(16)


def main():
    runs = {name: (sgd(rate), make) for name, (rate, make) in stacks().items()}
    for cls, make in OPTIMIZERS.items():
        runs[cls.__name__] = (make, lambda: [])
    steady = {"unfreezing", "halving", *(cls.__name__ for cls in OPTIMIZERS)}
    for name, (optimizer, make) in runs.items():
        with two_devices.distributed():
            weights, history = trained(optimizer, make())
        expected, expected_history = trained(optimizer, make())
        for ours, theirs in zip(weights, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=name)
        for key, values in expected_history.items():
            np.testing.assert_allclose(history[key], values, rtol=1e-5, err_msg=f"{name} {key}")
        assert len(set(history["learning_rate"])) > 1 or name in steady, name
    with tempfile.TemporaryDirectory() as folder:
        with two_devices.distributed():
            shared = averaged(f"{folder}/two.weights.h5")
        for ours, theirs in zip(shared, averaged(f"{folder}/one.weights.h5"), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    print("passed")


if __name__ == "__main__":
    main()
