"""Multipliers by recipe: each variable gets what the formula says for the place of its layer."""

import doctest
import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_lr
from keras_lr import boost_head, discriminative, layer_decay
from keras_lr.optimizers import LayerwiseLR, model_parts, presets

pytestmark = pytest.mark.long_elsewhere(
    "groups come from the names of layers, which are those of each backend"
)


def dense(name, units=3, **options):
    return layers.Dense(units, name=name, **options)


def sequential():
    names = ("dense", "dense_1", "dense_10", "dense_2")
    inner = [dense(names[0]), layers.Dropout(0.1), dense(names[1])]
    inner.append(layers.BatchNormalization(name="norm"))
    return keras.Sequential([keras.Input((3,)), *inner, dense(names[2]), dense(names[3])])


def weights_of(*layers):
    return [variable for layer in layers for variable in layer.trainable_variables]


def order_of_sequential(model):
    """The normalisation belongs to the layer before it."""
    first, second, norm, third, last = (each for each in model.layers if each.weights)
    return [first, weights_of(second, norm), third, last]


def functional():
    """Made in another order than it computes, with a branch of one layer that joins late."""
    late, early, side = dense("late"), dense("early"), dense("side")
    inputs = keras.Input((3,))
    middle = layers.Concatenate()([early(inputs), inputs])
    joined = layers.Concatenate()([late(middle), side(inputs)])
    return keras.Model(inputs, dense("out")(joined))


def order_of_functional(model):
    early, late, side, out = map(model.get_layer, ("early", "late", "side", "out"))
    return [early, weights_of(late, side), out]


def nested():
    """The names inside are those outside, and one is inside a wrapper."""
    deep = keras.Sequential([keras.Input((3,)), dense("dense"), dense("dense_1")], name="deep")
    inputs = keras.Input((3,))
    body = keras.Model(inputs, dense("dense_1")(deep(dense("dense")(inputs))), name="body")
    frame = keras.Sequential([keras.Input((3,)), dense("dense_2")], name="frame")
    frames = keras.Input((4, 3))
    wrapped = layers.TimeDistributed(frame, name="each")(frames)
    joined = layers.Average()([body(inputs), layers.GlobalMaxPooling1D()(wrapped)])
    return keras.Model([inputs, frames], dense("dense", 2)(joined))


def order_of_nested(model):
    body, frame = model.get_layer("body"), model.get_layer("each").layer
    deep = body.get_layer("deep")
    inner = [body.get_layer("dense"), *deep.layers, body.get_layer("dense_1")]
    # The frame is as near to the output as the last layer of the body.
    return [*inner[:-1], weights_of(inner[-1], *frame.layers), model.get_layer("dense")]


def shared():
    """One layer serves two inputs, and one both the first and the last place but one."""
    left, right = keras.Input((3,)), keras.Input((3,))
    twice, again, between = dense("twice"), dense("again"), dense("between")
    joined = layers.Average()([twice(left), twice(right)])
    return keras.Model([left, right], dense("out")(again(between(again(joined)))))


def order_of_shared(model):
    return [model.get_layer(name) for name in ("twice", "again", "between", "out")]


@keras.saving.register_keras_serializable(package="tests_presets")
class Block(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(3, name="inner")

    def build(self, shape):
        self.scale = self.add_weight(shape=(3,), name="scale")
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x) * self.scale


@keras.saving.register_keras_serializable(package="tests_presets")
class Subclassed(keras.Model):
    """Blocks in a list, a weight of its own, and a name that is in others' paths too."""

    def __init__(self, **options):
        super().__init__(**options)
        self.blocks = [Block(name="block"), Block(name="block_1")]
        self.norm = layers.BatchNormalization(name="scale")
        self.head = layers.Dense(2, name="inner")

    def build(self, shape):
        self.token = self.add_weight(shape=(3,), name="token")
        for each in (*self.blocks, self.norm, self.head):
            each.build((None, 3))

    def call(self, x):
        x = x + self.token
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def subclassed():
    model = Subclassed(name="token")
    model.build((None, 3))
    return model


def order_of_subclassed(model):
    first, last = model.blocks  # block, block_1: what is before them is the stem
    return [[model.token], first, weights_of(last, model.norm), model.head]


def special():
    # torch has no dots in the names of modules; without one, this is another expression.
    dotted = "conv_0" if keras.backend.backend() == "torch" else "conv.0"
    names = ("conv[0]", dotted, "convx0", "a+b (c)", "x|y", "^dense$", "dense")
    return keras.Sequential([keras.Input((3,)), *map(dense, names)])


def frozen():
    model = sequential()
    model.get_layer("dense_1").trainable = False
    return model


def order_of_frozen(model):
    first, norm, third, last = (each for each in model.layers if each.trainable_variables)
    return [weights_of(first, norm), third, last]


MODELS = {
    "sequential": (sequential, order_of_sequential),
    "functional": (functional, order_of_functional),
    "nested": (nested, order_of_nested),
    "shared": (shared, order_of_shared),
    "subclassed": (subclassed, order_of_subclassed),
    "special": (special, lambda model: model.layers),
    "frozen": (frozen, order_of_frozen),
}
loaded = pytest.mark.parametrize("loaded", [False, True], ids=["made", "loaded"])
models = pytest.mark.parametrize("name", MODELS)


def given(name, loaded, folder):
    """The model, and the variables of each of its layers from input to output."""
    make, order = MODELS[name]
    model = make()
    if loaded:
        model.save(folder / "model.keras")
        model = keras.saving.load_model(folder / "model.keras")
        if name == "frozen":
            assert not model.get_layer("dense_1").trainable
    return model, [getattr(each, "trainable_variables", each) for each in order(model)]


def assert_multipliers(model, multipliers, expected):
    """`LayerwiseLR` gives each variable what `expected` says, by layer; and all are in it."""
    wanted = {id(variable): value for variables, value in expected for variable in variables}
    assert len(wanted) == len(model.trainable_variables)
    optimizer = LayerwiseLR(keras.optimizers.SGD(1.0), multipliers)
    optimizer.build(model.trainable_variables)
    for variable in model.trainable_variables:
        found = optimizer._multiplier_of(variable)
        assert not found.curves
        assert found.number == pytest.approx(wanted[id(variable)], rel=1e-12), variable.path


@models
@loaded
def test_layer_decay_gives_each_layer_a_power_of_its_distance_from_the_last(name, loaded, tmp_path):
    model, order = given(name, loaded, tmp_path)
    distances = range(len(order) - 1, -1, -1)
    expected = [(each, 0.7**distance) for each, distance in zip(order, distances, strict=True)]
    assert_multipliers(model, layer_decay(model, 0.7), expected)


@models
@loaded
def test_discriminative_rates_are_geometric_between_low_and_high(name, loaded, tmp_path):
    model, order = given(name, loaded, tmp_path)
    rates = np.geomspace(1e-5, 1e-3, len(order))
    expected = list(zip(order, rates / 1e-3, strict=True))
    assert_multipliers(model, discriminative(model, 1e-5, 1e-3), expected)


@models
@loaded
def test_boost_head_is_for_the_last_layer_alone(name, loaded, tmp_path):
    model, order = given(name, loaded, tmp_path)
    multipliers = boost_head(model)
    assert len(multipliers) == 1
    assert_multipliers(model, multipliers, [(order[-1], 10.0), (sum(order[:-1], []), 1.0)])


@models
@loaded
def test_boost_head_finds_any_layer_object(name, loaded, tmp_path):
    model, order = given(name, loaded, tmp_path)
    for part in model_parts.parts_of(model):
        if not part.trained or isinstance(part.layer, keras.Model):
            continue
        rest = [v for v in model.trainable_variables if all(v is not each for each in part.trained)]
        assert_multipliers(
            model, boost_head(model, part.layer, 3), [(part.trained, 3.0), (rest, 1.0)]
        )


def test_keys_are_names_where_these_will_do_and_paths_where_not():
    assert list(layer_decay(sequential(), 0.5)) == [
        "dense",
        "dense_1",
        "norm",
        "dense_10",
        "dense_2",
    ]
    model = nested()
    inner, outer = model.get_layer("body").get_layer("dense"), model.get_layer("dense")
    assert list(layer_decay(model, 0.5)) == [
        inner, "deep/dense", "deep/dense_1", "dense_2", "^dense_1", outer,
    ]  # fmt: skip
    keys = list(layer_decay(subclassed(), 0.5))
    assert keys == ["token/token", "block", "block_1", "token/scale", "token/inner"]
    assert list(layer_decay(special(), 0.5))[0] == r"conv\[0\]"


def test_layers_of_one_path_have_themselves_as_keys(tmp_path):
    model, order = given("nested", True, tmp_path)
    paths = [{variable.path for variable in each} for each in order]
    assert paths[0] == paths[1] == paths[-1]  # loading took the names of the outer models away
    keys = [key for key in layer_decay(model, 0.5) if not isinstance(key, str)]
    inner = model.get_layer("body")
    assert model.get_layer("dense") in keys and inner.get_layer("dense") in keys


def test_a_made_optimizer_trains_by_them():
    model = sequential()
    multipliers = layer_decay(model, 0.5)
    model.compile(LayerwiseLR(keras.optimizers.SGD(0.1), multipliers), "mse")
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    model.fit(x, x, verbose=0)
    assert model.optimizer.multipliers == multipliers


# Groups


def test_groups_count_instead_of_layers():
    model = sequential()
    groups = [["dense", model.get_layer("dense_1")], model.get_layer("norm"), "dense_(10|2)"]
    by_name = {layer.name: layer.trainable_variables for layer in model.layers}
    ends = by_name["dense_10"] + by_name["dense_2"]
    middle, first = by_name["norm"], by_name["dense"] + by_name["dense_1"]
    decayed = layer_decay(model, 0.5, groups=groups)
    assert_multipliers(model, decayed, [(first, 0.25), (middle, 0.5), (ends, 1.0)])
    assert "dense_(10|2)" in decayed
    spread = discriminative(model, 1e-4, 1e-2, groups=groups)
    assert_multipliers(model, spread, [(first, 0.01), (middle, 0.1), (ends, 1.0)])


def test_a_group_can_be_a_nested_model():
    model = nested()
    groups = [model.get_layer("body"), [model.get_layer("each"), model.get_layer("dense")]]
    body = model.get_layer("body").trainable_variables
    rest = [v for v in model.trainable_variables if all(v is not each for each in body)]
    assert_multipliers(model, layer_decay(model, 0.1, groups), [(body, 0.1), (rest, 1.0)])


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        ([["dense"], ["dense_1"]], ValueError, "every trainable layer; got none for"),
        ([["dense.*"], ["dense_1", "norm"]], ValueError, "one multiplier; got two keys for"),
        (["dense", "dense"], ValueError, "one multiplier; got two for 'dense'"),
        (["dense", "nonsense"], ValueError, "No trainable variable matches 'nonsense'"),
        (["dense", "("], ValueError, "must be a regular expression; got '('"),
        ([], ValueError, "at least one group of layers; got []"),
        ([[], "dense"], ValueError, "at least one layer; got []"),
        ("dense", TypeError, "a list of groups of layers; got 'dense'"),
        (3, TypeError, "a list of groups of layers; got 3"),
        ([3], TypeError, "a list of these; got 3"),
        ([["dense", 3]], TypeError, "got 3 in it"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, error, words):
    with pytest.raises(error, match=re.escape(words)):
        layer_decay(sequential(), 0.5, groups)


# boost_head's layers


def test_boost_head_takes_names_expressions_layers_and_lists():
    model = sequential()
    last = [model.get_layer(name).trainable_variables for name in ("dense_10", "dense_2")]
    rest = model.trainable_variables[: -len(sum(last, []))]
    for chosen in (
        "dense_(10|2)",
        ["dense_10", model.get_layer("dense_2")],
        r"dense_\d{2}|dense_2",
    ):
        multipliers = boost_head(model, chosen, factor=4)
        assert_multipliers(model, multipliers, [(sum(last, []), 4.0), (rest, 1.0)])
    assert boost_head(model, ["dense_10", "dense_2"], 4) == {"dense_10": 4.0, "dense_2": 4.0}


@pytest.mark.parametrize(
    ("chosen", "error", "words"),
    [
        ("nonsense", ValueError, "No trainable variable matches 'nonsense'; the trainable layers"),
        ([], ValueError, "layers must contain at least one layer; got []"),
        (3, TypeError, "layers must be a layer"),
        (["dense", "dense.*"], ValueError, "got two keys for"),
        (lambda: dense("stranger"), TypeError, "layers must be a layer"),
        (dense("stranger"), ValueError, "No trainable variable of the layer matches 'stranger'"),
    ],
)
def test_layers_that_cannot_be_boosted_are_refused(chosen, error, words):
    with pytest.raises(error, match=re.escape(words)):
        boost_head(sequential(), chosen)


@pytest.mark.once
def test_names_of_numpy_are_plain_text():
    names = np.array(["dense_10", "dense_2"])
    assert repr(boost_head(sequential(), list(names))) == "{'dense_10': 10.0, 'dense_2': 10.0}"


# Models and numbers


PRESETS = {
    "layer_decay": lambda model: layer_decay(model, 0.5),
    "discriminative": lambda model: discriminative(model, 0.1, 0.2),
    "boost_head": boost_head,
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_model_without_weights_says_how_to_get_them(name):
    unbuilt = keras.Sequential([layers.Dense(2)], name="unbuilt")
    with pytest.raises(ValueError, match=f"^{name} needs .* 'unbuilt', which is not built. Add"):
        PRESETS[name](unbuilt)
    unbuilt.build((None, 3))
    assert list(PRESETS[name](unbuilt).values()) == [10.0 if name == "boost_head" else 1.0]


@pytest.mark.parametrize("name", PRESETS)
def test_a_model_that_does_not_train_is_refused(name):
    model = sequential()
    model.trainable = False
    with pytest.raises(ValueError, match=f"^{name} needs .* trainable weights; .* trainable=True"):
        PRESETS[name](model)
    with pytest.raises(TypeError, match="must be a Keras model; got 'model'"):
        PRESETS[name]("model")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: layer_decay(m, 0.0), ValueError, "decay must be in (0, 1]; got 0.0"),
        (lambda m: layer_decay(m, 1.5), ValueError, "in (0, 1]; got 1.5."),
        (lambda m: layer_decay(m, float("nan")), ValueError, "got nan."),
        (lambda m: layer_decay(m, "0.5"), TypeError, "got '0.5'."),
        (lambda m: layer_decay(m, 1e-13), ValueError, "got 1e-39 for the first of 4 groups. Pass"),
        (lambda m: discriminative(m, 0.0, 1.0), ValueError, "low must be above 0; got 0.0"),
        (lambda m: discriminative(m, 1e-3, 1e-5), ValueError, "low must not be above high; got"),
        (lambda m: discriminative(m, 1e-3, float("inf")), ValueError, "high must be a finite"),
        (lambda m: boost_head(m, None, 0), ValueError, "factor must be above 0; got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call(sequential())


def test_weights_of_two_layers_count_once():
    """Tied weights: the second layer to use them has them, and only the first counts."""

    @keras.saving.register_keras_serializable(package="tests_presets")
    class Tied(layers.Layer):
        def __init__(self, other):
            super().__init__(name="tied")
            self.other = other
            self.bias = self.add_weight(shape=(3,), name="bias")

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.other.kernel)) + self.bias

    first = dense("first")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Tied(first)(dense("middle")(first(inputs))))
    tied = model.get_layer("tied")
    expected = [
        (first.trainable_variables, 0.25),
        (model.get_layer("middle").trainable_variables, 0.5),
        ([tied.bias], 1.0),
    ]
    assert_multipliers(model, layer_decay(model, 0.5), expected)


def test_a_layer_inside_and_outside_a_nested_model_counts_where_it_comes_first():
    both = dense("both")
    start = keras.Input((3,))
    body = keras.Model(start, dense("inner")(both(start)), name="body")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, dense("out")(both(body(inputs))))
    names = [part.layer.name for part in model_parts.parts_of(model) if part.weights]
    assert names == ["both", "inner", "out"]
    assert len({id(part.layer) for part in model_parts.parts_of(model)}) == 5  # and two inputs
    assert len(model_parts.parts_of(model)) == 5
    assert layer_decay(model, 0.5) == {"both": 0.25, "inner": 0.5, "out": 1.0}


def test_parts_are_all_layers_with_their_places():
    parts = model_parts.parts_of(nested())
    paths = ["/".join(part.path) for part in parts if part.weights]
    assert paths == [
        "each/frame/dense_2", "body/dense", "body/deep/dense", "body/deep/dense_1",
        "body/dense_1", "dense",
    ]  # fmt: skip
    deep = next(part for part in parts if part.path[-2:] == ("deep", "dense"))
    assert [each.name for each in deep.around] == ["body", "deep"]


@pytest.mark.once
def test_examples_in_the_documentation_run():
    failed, count = doctest.testmod(presets, extraglobs={"keras_lr": keras_lr})
    assert (failed, count >= 10) == (0, True)
