"""Range tests of models that train with optimizers of their own, or log other names than loss."""

import keras
import numpy as np
import pytest
from command_line import refused, run
from keras import ops
from models import same, values

import keras_lr

BACKEND = keras.backend.backend()
ROWS = 64
X = np.ones((ROWS, 1), "float32")
RAMP = {"start_lr": 1e-3, "end_lr": 1.0, "steps": 30, "stop_factor": None, "verbose": 0}


class Scalar(keras.layers.Layer):
    """One weight, from 0; what it returns is that weight."""

    def build(self, shape):
        self.w = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        return self.w + 0.0 * ops.mean(x)


class Pair(keras.Model):
    """Two weights, each trained down its own slope of 1 by an optimizer of its own.

    After n updates at the rates r, a weight is -sum(r): the losses tell the rates that were used.
    `times` calls of the optimizer of `g` a batch, where `every` counted batches have passed.
    """

    def __init__(self, times=1, every=1, own_default=False):
        super().__init__()
        self.g, self.d = Scalar(), Scalar()
        self.g.build(None), self.d.build(None)
        self.times, self.every = times, every
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")
        self.built = True

    def compile(self, g="sgd", d="sgd", **options):
        super().compile(**options)
        self.g_optimizer = keras.optimizers.get(g)
        self.d_optimizer = keras.optimizers.get(d)
        if BACKEND == "jax":
            for optimizer, part in ((self.g_optimizer, self.g), (self.d_optimizer, self.d)):
                optimizer.build(part.trainable_variables)
            self.tracked = [*self.g_optimizer.variables, *self.d_optimizer.variables]

    def call(self, x):
        return self.g(x)

    def _plan(self):
        return [(self.d_optimizer, self.d), *[(self.g_optimizer, self.g)] * self.times]

    if BACKEND == "jax":

        def train_step(self, state, data):
            scope_map = [
                pair
                for variables, held in zip(
                    (self.trainable_variables, self.non_trainable_variables), state, strict=False
                )
                for pair in zip(variables, held, strict=True)
            ]
            with keras.StatelessScope(state_mapping=scope_map):
                logs = {"d_loss": self.d.w.value + 0.0, "g_loss": self.g.w.value + 0.0}
            now = {id(v): value for v, value in scope_map}
            for optimizer, part in self._plan():
                known = [now[id(v)] for v in optimizer.variables]
                weights = [now[id(v)] for v in part.trainable_variables]
                new, slots = optimizer.stateless_apply(
                    known, [ops.ones(())] * len(weights), weights
                )
                if part is self.g and self.every > 1:
                    due = now[id(self.seen)] % self.every == 0
                    new = [ops.where(due, *both) for both in zip(new, weights, strict=True)]
                    slots = [ops.where(due, *both) for both in zip(slots, known, strict=True)]
                now.update(zip(map(id, optimizer.variables), slots, strict=True))
                now.update(zip(map(id, part.trainable_variables), new, strict=True))
            now[id(self.seen)] = now[id(self.seen)] + 1
            return logs, (
                [now[id(v)] for v in self.trainable_variables],
                [now[id(v)] for v in self.non_trainable_variables],
                state[2],
                state[3],
            )

    else:

        def train_step(self, data):
            logs = {"d_loss": self.d.w.value + 0.0, "g_loss": self.g.w.value + 0.0}
            for optimizer, part in self._plan():
                self._apply(optimizer, part)
            self.seen.assign(self.seen + 1.0)
            return logs

        def _apply(self, optimizer, part):
            if BACKEND == "torch":
                import torch

                if part is self.d or float(self.seen.value) % self.every == 0:
                    with torch.no_grad():
                        optimizer.apply([torch.ones(())], part.trainable_variables)
                return
            import tensorflow as tf

            if part is self.d or self.every == 1:
                optimizer.apply([tf.ones(())], part.trainable_variables)
                return
            if not optimizer.built:
                optimizer.build(part.trainable_variables)
            tf.cond(
                tf.equal(self.seen.value % self.every, 0.0),
                lambda: (optimizer.apply([tf.ones(())], part.trainable_variables), 0)[1],
                lambda: 0,
            )


def pair(times=1, every=1, rates=(0.5, 0.01), kind=keras.optimizers.SGD, **options):
    model = Pair(times, every)
    model.compile(kind(rates[0]), kind(rates[1]), **options)
    return model


def falls(rates, times=1):
    """The losses of a weight from 0 that falls by each rate, `times` over."""
    return -np.concatenate([[0.0], np.cumsum(rates)[:-1] * times])


@pytest.mark.parametrize("choice", ["g_optimizer", "object"])
def test_the_named_optimizer_gets_the_ramp_and_the_other_one_its_own_rate(choice):
    model = pair()
    optimizer = model.g_optimizer if choice == "object" else choice
    test = keras_lr.lr_find(model, X, batch_size=4, optimizer=optimizer, monitor="g_loss", **RAMP)
    rates = np.geomspace(1e-3, 1.0, 30)
    np.testing.assert_allclose(test.learning_rates, rates, rtol=1e-5, atol=0)
    np.testing.assert_allclose(test.losses, falls(rates), rtol=1e-5, atol=0)
    np.testing.assert_allclose(test.metrics["d_loss"], falls([0.01] * 30), rtol=1e-5, atol=0)
    assert set(test.metrics) == {"d_loss"}
    assert [float(o.learning_rate) for o in (model.g_optimizer, model.d_optimizer)] == (
        pytest.approx([0.5, 0.01], rel=1e-6)
    )
    assert [float(w) for w in model.get_weights()[:2]] == [0.0, 0.0]


def test_the_other_one_of_two_optimizers_can_be_named():
    test = keras_lr.lr_find(
        pair(), X, batch_size=4, optimizer="d_optimizer", monitor="d_loss", **RAMP
    )
    rates = np.geomspace(1e-3, 1.0, 30)
    np.testing.assert_allclose(test.losses, falls(rates), rtol=1e-5, atol=0)
    np.testing.assert_allclose(test.metrics["g_loss"], falls([0.5] * 30), rtol=1e-5, atol=0)


def test_each_repeat_starts_from_the_same_slots():
    model = pair(kind=lambda rate: keras.optimizers.SGD(rate, momentum=0.9))
    test = keras_lr.lr_find(
        model, X, batch_size=4, optimizer="g_optimizer", monitor="g_loss", repeats=2, **RAMP
    )
    np.testing.assert_array_equal(test.losses[0], test.losses[1])
    np.testing.assert_array_equal(test.metrics["d_loss"][0], test.metrics["d_loss"][1])


def test_fit_after_the_test_equals_fit_without_it():
    weights = []
    for looks in (False, True):
        model = pair(kind=keras.optimizers.Adam)
        if looks:
            keras_lr.lr_find(
                model, X, batch_size=4, optimizer="g_optimizer", monitor="g_loss", **RAMP
            )
        model.fit(X, batch_size=8, epochs=2, verbose=0)
        weights.append([*model.get_weights(), *values(model.g_optimizer.variables)])
    assert same(*weights)


def test_a_step_that_calls_the_optimizer_several_times_does_so_at_one_rate():
    test = keras_lr.lr_find(
        pair(times=5), X, batch_size=4, optimizer="g_optimizer", monitor="g_loss", **RAMP
    )
    np.testing.assert_allclose(
        test.losses, falls(np.geomspace(1e-3, 1.0, 30), times=5), rtol=1e-5, atol=0
    )


def test_a_step_that_updates_every_second_batch_uses_each_rate_once():
    test = keras_lr.lr_find(
        pair(every=2), X, batch_size=4, optimizer="g_optimizer", monitor="g_loss", **RAMP
    )
    rates = np.geomspace(1e-3, 1.0, 30)
    # The first batch makes an update. Then each rate has a batch without one and a batch with one.
    np.testing.assert_allclose(test.losses, falls(rates), rtol=1e-5, atol=0)
    assert test.training_steps >= 30


def test_several_optimizers_without_a_choice_are_refused():
    with pytest.raises(ValueError, match=r"several optimizers: optimizer, .*pass optimizer="):
        keras_lr.lr_find(pair(), X, batch_size=4, monitor="g_loss", **RAMP)


def test_an_optimizer_that_trains_nothing_is_refused_and_the_one_that_does_is_named():
    model = pair()
    before = model.get_weights()
    message = r"'optimizer' made no update .*optimizer='[gd]_optimizer'"
    with pytest.raises(ValueError, match=message):
        keras_lr.lr_find(model, X, batch_size=4, optimizer="optimizer", monitor="g_loss", **RAMP)
    assert same(before, model.get_weights())


def test_a_short_ramp_refuses_an_optimizer_that_trains_nothing_too():
    options = {**RAMP, "steps": 5}
    with pytest.raises(ValueError, match="made no update in 5 batches"):
        keras_lr.lr_find(
            pair(), X, batch_size=4, optimizer="optimizer", monitor="g_loss", **options
        )


def test_updates_that_a_loss_scale_skips_count_as_calls():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    # Gradients of this scale overflow in the first steps, which update nothing.
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**127)
    model.compile(scaled, "mse")
    options = {**RAMP, "steps": 5}
    test = keras_lr.lr_find(model, X, 100.0 * X[:, 0], batch_size=4, shuffle=False, **options)
    assert len(test.losses) == 5


def test_a_model_with_nothing_to_train_is_refused():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, trainable=False)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must have trainable weights; got 2 weights, all frozen"):
        keras_lr.lr_find(model, X, X[:, 0], batch_size=4, **RAMP)


def test_logs_without_the_loss_are_refused_with_the_names_that_are_there():
    with pytest.raises(ValueError, match=r"no scalar 'loss'; it logs d_loss, g_loss.*monitor="):
        keras_lr.lr_find(pair(), X, batch_size=4, optimizer="g_optimizer", **RAMP)


@pytest.mark.skipif(BACKEND == "jax", reason="fit needs model.optimizer there")
def test_a_model_compiled_without_an_optimizer_trains_with_its_own():
    model = pair()
    keras.Model.compile(model, optimizer=None)
    test = keras_lr.lr_find(
        model, X, batch_size=4, optimizer="g_optimizer", monitor="g_loss", **RAMP
    )
    np.testing.assert_allclose(test.losses, falls(np.geomspace(1e-3, 1, 30)), rtol=1e-5, atol=0)


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX has a state apart")
def test_an_optimizer_outside_the_state_of_fit_is_refused():
    model = pair()
    model.loose = [keras.optimizers.SGD(0.1)]
    with pytest.raises(ValueError, match=r"whose variables the model tracks; .*'loose\[0\]'"):
        keras_lr.lr_find(model, X, batch_size=4, optimizer="loose[0]", monitor="g_loss", **RAMP)


def test_the_callback_agrees_with_the_function():
    model = pair()
    finder = keras_lr.LRFinder(optimizer="g_optimizer", monitor="g_loss", **RAMP)
    model.fit(X, batch_size=4, callbacks=[finder], verbose=0)
    rates = np.geomspace(1e-3, 1.0, 30)
    np.testing.assert_allclose(finder.result.losses, falls(rates), rtol=1e-5, atol=0)
    np.testing.assert_allclose(
        finder.result.metrics["d_loss"], falls([0.01] * 30), rtol=1e-5, atol=0
    )
    assert [float(w) for w in model.get_weights()[:2]] == [0.0, 0.0]


@pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning")
def test_the_callback_looks_on_and_applies_to_the_named_optimizer():
    model = pair()
    finder = keras_lr.LRFinder(
        every=1, apply=True, optimizer="g_optimizer", monitor="g_loss", **RAMP
    )
    model.fit(X, batch_size=4, callbacks=[finder], verbose=0)
    applied = [rate for _, rate in finder.applied]
    assert len(finder.results) == 1
    np.testing.assert_allclose(
        float(model.g_optimizer.learning_rate), applied[-1], rtol=1e-5, atol=0
    )
    np.testing.assert_allclose(float(model.d_optimizer.learning_rate), 0.01, rtol=1e-5, atol=0)


def test_the_callback_refuses_what_the_function_refuses():
    with pytest.raises(ValueError, match="several optimizers"):
        pair().fit(X, callbacks=[keras_lr.LRFinder(monitor="g_loss")], verbose=0)


def test_the_command_line_names_the_optimizer_and_the_loss(tmp_path, monkeypatch):
    lines = "from test_finder_optimizers import X, pair\nmake = lambda: pair()\n"
    (tmp_path / "pairs.py").write_text(lines + "data = lambda: (X, X)\n")
    monkeypatch.chdir(tmp_path)
    saved = tmp_path / "test.json"
    names = ["--optimizer-name", "g_optimizer", "--monitor", "g_loss"]
    arguments = ["--data", "pairs:data", "--batch-size", 4, "--save", saved, "--steps", 30]
    arguments += ["--start-lr", 1e-3, "--end-lr", 1.0, "--stop-factor", "inf"]
    result = run("find", "pairs:make", *arguments, *names)
    assert "model.g_optimizer.learning_rate = " in result.stdout
    losses = keras_lr.RangeTest.load(saved).losses
    np.testing.assert_allclose(losses, falls(np.geomspace(1e-3, 1.0, 30)), rtol=1e-5, atol=0)
    message = refused("find", "pairs:make", *arguments)
    assert "several optimizers" in message and "--monitor" in message
    assert "--optimizer-name d_optimizer" in message


@pytest.mark.once
def test_monitor_must_be_a_name():
    with pytest.raises(TypeError, match="monitor must be the name of a log entry; got 3"):
        keras_lr.LRFinder(monitor=3)
