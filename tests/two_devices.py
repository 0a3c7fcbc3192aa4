"""Two devices on one machine, for a job that runs in its own process.

Import it first: the number of devices is fixed when the backend starts.
"""

import contextlib
import os

BACKEND = os.environ["KERAS_BACKEND"]
if BACKEND == "jax":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import keras  # noqa: E402

if BACKEND == "tensorflow":
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    # One for all: a second strategy would reuse the numbers of its collective operations.
    STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@contextlib.contextmanager
def distributed():
    """Models made in the block are trained on both devices."""
    if BACKEND == "tensorflow":
        with STRATEGY.scope():
            yield
        return
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        yield
    finally:
        keras.distribution.set_distribution(None)
