"""What callbacks of Keras's read and write beside ours, bounds over schedules, and what counts."""

import keras
import numpy as np
import pytest
from keras import ops
from models import values

import keras_lr

BACKEND = keras.backend.backend()
ROWS, BATCH = 64, 16
STEPS = ROWS // BATCH


def rows():
    x = np.random.default_rng(1).normal(size=(ROWS, 3)).astype("float32")
    return x, (x.sum(axis=1, keepdims=True) + 0.5).astype("float32")


def network(optimizer):
    layers = keras.layers.Dense(1, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((3,)), layers])
    model.compile(optimizer, "mse")
    return model


def fit(model, *callbacks, epochs=4, **options):
    x, y = rows()
    return model.fit(
        x, y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0,
        callbacks=list(callbacks), **options,
    )  # fmt: skip


def assert_descended(model, rates, per_update=1):
    """The weights are those of gradient descent at these rates, one a batch."""
    x, y = (part.astype("float64") for part in rows())
    kernel, bias = np.zeros((3, 1)), np.zeros(1)
    for update, rate in enumerate(rates):
        part = slice(update % STEPS * BATCH, (update % STEPS + 1) * BATCH)
        residual = x[part] @ kernel + bias - y[part]
        kernel = kernel - rate * 2 * (x[part] * residual).mean(axis=0)[:, None]
        bias = bias - rate * 2 * residual.mean(axis=0)
    for ours, theirs in zip(values(model.trainable_variables), (kernel, bias), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def rate_of(model):
    return float(ops.convert_to_numpy(model.optimizer.learning_rate))


# What Keras's own callbacks read and write


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_scheduler_that_returns_what_it_reads_changes_nothing(first):
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr)
    model, warm_up, logger = network("sgd"), keras_lr.WarmUp(steps=15), keras_lr.LRLogger()
    both = [warm_up, scheduler] if first == "ours" else [scheduler, warm_up]
    history = fit(model, *both, logger).history
    rates = 0.01 * np.minimum(np.arange(4 * STEPS) / 15, 1.0)
    assert_descended(model, rates)
    np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)
    np.testing.assert_allclose(history["learning_rate"], rates[STEPS - 1 :: STEPS], rtol=1e-5)
    np.testing.assert_allclose(rate_of(model), 0.01, rtol=1e-6)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_scheduler_that_scales_what_it_reads_scales_the_optimizers_own_rate(first):
    scheduler = keras.callbacks.LearningRateScheduler(
        lambda epoch, lr: lr if epoch < 2 else lr * 0.5
    )
    model, warm_up = network("sgd"), keras_lr.WarmUp(steps=10)
    both = [warm_up, scheduler] if first == "ours" else [scheduler, warm_up]
    fit(model, *both)
    own = np.repeat([0.01, 0.01, 0.005, 0.0025], STEPS)
    assert_descended(model, own * np.minimum(np.arange(4 * STEPS) / 10, 1.0))
    np.testing.assert_allclose(rate_of(model), 0.0025, rtol=1e-6)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_keras_plateau_inside_a_warm_up_scales_the_optimizers_own_rate(first):
    theirs = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100.0)
    model, warm_up = network("sgd"), keras_lr.WarmUp(steps=12)
    history = fit(model, *([warm_up, theirs] if first == "ours" else [theirs, warm_up])).history
    # The first epoch has nothing to be compared with; each one after it makes a reduction.
    own = np.repeat([0.01, 0.01, 0.005, 0.0025], STEPS)
    rates = own * np.minimum(np.arange(4 * STEPS) / 12, 1.0)
    assert_descended(model, rates)
    np.testing.assert_allclose(rate_of(model), 0.00125, rtol=1e-6)
    np.testing.assert_allclose(history["learning_rate"], rates[STEPS - 1 :: STEPS], rtol=1e-5)


def test_weight_decay_follows_the_steered_rate():
    model = network(keras.optimizers.AdamW(0.5, weight_decay=0.1))
    model.layers[0].kernel.assign(np.ones((3, 1), "float32"))
    x = np.zeros((ROWS, 3), "float32")  # no gradient reaches the kernel
    model.fit(x, x[:, :1], batch_size=BATCH, verbose=0, callbacks=[keras_lr.WarmUp(steps=4)])
    expected = np.prod(1 - 0.1 * 0.5 * np.arange(4) / 4)
    kernel = values(model.trainable_variables)[0]
    np.testing.assert_allclose(kernel, np.full((3, 1), expected), rtol=1e-5, atol=0)


# Bounds of a plateau


def test_min_lr_holds_over_a_decaying_schedule():
    decay = keras.optimizers.schedules.ExponentialDecay(0.04, decay_steps=4, decay_rate=0.5)
    for own, extra in (
        (decay, []),
        (0.01, [keras_lr.ScheduleLR(decay)]),
    ):
        model, logger = network(keras.optimizers.SGD(own)), keras_lr.LRLogger()
        plateau = keras_lr.ReduceLROnPlateau(
            "loss", factor=0.5, patience=1, min_delta=100.0, min_lr=0.006
        )
        fit(model, *extra, plateau, logger)
        scale = np.repeat([1, 1, 0.5, 0.25], STEPS)
        rates = np.maximum(0.04 * 0.5 ** (np.arange(4 * STEPS) / 4) * scale, 0.006)
        assert rates.min() == 0.006
        assert_descended(model, rates)
        np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)


def test_a_warm_up_is_a_factor_on_the_bounded_rate():
    decay = keras.optimizers.schedules.ExponentialDecay(0.04, decay_steps=4, decay_rate=0.5)
    model, logger = network(keras.optimizers.SGD(decay)), keras_lr.LRLogger()
    plateau = keras_lr.ReduceLROnPlateau("loss", min_lr=0.01)
    fit(model, plateau, keras_lr.WarmUp(steps=8), logger)
    steps = np.arange(4 * STEPS)
    rates = np.maximum(0.04 * 0.5 ** (steps / 4), 0.01) * np.minimum(steps / 8, 1.0)
    assert_descended(model, rates)
    np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)


def test_a_preview_shows_the_bounds():
    decay = keras.optimizers.schedules.ExponentialDecay(0.04, decay_steps=4, decay_rate=0.5)
    shown = keras_lr.preview([decay, keras_lr.ReduceLROnPlateau("loss", min_lr=0.01)], steps=16)
    expected = np.maximum(0.04 * 0.5 ** (np.arange(16) / 4), 0.01)
    np.testing.assert_allclose(shown.learning_rates, expected, rtol=1e-5, atol=0)


# What counts as an update


@pytest.mark.parametrize("accumulation", [None, 2])
def test_a_cycle_ends_with_the_run_though_updates_are_skipped(accumulation):
    """Gradients overflow in the first batches, until the loss scale has come down."""
    inner = keras.optimizers.SGD(0.01, gradient_accumulation_steps=accumulation)
    model = network(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**127))
    cycle = keras_lr.OneCycle(0.05, cycle_momentum=False)
    logger = keras_lr.LRLogger()
    fit(model, cycle, logger)
    skipped = 4 * STEPS - int(ops.convert_to_numpy(inner._iterations.value))
    assert 0 < skipped < 4 * STEPS
    rates = np.array(logger.history["learning_rate"])
    assert len(rates) == 4 * STEPS
    np.testing.assert_allclose(rates[-1], 0.05 / 25 / 1e4, rtol=1e-4)
    if accumulation is None:
        assert_descended(model, np.where(np.arange(4 * STEPS) < skipped, 0.0, rates))


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on torch takes one step an execution")
@pytest.mark.parametrize("together", [3, 8])
def test_steps_of_one_execution_count_singly_though_updates_are_skipped(together):
    inner = keras.optimizers.SGD(0.01)
    model = network("sgd")
    model.compile(
        keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**127),
        "mse",
        steps_per_execution=together,
    )
    logger = keras_lr.LRLogger()
    rate = keras.optimizers.schedules.CosineDecay(0.05, 4 * STEPS)
    fit(model, keras_lr.ScheduleLR(rate), logger)
    expected = 0.05 * 0.5 * (1 + np.cos(np.pi * np.arange(4 * STEPS) / (4 * STEPS)))
    np.testing.assert_allclose(logger.history["learning_rate"], expected, rtol=1e-5, atol=0)
    skipped = 4 * STEPS - int(ops.convert_to_numpy(inner._iterations.value))
    assert_descended(model, np.where(np.arange(4 * STEPS) < skipped, 0.0, expected))


def test_a_schedule_of_the_optimizers_own_counts_its_own_updates():
    decay = keras.optimizers.schedules.ExponentialDecay(0.04, decay_steps=4, decay_rate=0.5)
    inner = keras.optimizers.SGD(decay)
    model = network(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**127))
    logger = keras_lr.LRLogger()
    fit(model, keras_lr.WarmUp(steps=8), logger)
    skipped = 4 * STEPS - int(ops.convert_to_numpy(inner._iterations.value))
    batches = np.arange(4 * STEPS)
    counted = np.maximum(batches - skipped, 0)
    rates = 0.04 * 0.5 ** (counted / 4) * np.minimum(batches / 8, 1.0)
    np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5, atol=0)
    assert_descended(model, np.where(batches < skipped, 0.0, rates))


# A run that goes on with another length


class Killed(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def resumed(tmp_path, first, second):
    """Rates of a run of 6 epochs that is killed after two, and goes on with 12."""
    backup = tmp_path / "backup"
    model = network("sgd")
    with pytest.raises(KeyboardInterrupt):
        fit(model, first, keras.callbacks.BackupAndRestore(backup), Killed(), epochs=6)
    model, logger = network("sgd"), keras_lr.LRLogger()
    fit(model, second, logger, keras.callbacks.BackupAndRestore(backup), epochs=12)
    return logger.history["learning_rate"]


def test_a_resumed_run_of_another_length_is_warned_of(tmp_path):
    cycle = {"max_lr": 0.1, "cycle_momentum": False, "anneal": "linear"}
    with pytest.warns(UserWarning) as caught:
        rates = resumed(tmp_path, keras_lr.OneCycle(**cycle), keras_lr.OneCycle(**cycle))
    (message,) = [str(each.message) for each in caught if "resumed run" in str(each.message)]
    assert "24 updates (6 epochs)" in message and "48 (12 epochs)" in message
    assert message.endswith("pass total_steps=24 to OneCycle.")
    peak = 0.3 * 48 - 1  # linear from 0.004 to 0.1
    np.testing.assert_allclose(rates[0], 0.004 + 0.096 * 8 / peak, rtol=1e-5)


def test_a_resumed_run_knows_the_half_update_that_it_began_with(tmp_path):
    """One batch is in the accumulator when the run begins, so each update ends a batch earlier."""

    def model():
        result = network(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
        x, y = rows()
        result.train_on_batch(x[:BATCH], y[:BATCH])
        return result

    backup = tmp_path / "backup"
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=1, decay_rate=0.9)
    with pytest.raises(KeyboardInterrupt):
        callbacks = keras.callbacks.BackupAndRestore(backup), Killed()
        fit(model(), keras_lr.ScheduleLR(schedule), *callbacks)
    logger = keras_lr.LRLogger()
    callbacks = logger, keras.callbacks.BackupAndRestore(backup)
    fit(model(), keras_lr.ScheduleLR(schedule), *callbacks)
    batches = np.arange(2 * STEPS, 4 * STEPS)
    rates = 0.1 * 0.9 ** ((1 + batches) // 2)
    found = logger.history["learning_rate"][-len(batches) :]
    np.testing.assert_allclose(found, rates, rtol=1e-5, atol=0)


def test_the_old_plan_can_be_kept(tmp_path):
    cycle = {"max_lr": 0.1, "cycle_momentum": False, "anneal": "linear"}
    kept = keras_lr.OneCycle(total_steps=24, **cycle)
    with pytest.warns(UserWarning, match="should end with the training"):
        rates = resumed(tmp_path, keras_lr.OneCycle(**cycle), kept)
    peak = 0.3 * 24 - 1
    down = (np.arange(8, 24) - peak) / (23 - peak)
    end = 0.1 / 25 / 1e4
    np.testing.assert_allclose(rates[:16], 0.1 + (end - 0.1) * down, rtol=1e-4)


def test_a_warm_up_in_epochs_that_stays_as_long_is_not_warned_of(tmp_path):
    rates = resumed(tmp_path, keras_lr.WarmUp(epochs=3), keras_lr.WarmUp(epochs=3))
    np.testing.assert_allclose(rates[:4], 0.01 * np.arange(8, 12) / 12, rtol=1e-5)


def test_a_warm_up_that_is_a_share_of_the_run_is_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="pass steps=12 to WarmUp"):
        resumed(tmp_path, keras_lr.WarmUp(fraction=0.5), keras_lr.WarmUp(fraction=0.5))


@pytest.mark.skipif(BACKEND == "jax", reason="JAX's train_step reads no variables")
def test_a_training_step_reads_the_rate_that_its_update_uses():
    class Reads(keras.Model):
        def train_step(self, *arguments):
            logs = super().train_step(*arguments)
            rate = ops.convert_to_tensor(self.optimizer.learning_rate)
            if isinstance(logs, tuple):
                return {**logs[0], "rate": rate}, logs[1]
            return {**logs, "rate": rate}

    inputs = keras.Input((3,))
    model = Reads(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    read = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: read.append(float(logs["rate"]))
    )
    fit(model, keras_lr.WarmUp(steps=8), note)
    np.testing.assert_allclose(
        read, 0.01 * np.minimum(np.arange(4 * STEPS) / 8, 1.0), rtol=1e-5, atol=0
    )
