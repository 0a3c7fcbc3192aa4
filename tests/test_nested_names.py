"""A model inside another one goes by its name, whatever the paths of its variables are."""

import json
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers

import keras_lr
from keras_lr.optimizers import LayerwiseLR
from keras_lr_cli.multipliers import put_multipliers

pytestmark = pytest.mark.long_elsewhere(
    "groups come from the names of layers, which are those of each backend"
)

X, Y = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")


def functional_body(name="backbone", units=4):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(units, name=f"{name}_dense")(inputs), name=name)


def functional():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(1, name="head")(functional_body()(inputs)))


def sequential():
    body = keras.Sequential([layers.Dense(4, name="inner")], name="backbone")
    return keras.Sequential([keras.Input((4,)), body, layers.Dense(1, name="head")])


def nested_twice():
    inputs = keras.Input((4,))
    body = keras.Model(inputs, functional_body("deep")(inputs), name="backbone")
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(1, name="head")(body(inputs)))


def used_twice():
    body, inputs = functional_body(), keras.Input((4,))
    return keras.Model(inputs, layers.Dense(1, name="head")(body(body(inputs))))


def wrapped():
    inputs = keras.Input((4,))
    x = layers.TimeDistributed(functional_body())(layers.Reshape((1, 4))(inputs))
    return keras.Model(inputs, layers.Dense(1, name="head")(layers.Flatten()(x)))


@keras.saving.register_keras_serializable(package="tests_nested_names")
class WithAttribute(keras.Model):
    """The attribute is called backbone, the model in it is not."""

    def __init__(self, **options):
        super().__init__(**options)
        self.backbone = functional_body("trunk")
        self.head = layers.Dense(1, name="head")

    def build(self, shape):
        self.head.build((None, 4))

    def call(self, x):
        return self.head(self.backbone(x))


def attribute():
    model = WithAttribute()
    model(X)
    return model


MODELS = {
    each.__name__: each
    for each in (functional, sequential, nested_twice, used_twice, wrapped, attribute)
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
loaded = pytest.mark.parametrize("loaded", [False, True], ids=["made", "loaded"])


def given(make, loaded, folder):
    model = make()
    if loaded:
        model.save(folder / "plain.keras")
        model = keras.saving.load_model(folder / "plain.keras")
    return model


def head_of(model):
    return model.head if isinstance(model, WithAttribute) else model.get_layer("head")


def assert_backbone(model, optimizer, backbone=0.1, head=1.0):
    ends = {id(variable) for variable in head_of(model).trainable_variables}
    assert len(ends) == 2 < len(model.trainable_variables)
    for variable in model.trainable_variables:
        expected = head if id(variable) in ends else backbone
        assert optimizer._multiplier_of(variable).number == expected, variable.path


@every_model
@loaded
def test_layerwise_lr_finds_a_model_by_its_name_and_so_does_a_saved_one(make, loaded, tmp_path):
    model = given(make, loaded, tmp_path)
    model.compile(LayerwiseLR(keras.optimizers.SGD(0.1), {"backbone": 0.1}), "mse")
    model.save(tmp_path / "unfitted.keras")
    model.fit(X, Y, verbose=0)
    assert_backbone(model, model.optimizer)
    model.optimizer.multipliers = {"backbone": 0.5, "head": 3.0}
    assert_backbone(model, model.optimizer, 0.5, 3.0)
    model.save(tmp_path / "fitted.keras")
    for name, values in (("unfitted", (0.1, 1.0)), ("fitted", (0.5, 3.0))):
        again = keras.saving.load_model(tmp_path / f"{name}.keras")
        again.fit(X, Y, verbose=0)
        assert_backbone(again, again.optimizer, *values)


def test_the_weights_of_a_named_model_move_by_the_multiple():
    def moved(optimizer):
        keras.utils.set_random_seed(0)
        model = functional()
        model.compile(optimizer, "mse")
        before = model.get_weights()
        model.fit(X, Y, verbose=0)
        return [new - old for new, old in zip(model.get_weights(), before, strict=True)]

    ours = moved(LayerwiseLR(keras.optimizers.SGD(0.1), {"backbone": 0.25}))
    plain = moved(keras.optimizers.SGD(0.1))
    for got, expected, factor in zip(ours, plain, (0.25, 0.25, 1.0, 1.0), strict=True):
        np.testing.assert_allclose(got, factor * expected, rtol=1e-3, atol=1e-7)


@every_model
@loaded
def test_gradual_unfreeze_finds_a_model_by_its_name(make, loaded, tmp_path):
    model = given(make, loaded, tmp_path)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    body = [v for v in model.trainable_variables if all(v is not h for h in head_of(model).weights)]
    before = [keras.ops.convert_to_numpy(v).copy() for v in body]
    with pytest.warns(UserWarning, match="last group should be unfrozen"):
        model.fit(X, Y, verbose=0, callbacks=[keras_lr.GradualUnfreeze(["head", "backbone"])])
    for variable, old in zip(body, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old)


@every_model
@loaded
def test_presets_take_the_name_of_a_model(make, loaded, tmp_path):
    model = given(make, loaded, tmp_path)
    multipliers = keras_lr.layer_decay(model, 0.5, groups=["backbone", "head"])
    assert multipliers == {"backbone": 0.5, "head": 1.0}
    model.compile(LayerwiseLR(keras.optimizers.SGD(0.1), multipliers), "mse")
    model.fit(X, Y, verbose=0)
    assert_backbone(model, model.optimizer, 0.5)
    assert keras_lr.boost_head(model, "backbone", 2) == {"backbone": 2.0}


@every_model
@loaded
def test_the_command_line_takes_the_name_of_a_model(make, loaded, tmp_path):
    model = given(make, loaded, tmp_path)
    model.compile("sgd", "mse")
    put_multipliers(model, json.loads('{"backbone": 0.1}'), "f.json")
    model.fit(X, Y, verbose=0)
    assert_backbone(model, model.optimizer)


def test_an_optimizer_that_is_built_by_hand_finds_the_model_among_its_callers():
    class Trainer:
        def __init__(self):
            self.network = functional()
            self.optimizer = LayerwiseLR(keras.optimizers.SGD(), {"backbone": 0.1})

        def build(self):
            self.optimizer.build(self.network.trainable_variables)

    trainer = Trainer()
    trainer.build()
    assert_backbone(trainer.network, trainer.optimizer)


def test_the_model_of_a_loss_scale_and_of_an_optimizer_that_was_set_later():
    model = functional()
    inner = LayerwiseLR(keras.optimizers.SGD(), {"backbone": 0.1})
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    model.fit(X, Y, verbose=0)
    assert_backbone(model, inner)


def test_a_model_inside_two_others_cannot_have_the_multipliers_of_both():
    shared, inputs = functional_body("shared"), keras.Input((4,))
    first = keras.Model(inputs, shared(inputs), name="first")
    inputs = keras.Input((4,))
    second = keras.Model(inputs, layers.Dense(4)(shared(inputs)), name="second")
    inputs = keras.Input((4,))
    joined = layers.Average()([first(inputs), second(inputs)])
    model = keras.Model(inputs, layers.Dense(1, name="head")(joined))
    model.compile(LayerwiseLR(keras.optimizers.SGD(), {"first": 0.1, "second": 0.2}), "mse")
    with pytest.raises(ValueError, match=r"one multiplier; got two keys .*'first' and 'second'"):
        model.fit(X, Y, verbose=0)


def test_a_name_that_is_not_there_is_refused_with_the_names_that_are():
    model = nested_twice()
    model.compile(LayerwiseLR(keras.optimizers.SGD(), {"backbon": 0.1}), "mse")
    with pytest.raises(ValueError, match=r"'backbon'; .* are: backbone/deep/deep_dense, head\."):
        model.fit(X, Y, verbose=0)


def test_a_layer_of_that_name_comes_before_an_attribute_of_that_name():
    @keras.saving.register_keras_serializable(package="tests_nested_names")
    class Both(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = functional_body("trunk")
            self.end = layers.Dense(1, name="head")

        def call(self, x):
            return self.end(self.head(x))

    model = Both()
    model.compile(LayerwiseLR(keras.optimizers.SGD(), {"head": 0.1}), "mse")
    model.fit(X, Y, verbose=0)
    of = [model.optimizer._multiplier_of(v).number for v in model.end.trainable_variables]
    assert of == [0.1, 0.1]
    of = [model.optimizer._multiplier_of(v).number for v in model.head.trainable_variables]
    assert of == [1.0, 1.0]


def test_a_model_that_was_saved_with_the_older_config_loads():
    entry = {"key": "head", "multiplier": 0.1, "variables": [2, 3], "of": 4}
    config = LayerwiseLR(keras.optimizers.SGD(0.1)).get_config() | {"multipliers": [entry]}
    model = functional()
    made = LayerwiseLR(keras.optimizers.SGD())
    model.compile(type(made).from_config(config), "mse")
    model.fit(X, Y, verbose=0)
    assert_backbone(model, model.optimizer, 1.0, 0.1)


@pytest.mark.parametrize("task", ["classifier", "causal"])
def test_the_backbone_of_a_keras_hub_task_goes_by_its_name_and_by_its_attribute(task):
    hub = pytest.importorskip("keras_hub")
    sizes = {"vocabulary_size": 20, "num_layers": 2, "num_heads": 2, "hidden_dim": 8}
    sizes |= {"intermediate_dim": 8, "max_sequence_length": 8}
    if task == "classifier":
        model = hub.models.BertTextClassifier(hub.models.BertBackbone(**sizes), num_classes=2)
    else:
        model = hub.models.GPT2CausalLM(hub.models.GPT2Backbone(**sizes))
    own = {id(variable) for variable in model.backbone.trainable_variables}
    for key in ("backbone", model.backbone.name):
        optimizer = LayerwiseLR(keras.optimizers.SGD(), {key: 0.1})
        optimizer.build(model.trainable_variables)
        for variable in model.trainable_variables:
            expected = 0.1 if id(variable) in own else 1.0
            assert optimizer._multiplier_of(variable).number == expected


# Schedules as multipliers


@keras.saving.register_keras_serializable(package="tests_nested_names")
@dataclass
class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """A dataclass cannot be hashed, and an array in it cannot be compared."""

    every: float
    table: np.ndarray

    def __call__(self, step):
        return 0.5 ** keras.ops.floor(keras.ops.cast(step, "float32") / self.every)

    def get_config(self):
        return {"every": self.every, "table": self.table.tolist()}

    @classmethod
    def from_config(cls, config):
        return cls(config["every"], np.asarray(config["table"]))


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1, momentum=0.5),
    "Adam": lambda: keras.optimizers.Adam(0.1),
    "AdamW": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1),
    "Muon": lambda: keras.optimizers.Muon(0.1),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_schedule_that_cannot_be_hashed_is_a_multiplier(make, tmp_path):
    def trained(head, folder=None):
        keras.utils.set_random_seed(0)
        model = functional()
        numbers = {"backbone": np.float32(0.5), "head": head}
        model.compile(LayerwiseLR(make(), numbers), "mse")
        model.fit(X, Y, batch_size=2, epochs=2, verbose=0)
        if folder:
            model.save(folder / "model.keras")
            model = keras.saving.load_model(folder / "model.keras")
            model.fit(X, Y, batch_size=2, epochs=1, verbose=0)
        return model.get_weights()

    # Steps 0 and 1 at 1, 2 and 3 at 1/2, and so on, as Keras's own schedule says it.
    keras_says = keras.optimizers.schedules.ExponentialDecay(1.0, 2, 0.5, staircase=True)
    ours = trained(Halving(2.0, np.arange(3.0)), tmp_path)
    for got, expected in zip(ours, trained(keras_says, tmp_path), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_such_a_schedule_goes_with_gates_and_the_rate_of_the_optimizer():
    model = functional()
    schedule = Halving(2.0, np.arange(3.0))
    optimizer = keras.optimizers.SGD(Halving(4.0, np.arange(2.0)), momentum=0.5)
    model.compile(LayerwiseLR(optimizer, {"head": schedule}), "mse")
    thaw = keras_lr.GradualUnfreeze(["head", "backbone"])
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[thaw, keras_lr.LRLogger()])
    assert model.optimizer.multipliers["head"] is schedule
