"""`HalveOnDivergence` on parabolas, whose stable rates are known, and against twin runs.

The loss of `parabola` is `a**2 * w**2`: a step at rate r multiplies the weight by
`1 - 2 * a**2 * r`, which is stable below a rate of `1 / a**2`.
"""

import keras
import numpy as np
import pytest
from keras import ops
from models import classifier, data, multi_optimizer, same, values

import keras_lr

elsewhere = pytest.mark.long_elsewhere("when to go back is decided in Python, from the losses")

BACKEND = keras.backend.backend()
STEPS = 8  # batches of an epoch


def parabola(optimizer, a=1.0, weight=1.0, **options):
    start = keras.initializers.Constant(weight)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer=start)
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(optimizer, "mse", **options)
    x = np.full((4 * STEPS, 1), a, "float32")
    return model, (x, 0 * x)


def fit(model, xy, *callbacks, epochs=3, **options):
    return model.fit(
        *xy, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks),
        **options,
    )  # fmt: skip


def halver(**options):
    return keras_lr.HalveOnDivergence(**{"check_every": 4, **options})


def weight_of(model):
    return float(model.get_weights()[0].item())


def rates_of(optimizer):
    parts = getattr(optimizer, "optimizers", [optimizer])
    return [float(ops.convert_to_numpy(part.learning_rate)) for part in parts]


def test_it_restores_the_weights_of_the_training_before_keras_swaps_them_for_averages():
    models = []
    for swaps in ([], [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]):
        optimizer = keras.optimizers.SGD(2.9, use_ema=True, ema_momentum=0.5)
        model, xy = parabola(optimizer)
        halve = halver(check_every=50)  # at the end of an epoch
        fit(model, xy, halve, *swaps, epochs=6)
        models.append((model, [(event.step, event.new) for event in halve.events]))
    assert [new for _, new in models[0][1]] == pytest.approx([1.45, 0.725])
    assert models[0][1] == models[1][1]
    assert same(*(values(model.variables) for model, _ in models))


@pytest.mark.parametrize("a", [1.0, 5.0])
@pytest.mark.parametrize("start", [0.9, 1.8, 57.6, 1e6])
def test_ends_at_the_first_rate_below_the_bound(start, a):
    bound = 1 / a**2
    model, xy = parabola(keras.optimizers.SGD(start * bound), a)
    halve = halver(max_halvings=20)
    history = fit(model, xy, halve, epochs=16 if start > 100 else 8)
    halvings = max(0, int(np.ceil(np.log2(start))))
    assert len(halve.events) == halvings
    np.testing.assert_allclose(rates_of(model.optimizer), start * bound / 2**halvings, rtol=1e-5)
    assert abs(weight_of(model)) < 0.1
    assert history.history["loss"][-1] < 0.01


@elsewhere
def test_a_run_that_does_not_diverge_is_left_alone():
    x, y = data()
    ends = []
    for callbacks in ([], [halver(check_every=2)]):
        model = classifier(keras.optimizers.Adam(0.01))
        model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=callbacks)
        ends.append(values([*model.variables, *model.optimizer.variables]))
    assert same(*ends)


@pytest.mark.parametrize(
    "make", [lambda rate: keras.optimizers.Adam(rate), lambda rate: keras.optimizers.SGD(rate, 0.9)]
)
def test_goes_back_to_a_state_from_which_the_run_is_that_of_the_lower_rate(make):
    """All batches are alike, so undone batches leave nothing behind but the rate."""
    bad = np.float32(np.inf)
    model, xy = parabola(make(0.01), 2.0)
    xy[0][4 * 5] = bad  # the sixth batch of the first epoch
    halve = halver(check_every=2)
    fit(model, xy, halve, epochs=1)
    # Checks after batches 1, 3, 5: each is good, and the copy of 3 is known to be by then. The
    # check of batch 7 is not; its two batches and the two before are undone, and one follows.
    (event,) = halve.events
    assert (event.step, event.restored, event.action) == (7, 3, "halve")
    assert event.reason == "the loss is not finite"
    twin, xy = parabola(make(0.01), 2.0)
    fit(twin, (xy[0][:12], xy[1][:12]), epochs=1)
    twin.optimizer.learning_rate.assign(0.005)
    fit(twin, (xy[0][:4], xy[1][:4]), epochs=1)
    assert same(values(model.weights), values(twin.weights))
    assert same(values(model.optimizer.variables), values(twin.optimizer.variables))


def test_the_epochs_loss_leaves_the_undone_batches_out():
    model, xy = parabola(keras.optimizers.SGD(0.05))
    xy[0][4 * 5] = np.nan
    history = fit(model, xy, halver(check_every=2), epochs=2, validation_data=xy[::-1])
    weights = [1.0, 0.9, 0.81, 0.81 * 0.9]  # the last batch, again from the third update
    expected = np.mean(np.square(weights[:4]))
    np.testing.assert_allclose(history.history["loss"][0], expected, rtol=1e-5)


def test_nan_in_the_first_batches_goes_back_to_the_weights_of_the_beginning():
    class Remember(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.start = self.start if epoch else self.model.get_weights()

    x, y = data()
    model, remember = classifier(keras.optimizers.SGD(1e38), dropout=0.0), Remember()
    halve = halver(check_every=2, max_halvings=1)
    with pytest.warns(UserWarning, match="stops the training after 1 of 1 halvings, at a learn"):
        history = model.fit(x, y, batch_size=16, epochs=5, verbose=0, callbacks=[remember, halve])
    assert len(history.epoch) == 1
    assert [(e.action, e.restored) for e in halve.events] == [("halve", 0), ("stop", 0)]
    assert same(model.get_weights(), remember.start)
    assert all(np.isfinite(value).all() for value in values(model.optimizer.variables))


@pytest.mark.parametrize("check_every", [1, 3, 100])
@elsewhere
def test_a_training_that_ends_with_a_divergence_has_good_weights(check_every):
    """The last update is the one that breaks the weights; no loss has seen it."""
    model, xy = parabola(keras.optimizers.SGD(0.05))
    xy[1][-1] = 3e38  # its loss, or the weight after it, is not finite
    halve = halver(check_every=check_every)
    fit(model, xy, halve, epochs=1)
    assert len(halve.events) == 1
    np.testing.assert_allclose(weight_of(model), 0.9 ** halve.events[0].restored, rtol=1e-5)
    if check_every < 100:
        assert halve.events[0].restored >= STEPS - 2 * check_every - 1


def test_scales_a_schedule_whose_clock_goes_back_with_the_weights():
    decay = keras.optimizers.schedules.ExponentialDecay(1.8, decay_steps=100, decay_rate=0.5)
    model, xy = parabola(keras.optimizers.SGD(decay))
    halve, logger = halver(check_every=2), keras_lr.LRLogger()
    fit(model, xy, halve, logger, epochs=2)
    (event,) = halve.events
    steps = np.concatenate([np.arange(event.step), event.restored + np.arange(16 - event.step)])
    assert logger.history["step"] == steps.tolist()
    rates = 1.8 * 0.5 ** (steps / 100) * np.repeat([1.0, 0.5], [event.step, 16 - event.step])
    np.testing.assert_allclose(logger.history["learning_rate"], rates, rtol=1e-5)
    expected = np.prod(1 - 2 * rates[: event.restored]) * np.prod(1 - 2 * rates[event.step :])
    np.testing.assert_allclose(weight_of(model), expected, rtol=1e-4)
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) == steps[-1] + 1


@pytest.mark.parametrize("policy", ["OneCycle", "WarmUp"])
def test_halves_the_rate_of_other_callbacks(policy):
    if policy == "OneCycle":
        model, xy = parabola(keras.optimizers.SGD(0.3, momentum=0.5))
        other = keras_lr.OneCycle(50.0, cycle_momentum=True)
    else:
        model, xy = parabola(keras.optimizers.SGD(50.0))
        other = keras_lr.WarmUp(12)
    plain, scaled = keras_lr.LRLogger(), keras_lr.LRLogger()
    halve = halver(check_every=2)
    fit(model, xy, other, halve, scaled, epochs=6)
    twin, xy = parabola(keras.optimizers.SGD(50.0 if policy == "WarmUp" else 0.3, momentum=0.5))
    fit(twin, xy, other, plain, epochs=6)
    steps = np.array(scaled.history["step"])
    ratio = np.array(scaled.history["learning_rate"])[1:] / np.array(
        plain.history["learning_rate"]
    )[steps[1:]].clip(1e-9)
    assert len(halve.events) >= 2
    assert np.isfinite(weight_of(model)) and abs(weight_of(model)) < 2
    known = 0.5 ** np.arange(len(halve.events) + 1)
    distance = np.abs(ratio[steps[1:] > 0][:, None] / known - 1).min(axis=1)
    assert distance.max() < 1e-4
    own = 0.3 if policy == "OneCycle" else 50.0 * 0.5 ** len(halve.events)
    np.testing.assert_allclose(rates_of(model.optimizer), own, rtol=1e-5)


def test_groups_keep_their_ratios():
    groups = {".*bias": keras.optimizers.SGD(0.3)}
    model, xy = parabola(multi_optimizer(keras.optimizers.SGD(3.0), groups))
    halve = halver()
    fit(model, xy, halve)
    np.testing.assert_allclose(sorted(rates_of(model.optimizer)), [0.075, 0.75], rtol=1e-6)


def test_a_half_filled_accumulator_goes_back_with_the_counter():
    model, xy = parabola(keras.optimizers.SGD(0.05, gradient_accumulation_steps=3))
    xy[0][4 * 6] = np.nan
    halve = halver(check_every=2)
    fit(model, xy, halve, epochs=1)
    assert halve.events[0].restored == 3 // 3
    # Batches 0 to 2 made an update; the check after batch 6 undid four, and one more follows.
    np.testing.assert_allclose(weight_of(model), 0.9, rtol=1e-5)
    assert int(ops.convert_to_numpy(model.optimizer._iterations)) == 4


def test_what_a_loss_scale_optimizer_skips_is_no_divergence():
    inner = keras.optimizers.SGD(0.05)
    model, xy = parabola(keras.optimizers.LossScaleOptimizer(inner, initial_scale=3e38), 8.0)
    halve = halver(check_every=2)
    fit(model, xy, halve, epochs=1)
    assert halve.events == []


@pytest.mark.skipif(BACKEND == "torch", reason="Keras on torch takes one step an execution")
def test_checks_at_the_end_of_executions():
    model, xy = parabola(keras.optimizers.SGD(3.0), steps_per_execution=3)
    halve = halver()
    fit(model, xy, halve, epochs=6)
    np.testing.assert_allclose(rates_of(model.optimizer), 0.75, rtol=1e-6)
    assert abs(weight_of(model)) < 0.1


def test_weights_that_break_without_a_sign_in_the_loss_are_noticed():
    def loss(y, prediction):  # where y is 0, the loss is 0 and its gradient is not a number
        return ops.square(prediction) + ops.sqrt(y + 0 * prediction)

    model, (x, y) = parabola(keras.optimizers.SGD(0.05))
    model.compile(keras.optimizers.SGD(0.05), loss)
    y += 1
    y[-1] = 0
    halve = halver(check_every=3)
    fit(model, (x, y), halve, epochs=1)
    assert [event.reason for event in halve.events] == ["weights or optimizer state are not finite"]
    np.testing.assert_allclose(weight_of(model), 0.9**4, rtol=1e-5)  # checks at 1, 4, 7, 8


class Poison(keras.callbacks.Callback):
    """Breaks the weights early in the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (2, 0):
            self.model.set_weights([np.full((1, 1), np.nan)])


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_a_killed_run_goes_on_with_its_good_weights_and_counters(tmp_path):
    def run(*extra):
        model, xy = parabola(keras.optimizers.SGD(3.0, momentum=0.2))
        halve = halver(check_every=3, max_halvings=9)
        try:
            fit(model, xy, Poison(), halve, *extra, epochs=4)
        except KeyboardInterrupt:
            pass
        return model, halve

    whole, before = run()
    backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup")]
    run(*backup, Kill())
    resumed, halve = run(*backup)
    assert same(values(resumed.weights), values(whole.weights))
    assert same(values(resumed.optimizer.variables), values(whole.optimizer.variables))
    late = [event for event in before.events if event.epoch == 2]
    assert halve.events == late
    assert late[0].restored < late[0].step - 3  # from the epoch before
    assert halve._halvings == len(before.events) > len(late)


@elsewhere
def test_noise_of_small_batches_is_no_divergence():
    """The first batch is an easy one: the mean of the next ones is five times its loss."""
    rng = np.random.default_rng(0)
    model, _ = parabola(keras.optimizers.SGD(1e-4))
    x, noise = rng.normal(size=(2, 200, 1)).astype("float32")
    noise[:4] = 0.45
    assert np.square(noise[4:44]).mean() > 4.0 * 0.45**2
    halve = halver(check_every=10)
    model.fit(x, x + noise, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[halve])
    assert halve.events == []


@elsewhere
def test_a_spike_is_no_divergence_unless_it_is_the_last_thing_that_is_seen():
    for spike, epochs, events in ((3, 2, 0), (STEPS - 1, 2, 0), (STEPS - 1, 1, 1)):
        model, xy = parabola(keras.optimizers.SGD(1e-6))
        xy[1][4 * spike : 4 * spike + 4] = 50.0
        halve = halver(check_every=4)
        fit(model, xy, halve, epochs=epochs)
        if epochs == 2 and spike == STEPS - 1:
            assert [event.epoch for event in halve.events] == [1]  # at the end of the run
        else:
            assert len(halve.events) == events


@elsewhere
def test_says_what_it_did(capsys):
    model, xy = parabola(keras.optimizers.SGD(1.8))
    halve = halver(verbose=1)
    fit(model, xy, halve)
    printed = capsys.readouterr().out
    assert "Epoch 1: learning rate 1.8 -> 0.9, weights of update 0: the loss rose to" in printed
    assert halve.events[0].reason in printed


@pytest.mark.skipif(BACKEND != "tensorflow", reason="others build the model before callbacks begin")
@elsewhere
def test_a_model_without_weights_is_refused():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((4, 1), "float32")
    with pytest.raises(ValueError, match="copies the weights when the training begins"):
        model.fit(x, x, verbose=0, callbacks=[halver()])


@pytest.mark.once
@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (ValueError, {"factor": 1.0}, r"factor must be in \(0, 1\); got 1.0"),
        (ValueError, {"threshold": 1.0}, "threshold must be above 1; got 1.0"),
        (ValueError, {"max_halvings": 0}, "max_halvings must be an integer of at least 1; got 0"),
        (ValueError, {"check_every": 0}, "check_every must be an integer of at least 1; got 0"),
        (TypeError, {"check_every": "epoch"}, "check_every must be an integer of at least 1"),
    ],
)
def test_bad_arguments_are_refused_at_once(error, arguments, message):
    with pytest.raises(error, match=message):
        keras_lr.HalveOnDivergence(**arguments)


@elsewhere
def test_a_loss_of_another_name_is_watched_and_one_that_is_missing_refused():
    class Named(keras.Sequential):
        def train_step(self, *arguments):
            logs = super().train_step(*arguments)
            if isinstance(logs, tuple):
                return {"n_loss": logs[0]["loss"]}, logs[1]
            return {"n_loss": logs["loss"]}

    x = np.ones((64, 1), "float32")  # loss = weight ** 2: stable below a rate of 1
    model = Named([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(3.0), "mse")
    options = {"batch_size": 4, "epochs": 3, "verbose": 0}
    with pytest.raises(ValueError, match="monitors 'loss', which is not in the logs; .* n_loss"):
        model.fit(x, 0 * x, callbacks=[keras_lr.HalveOnDivergence(check_every=4)], **options)
    halve = keras_lr.HalveOnDivergence(check_every=4, monitor="n_loss")
    model.fit(x, 0 * x, callbacks=[halve], **options)
    assert [(event.old, event.new) for event in halve.events] == [(3.0, 1.5), (1.5, 0.75)]
