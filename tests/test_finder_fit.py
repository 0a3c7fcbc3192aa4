"""Range tests of models whose class overrides `fit`: they train on what it makes of the data."""

import types

import keras
import numpy as np
import pytest
from keras import ops
from models import same, values

import keras_lr
from keras_lr._keras.object_graph import reachable

X = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
Y = (X @ np.array([[1.0], [-2.0], [0.5], [0.0]])).astype("float32")
RAMP = {"start_lr": 1e-4, "end_lr": 1e-1, "steps": 8, "stop_factor": None, "verbose": 0}
FIT = {"batch_size": 16, "shuffle": False}


class Scaled(keras.Model):
    """A linear model that divides raw integers by 100 in `fit`, and nowhere else."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_initializer="ones")

    def call(self, x):
        return self.dense(x)

    def fit(self, x, y=None, validation_data=None, **options):
        if validation_data is not None:
            validation_data = (self.scaled(validation_data[0]), validation_data[1])
        return super().fit(self.scaled(x), y, validation_data=validation_data, **options)

    def scaled(self, x):
        return x / 100.0


class Pipeline(Scaled):
    """As KerasHub's tasks do it: `fit` leaves the validation data to `evaluate`."""

    def fit(self, x, y=None, **options):
        return keras.Model.fit(self, self.scaled(x), y, **options)

    def evaluate(self, x, y=None, _use_cached_eval_dataset=False, **options):
        return super().evaluate(self.scaled(x), y, **options)


class Adapting(Scaled):
    """Learns the scale from the data before it trains."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=(), initializer="ones", trainable=False, name="scale")

    def call(self, x):
        return self.dense(x / self.scale)

    def fit(self, x, y=None, **options):
        self.scale.assign(100.0)
        return keras.Model.fit(self, x, y, **options)


class ByHand(Scaled):
    def fit(self, x, y=None, batch_size=16, **options):
        for start in range(0, len(x), batch_size):
            self.train_on_batch(x[start : start + batch_size], y[start : start + batch_size])


class OwnLoop(Scaled):
    def fit(self, x, y=None, **options):
        gradients = [ops.ones(v.shape) for v in self.trainable_variables]
        self.optimizer.apply(gradients, self.trainable_variables)


class Idle(Scaled):
    def fit(self, x, y=None, **options):
        return None


def compiled(kind):
    keras.utils.set_random_seed(0)
    model = kind()
    model(X[:1])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def plain():
    """What the models above should train like, on data that is scaled already."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


@pytest.mark.parametrize("kind", [Scaled, Pipeline, Adapting])
def test_the_test_trains_on_what_fit_passes_on(kind):
    expected = keras_lr.lr_find(plain(), X, Y, **FIT, **RAMP)
    model = compiled(kind)
    before = values(model.variables)
    test = keras_lr.lr_find(model, X * 100.0, Y, **FIT, **RAMP)
    np.testing.assert_allclose(test.losses, expected.losses, rtol=1e-4)
    assert same(before, values(model.variables))
    model.fit(X * 100.0, Y, verbose=0)  # nothing of ours is left in the way


@pytest.mark.parametrize("kind", [Scaled, Pipeline])
def test_validation_data_are_what_fit_judges_by(kind):
    options = {**FIT, **RAMP, "validation_every": 4}
    expected = keras_lr.lr_find(plain(), X, Y, validation_data=(X, Y), **options)
    raw = X * 100.0
    test = keras_lr.lr_find(compiled(kind), raw, Y, validation_data=(raw, Y), **options)
    np.testing.assert_allclose(test.validation["loss"], expected.validation["loss"], rtol=1e-4)


@pytest.mark.parametrize("kind", [Scaled, Pipeline])
@pytest.mark.parametrize("every", [None, 1])
def test_the_callback_agrees_with_the_function(kind, every):
    raw = X * 100.0
    options = {**RAMP, "validation_every": 4}
    expected = keras_lr.lr_find(plain(), X, Y, validation_data=(X, Y), **FIT, **options)
    data = {"every": every, "data": (raw, Y)} if every else {}
    finder = keras_lr.LRFinder(validation_data=(raw, Y), **data, **options)
    compiled(kind).fit(raw, Y, callbacks=[finder], verbose=0, **FIT)
    np.testing.assert_allclose(finder.result.losses[:6], expected.losses[:6], rtol=1e-4)
    np.testing.assert_allclose(
        finder.result.validation["loss"][0], expected.validation["loss"][0], rtol=1e-4
    )


@pytest.mark.parametrize("kind", [ByHand, OwnLoop, Idle])
def test_a_fit_that_trains_in_its_own_way_is_refused_and_has_trained_nothing(kind):
    model = compiled(kind)
    before = values([*model.variables, *model.optimizer.variables])
    with pytest.raises(ValueError, match=f"The fit of {kind.__name__} must call that of keras"):
        keras_lr.lr_find(model, X, Y, **FIT, **RAMP)
    assert same(before, values([*model.variables, *model.optimizer.variables]))
    assert "apply" not in vars(model.optimizer)


def test_callbacks_that_fit_adds_are_named_in_a_warning():
    class Adds(Scaled):
        def fit(self, x, y=None, **options):
            return keras.Model.fit(
                self, self.scaled(x), y, callbacks=[keras.callbacks.TerminateOnNaN()], **options
            )

    with pytest.warns(UserWarning, match="fit of Adds adds callbacks"):
        keras_lr.lr_find(compiled(Adds), X, Y, **FIT, **RAMP)


@pytest.mark.parametrize("kind", [Scaled, Pipeline])
def test_search_trains_on_what_fit_passes_on(kind):
    raw = X * 100.0
    options = {"low": 1e-3, "high": 1e-1, "epochs": 1, "points": 3, "fine_rounds": 0}
    options |= {"final_seeds": 1, "batch_size": 16, "verbose": 0}
    found = keras_lr.search(compiled(kind), raw, Y, validation_data=(raw, Y), **options)
    expected = keras_lr.search(plain(), X, Y, validation_data=(X, Y), **options)
    np.testing.assert_allclose(found.answer.mean, expected.answer.mean, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:`build.*` was called on layer")  # KerasHub's own
@pytest.mark.long("a task of KerasHub takes long to trace; the field models have one")
def test_a_task_of_keras_hub_is_tested_on_preprocessed_data():
    hub = pytest.importorskip("keras_hub")
    pytest.importorskip("tensorflow")

    def task():
        keras.utils.set_random_seed(0)
        backbone = hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[3],
            stackwise_num_filters=[64],
            stackwise_num_blocks=[1],
            stackwise_num_strides=[1],
            block_type="basic_block",
            image_shape=(8, 8, 3),
        )
        scaling = keras.layers.Rescaling(1 / 255.0)
        model = hub.models.ImageClassifier(backbone, 2, preprocessor=scaling)
        model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(True))
        return model

    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype("float32")
    labels = (np.arange(32) % 2).astype("int32")
    test = keras_lr.lr_find(task(), images, labels, **{**RAMP, "seed": 0, "batch_size": 8})
    by_hand = task()
    by_hand.preprocessor = None
    expected = keras_lr.lr_find(
        by_hand, images / 255.0, labels, **{**RAMP, "seed": 0, "batch_size": 8, "shuffle": False}
    )
    np.testing.assert_allclose(test.losses, expected.losses, rtol=1e-3)


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:`build.*` was called on layer")  # KerasHub's own
def test_a_task_of_keras_hub_is_walked_without_the_functions_of_its_package():
    """Hundreds of functions, whose code would be read for the names that they use."""
    models = pytest.importorskip("keras_hub").models
    backbone = models.ViTBackbone(
        image_shape=(8, 8, 3), patch_size=4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8
    )
    task = models.ViTImageClassifier(backbone, num_classes=2)
    task.own_rule = lambda: None
    found = [part for _, part in reachable(task)]
    assert any(part is backbone for part in found)
    functions = [part for part in found if isinstance(part, types.FunctionType)]
    assert task.own_rule in functions
    of_hub = {each.__name__ for each in functions if each.__module__.startswith("keras_hub")}
    assert of_hub <= {"build", "call"}  # which Keras wraps, and each layer holds


def test_a_train_function_of_the_models_own_is_refused():
    class Own(keras.Sequential):
        def make_train_function(self, force=False):
            super().make_train_function(force)

    model = Own([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((32, 2), "float32")
    with pytest.raises(ValueError, match="Own overrides make_train_function"):
        keras_lr.lr_find(model, x, x[:, 0], verbose=0)
    with pytest.raises(ValueError, match="Own overrides make_train_function"):
        model.fit(x, x[:, 0], verbose=0, callbacks=[keras_lr.LRFinder()])


def test_a_fit_after_an_interrupted_finder_is_that_without_it():
    class Fails(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    def weights(interrupted):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5)])
        model.add(keras.layers.Dense(1))
        model.compile("adam", "mse")
        model.fit(X, Y, batch_size=16, verbose=0)  # shuffled
        if interrupted:
            function = model.train_function
            with pytest.raises(KeyboardInterrupt):
                model.fit(X, Y, batch_size=16, callbacks=[keras_lr.LRFinder(steps=9), Fails()])
            assert model.train_function is function
        model.fit(X, Y, batch_size=16, verbose=0)
        return values([*model.variables, *model.optimizer.variables])

    assert same(weights(True), weights(False))


def test_methods_that_a_program_put_into_objects_stay_after_an_interrupted_fit():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    originals = model.get_metrics_result, model.optimizer.finalize_variable_values

    def metrics():
        return originals[0]()

    def finalize(variables):
        originals[1](variables)

    def kept():
        return vars(model)["get_metrics_result"], vars(model.optimizer)["finalize_variable_values"]

    model.get_metrics_result, model.optimizer.finalize_variable_values = metrics, finalize

    class Fails(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    finder = keras_lr.LRFinder(steps=3, budget=3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, callbacks=[finder, Fails()], **FIT)
    assert kept() == (metrics, finalize)
    model.fit(X, Y, callbacks=[finder], verbose=0, **FIT)
    assert len(finder.result.losses) == 3
    assert kept() == (metrics, finalize)
