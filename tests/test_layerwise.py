"""`LayerwiseLR`: each variable steps as it would under an optimizer of its own at its own rate."""

import copy
import inspect

import keras
import numpy as np
import pytest
from keras import optimizers
from models import classifier, data, same, sampled, values

import keras_lr
from keras_lr.optimizers import LayerwiseLR

MULTIPLIERS = {"a": 0.1, "b": 10.0, "c": 0.0}  # and 1 for d
EXPECTED = (0.1, 10.0, 0.0, 1.0)
RATE = 0.004


def make(name, **options):
    return lambda rate: getattr(optimizers, name)(learning_rate=rate, **options)


OPTIMIZERS = {
    **{
        name: make(name)
        for name in (
            "Adadelta", "Adagrad", "Adam", "Adamax", "Ftrl", "Lamb", "Muon", "Nadam", "RMSprop",
            "SGD", "ScheduleFreeAdamW",
        )
        if hasattr(optimizers, name)
    },
    "SGD with momentum": make("SGD", momentum=0.9),
    "SGD with Nesterov momentum": make("SGD", momentum=0.9, nesterov=True, weight_decay=0.1),
    "RMSprop with momentum": make("RMSprop", momentum=0.9, centered=True),
    "Adam, amsgrad": make("Adam", amsgrad=True),
    "Adam, clipped": make("Adam", clipnorm=0.5),
    "Adam, averaged": make("Adam", use_ema=True, ema_overwrite_frequency=3),
    "AdamW": make("AdamW", weight_decay=0.3),
    "Lion": make("Lion", weight_decay=0.3),
    "Adafactor": make("Adafactor"),
}  # fmt: skip
if "adam_weight_decay" in inspect.signature(optimizers.Muon).parameters:  # since Keras 3.13
    options = {"weight_decay": None, "adam_weight_decay": 0.3}
    OPTIMIZERS["Muon, with decay for Adam's weights"] = make("Muon", **options)


def test_every_optimizer_of_keras_has_a_row():
    names = {
        name
        for name, cls in vars(optimizers).items()
        if isinstance(cls, type)
        and issubclass(cls, optimizers.Optimizer)
        and cls is not optimizers.Optimizer
    }
    wrappers = {"LossScaleOptimizer", "MultiOptimizer"}
    assert {name for name in names if name.lower() != name} - wrappers == {
        type(each(RATE)).__name__ for each in OPTIMIZERS.values()
    }


def variables():
    rng = np.random.default_rng(1)
    shapes = {"a": (3, 4), "b": (4,), "c": (4, 2), "d": (2,)}
    return [
        keras.Variable(rng.normal(size=shape).astype("float32"), name=name)
        for name, shape in shapes.items()
    ]


def gradients(step):
    rng = np.random.default_rng(100 + step)
    return [keras.ops.convert_to_tensor(rng.normal(size=v.shape), "float32") for v in variables()]


def after(optimizer, weights, steps, which=slice(None)):
    for step in range(steps):
        optimizer.apply(gradients(step)[which], weights[which])
    return values(weights[which])


@pytest.mark.parametrize(
    "kind",
    sampled(OPTIMIZERS, "SGD", "Adam", "Muon", why="a multiplier acts alike on every update"),
)
def test_a_variable_steps_as_under_an_optimizer_of_its_own(kind):
    ours = after(LayerwiseLR(kind(RATE), MULTIPLIERS), variables(), 5)
    for index, multiplier in enumerate(EXPECTED):
        start = values(variables())[index]
        if multiplier == 0.0:
            assert ours[index].tobytes() == start.tobytes()
            continue
        only = slice(index, index + 1)
        (theirs,) = after(kind(RATE * multiplier), variables(), 5, only)
        np.testing.assert_allclose(ours[index] - start, theirs - start, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_changes_under_sgd_are_exactly_the_multiple_of_the_plain_ones(momentum):
    factors = {"a": 0.25, "b": 8.0, "c": 0.0}  # powers of two: nothing is rounded

    def change(optimizer):
        weights = variables()
        for weight in weights:
            weight.assign(keras.ops.zeros(weight.shape))
        return after(optimizer, weights, 3)

    ours = change(LayerwiseLR(optimizers.SGD(0.125, momentum), factors))
    plain = change(optimizers.SGD(0.125, momentum))
    for got, expected, factor in zip(ours, plain, (0.25, 8.0, 0.0, 1.0), strict=True):
        np.testing.assert_allclose(got, factor * expected, rtol=3e-7, atol=0)


def test_adafactors_own_bound_of_the_rate_comes_before_the_multiplier():
    changes = []
    for optimizer in (
        LayerwiseLR(optimizers.Adafactor(0.5), MULTIPLIERS),
        optimizers.Adafactor(0.5),
    ):
        changes.append(after(optimizer, variables(), 1))
    for index, multiplier in enumerate(EXPECTED):
        start = values(variables())[index]
        expected = multiplier * (changes[1][index] - start)
        np.testing.assert_allclose(changes[0][index] - start, expected, rtol=1e-4, atol=1e-6)


def test_weight_decay_is_scaled_with_the_rate():
    weights = variables()
    optimizer = LayerwiseLR(optimizers.SGD(0.1, weight_decay=0.5), MULTIPLIERS)
    zero = [keras.ops.zeros(weight.shape) for weight in weights]
    optimizer.apply(zero, weights)
    for weight, start, multiplier in zip(weights, variables(), EXPECTED, strict=True):
        shrunk = values([start])[0] * (1 - 0.1 * 0.5 * multiplier)
        np.testing.assert_allclose(values([weight])[0], shrunk, rtol=1e-6)


def test_variables_that_the_optimizer_excludes_from_decay_stay_excluded():
    inner = optimizers.AdamW(0.1, weight_decay=0.5)
    inner.exclude_from_weight_decay(var_names=["a", "b"])
    weights = variables()
    LayerwiseLR(inner, MULTIPLIERS).apply([keras.ops.zeros(w.shape) for w in weights], weights)
    moved = [not same(*pair) for pair in zip([values([w]) for w in weights], starts(), strict=True)]
    assert moved == [False, False, False, True]


def starts():
    return [values([variable]) for variable in variables()]


def test_global_clipping_sees_the_gradients_as_they_are():
    ours = after(LayerwiseLR(optimizers.SGD(1.0, global_clipnorm=0.1), {".*": 0.5}), variables(), 1)
    flat = np.concatenate([np.ravel(keras.ops.convert_to_numpy(g)) for g in gradients(0)])
    scale = 0.1 / np.linalg.norm(flat)
    for got, start, gradient in zip(ours, values(variables()), gradients(0), strict=True):
        expected = start - 0.5 * scale * keras.ops.convert_to_numpy(gradient)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "RMSprop", "Muon"])
def test_a_schedule_multiplies_by_its_value_at_each_update(kind):
    options = {"momentum": 0.9} if kind in ("SGD", "RMSprop") else {}
    factors = [2.0, 0.5, 0.0, 0.0, 1.0]
    schedule = optimizers.schedules.PiecewiseConstantDecay([0, 1, 3], [2.0, 0.5, 0.0, 1.0])

    # An optimizer that is told its rate by hand, before each step
    weights, own = variables()[:1], getattr(optimizers, kind)(0.01, **options)
    expected = []
    for step, factor in enumerate(factors):
        held = values(weights)
        own.build(weights)
        own.learning_rate = 0.01 * factor
        own.apply(gradients(step)[:1], weights)
        if not factor:
            weights[0].assign(held[0])
        expected.append(values(weights)[0])
    weights = variables()[:1]
    optimizer = LayerwiseLR(getattr(optimizers, kind)(0.01, **options), {"a": schedule})
    for step in range(len(factors)):
        optimizer.apply(gradients(step)[:1], weights)
        np.testing.assert_allclose(values(weights)[0], expected[step], rtol=1e-5, atol=1e-6)


def test_a_schedule_of_keras_counts_updates_under_accumulation():
    schedule = optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.0])
    inner = optimizers.SGD(0.1, gradient_accumulation_steps=2)
    weights, optimizer = variables()[:1], LayerwiseLR(inner, {"a": schedule})
    optimizer.build(weights)
    path = []
    for _ in range(4):
        optimizer.apply([keras.ops.ones((3, 4))], weights)
        path.append(float(values(weights)[0][0, 0] - values(variables())[0][0, 0]))
    np.testing.assert_allclose(path, [0.0, -0.1, -0.1, -0.1], rtol=1e-5)


def test_frozen_weights_stay_when_their_gradients_are_not_finite():
    for kind in OPTIMIZERS.values():
        weights = variables()[2:3]
        optimizer = LayerwiseLR(kind(RATE), {"c": 0.0})
        optimizer.apply([keras.ops.full((4, 2), float("nan"))], weights)
        assert same(values(weights), values(variables()[2:3]))


def test_the_slots_of_frozen_weights_go_on():
    weights = variables()
    frozen, plain = LayerwiseLR(optimizers.Adam(RATE), {".*": 0.0}), optimizers.Adam(RATE)
    after(frozen, weights, 3)
    after(plain, variables(), 3)
    for ours, theirs in zip(frozen.variables, plain.variables, strict=True):
        np.testing.assert_allclose(values([ours])[0], values([theirs])[0], rtol=1e-6)


# Keys


def network(**names):
    body = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, name="block1"), keras.layers.Dense(5, name="b")],
        name="backbone",
    )
    return keras.Sequential([keras.Input((6,)), body, keras.layers.Dense(3, name="head")])


def multipliers_of(model, multipliers):
    optimizer = LayerwiseLR(optimizers.SGD(), multipliers)
    optimizer.build(model.trainable_variables)
    paths = [v.path.split("/")[-2] for v in model.trainable_variables]
    return dict(zip(paths, (m.number for m in optimizer._multipliers), strict=True))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"head.*": 10.0, "backbone/block1.*": 0.1}, {"block1": 0.1, "b": 1.0, "head": 10.0}),
        ({"b": 0.5}, {"block1": 1.0, "b": 0.5, "head": 1.0}),
        ({"backbone": 0.5}, {"block1": 0.5, "b": 0.5, "head": 1.0}),
        ({"block1|head": 2}, {"block1": 2.0, "b": 1.0, "head": 2.0}),
        ({"(block1|head)/(kernel|bias)": 2.0}, {"block1": 2.0, "b": 1.0, "head": 2.0}),
        (None, {"block1": 1.0, "b": 1.0, "head": 1.0}),
    ],
)
def test_a_key_covers_whole_parts_of_a_path(keys, expected):
    assert multipliers_of(network(), keys) == expected


def test_layers_are_keys_and_a_nested_model_covers_all_that_is_in_it():
    model = network()
    body, head = model.layers
    assert multipliers_of(model, {body: 0.5, head: 3.0}) == {"block1": 0.5, "b": 0.5, "head": 3.0}
    assert multipliers_of(model, {body.layers[0]: 0.5})["b"] == 1.0


def test_a_shared_layer_has_one_multiplier():
    shared, x = keras.layers.Dense(4, name="shared"), keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(1, name="out")(shared(shared(x))))
    assert multipliers_of(model, {shared: 0.5}) == {"shared": 0.5, "out": 1.0}


def test_a_key_that_covers_nothing_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"'encodr'.*backbone/block1, backbone/b, .*head"):
        multipliers_of(network(), {"encodr": 1.0})
    with pytest.raises(ValueError, match="'stranger'.*backbone/block1"):
        multipliers_of(network(), {keras.layers.Dense(1, name="stranger"): 1.0})


def test_two_keys_for_one_variable_are_refused():
    with pytest.raises(ValueError, match=r"'backbone/b/kernel': 'backbone' and 'b'"):
        multipliers_of(network(), {"backbone": 0.1, "b": 1.0})


def test_bad_keys_are_known_when_training_begins():
    x, y = data()
    model = classifier(LayerwiseLR(optimizers.SGD(), {"nothing": 0.5}))
    with pytest.raises(ValueError, match="No trainable variable matches 'nothing'"):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    ("optimizer", "multipliers", "error", "message"),
    [
        ("adam", {}, TypeError, "needs a Keras optimizer; got 'adam'"),
        (optimizers.SGD(), {"a": -0.5}, ValueError, "at least 0; got -0.5"),
        (optimizers.SGD(), {"a": float("nan")}, ValueError, "finite"),
        (optimizers.SGD(), {"a": float("inf")}, ValueError, "finite"),
        (optimizers.SGD(), {"a": True}, TypeError, "The multiplier of 'a'"),
        (optimizers.SGD(), {"a": "much"}, TypeError, "The multiplier of 'a'"),
        (optimizers.SGD(), {"(": 1.0}, ValueError, "a regular expression; got '\\('"),
        (optimizers.SGD(), {3: 1.0}, TypeError, "A key of multipliers"),
        (optimizers.SGD(), [0.1], TypeError, "must be a dictionary"),
        (
            optimizers.LossScaleOptimizer(optimizers.SGD()),
            {},
            ValueError,
            "LossScaleOptimizer around LayerwiseLR",
        ),
        (keras_lr.optimizers.Prodigy(), {}, ValueError, "got Prodigy, which estimates one rate"),
        (LayerwiseLR(optimizers.SGD()), {}, ValueError, "cannot wrap another LayerwiseLR"),
    ],
)
def test_bad_arguments_are_refused(optimizer, multipliers, error, message):
    with pytest.raises(error, match=message):
        LayerwiseLR(optimizer, multipliers)


@pytest.mark.once
def test_keys_of_numpy_are_plain_text():
    optimizer = LayerwiseLR(optimizers.SGD(), {np.str_("a"): 0.5})
    assert [type(key) for key in optimizer.multipliers] == [str]


# Saving


def test_config_is_readable_and_makes_an_equal_optimizer():
    optimizer = LayerwiseLR(
        optimizers.AdamW(0.01), {"head.*": 10.0, "body": optimizers.schedules.CosineDecay(1.0, 5)}
    )
    config = optimizer.get_config()
    assert config["multipliers"][0] == {"key": "head.*", "multiplier": 10.0}
    assert config["optimizer"]["class_name"] == "AdamW"
    again = optimizers.deserialize(optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again.get_config() == config
    assert copy.deepcopy(optimizer).get_config() == config


def trained(model, fits=1):
    x, y = data()
    for _ in range(fits):
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    return values(model.variables) + values(model.optimizer.variables)


@pytest.mark.parametrize("by", ["path", "layer", "ambiguous path"])
def test_a_loaded_model_goes_on_as_the_saved_one_would(by, tmp_path):
    model = classifier(dropout=0.0)
    first, last = model.layers[0], model.layers[-1]
    keys = {first.name: 0.5, last.name: 2.0} if by == "path" else {first: 0.5, last: 2.0}
    if by == "ambiguous path":
        for variable in (*first.variables, *last.variables):
            variable._path = "the/same"
    model.compile(LayerwiseLR(optimizers.Adam(0.01), keys), "sparse_categorical_crossentropy")
    trained(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, LayerwiseLR)
    assert [m.number for m in loaded.optimizer._multipliers] == [0.5, 0.5, 1, 1, 2, 2]
    assert same(trained(loaded), trained(model))


@pytest.mark.parametrize("by", ["path", "layer"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_multipliers_are_saved_before_the_first_fit(by, wrapped, tmp_path):
    """A loaded model lacks outer names in its paths: `backbone/block1` has become `block1`."""
    model = network()
    body, head = model.layers
    keys = (
        {body.layers[0]: 0.5, head: 3.0} if by == "layer" else {"backbone/block1": 0.5, "head": 3}
    )
    optimizer = LayerwiseLR(optimizers.Adam(), keys)
    model.compile(optimizers.LossScaleOptimizer(optimizer) if wrapped else optimizer, "mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer
    leaf = loaded.inner_optimizer if wrapped else loaded
    assert [m.number for m in leaf._multipliers] == [0.5, 0.5, 1, 1, 3, 3]


def test_the_config_of_an_optimizer_without_a_model_has_the_keys():
    body, head = network().layers
    config = LayerwiseLR(optimizers.SGD(), {body: 0.5, head: 3.0}).get_config()
    keys = [entry["key"] for entry in config["multipliers"]]
    assert keys == ["backbone/block1|backbone/b", head.kernel.path.removesuffix("/kernel")]
    with pytest.raises(ValueError, match="No trainable variable matches 'backbone"):
        LayerwiseLR.from_config(config).build(classifier().trainable_variables)


def test_an_optimizer_that_was_trained_already_keeps_its_state():
    model, twin = classifier(dropout=0.0), classifier(dropout=0.0)
    trained(model), trained(twin)
    model.compile(LayerwiseLR(model.optimizer), "sparse_categorical_crossentropy")
    twin.compile(twin.optimizer, "sparse_categorical_crossentropy")
    ours, theirs = trained(model), trained(twin)
    for got, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    assert int(model.optimizer.iterations) == 12


def test_multipliers_can_be_set_for_the_next_fit():
    model = classifier(LayerwiseLR(optimizers.SGD(0.1)), dropout=0.0)
    trained(model)
    kernel = values([model.layers[0].kernel])
    with pytest.raises(ValueError, match="'nobody'"):
        model.optimizer.multipliers = {"nobody": 1.0}
    model.optimizer.multipliers = {model.layers[0]: 0.0}
    model.make_train_function(force=True)
    trained(model)
    assert same(values([model.layers[0].kernel]), kernel)


# In training


STACKS = {
    "one cycle": lambda: [keras_lr.OneCycle(0.1, cycle_momentum=False)],
    "warm-up and plateau": lambda: [
        keras_lr.WarmUp(4),
        keras_lr.ReduceLROnPlateau("loss", 0.5, 1, mode="max"),
    ],
    "keras schedule": lambda: [keras.callbacks.LearningRateScheduler(lambda e, r: 0.1 / (1 + e))],
    "keras plateau": lambda: [keras.callbacks.ReduceLROnPlateau("loss", 0.5, 1, mode="max")],
}


def linear(multipliers, rate=0.01, **options):
    """Two inputs with a weight each, and a gradient of their values whatever the weights are."""
    inputs = [keras.Input((1,)) for _ in range(2)]
    parts = [
        keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name=name)(each)
        for name, each in zip("ab", inputs, strict=True)
    ]
    model = keras.Model(inputs, keras.layers.Add()(parts))
    optimizer = optimizers.SGD(rate, **options)
    model.compile(
        LayerwiseLR(optimizer, multipliers) if multipliers else optimizer,
        loss=lambda y, p: keras.ops.mean(p),
    )
    return model


@pytest.mark.parametrize(
    "stack",
    sampled(STACKS, "one cycle", "warm-up and plateau", why="Keras's callbacks assign a variable"),
)
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}], ids=["", "groups"])
def test_ratios_hold_under_callbacks(stack, options):
    x = np.random.default_rng(0).uniform(1, 2, (24, 1)).astype("float32")
    changes = []
    for multipliers in ({"a": 0.5}, None):
        model = linear(multipliers, **options)
        for _ in range(2):
            model.fit(
                [x, x], x, batch_size=4, epochs=3, verbose=0, shuffle=False, callbacks=stack()
            )
        changes.append([float(w.item()) for w in model.get_weights()])
    (a, b), (plain, _) = changes
    np.testing.assert_allclose(b, plain, rtol=1e-5)
    np.testing.assert_allclose(a, 0.5 * plain, rtol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_training_is_the_same_compiled_and_not(jit):
    if jit and keras.backend.backend() == "torch":
        pytest.skip("torch.compile needs a compiler, which is not among the requirements")
    keys = {".*kernel": 0.3, ".*bias": 0.0}
    plain = classifier(LayerwiseLR(optimizers.Adam(0.01), keys), dropout=0.0, run_eagerly=True)
    ours = classifier(LayerwiseLR(optimizers.Adam(0.01), keys), dropout=0.0, jit_compile=jit)
    for got, expected in zip(trained(ours, 2), trained(plain, 2), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-5)


def test_half_precision_scales_the_loss_around_it():
    optimizer = optimizers.LossScaleOptimizer(
        LayerwiseLR(optimizers.SGD(0.1), {".*kernel": 0.0}), 8.0
    )
    model = classifier(optimizer, dropout=0.0)
    kernels = values([model.layers[0].kernel, model.layers[-1].kernel])
    bias = values([model.layers[-1].bias])
    trained(model)
    assert same(values([model.layers[0].kernel, model.layers[-1].kernel]), kernels)
    assert not same(values([model.layers[-1].bias]), bias)


def test_groups_of_a_multi_optimizer_have_multipliers():
    if not hasattr(optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    model = linear(None)
    groups = {"a.*": LayerwiseLR(optimizers.SGD(0.1), {"a": 0.5})}
    optimizer = optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.SGD(0.1), groups))
    model.compile(optimizer, loss=lambda y, p: keras.ops.mean(p))
    x = np.ones((8, 1), "float32")
    model.fit([x, x], x, batch_size=4, verbose=0)
    a, b = (float(w.item()) for w in model.get_weights())
    np.testing.assert_allclose([a, b], [-0.1, -0.2], rtol=1e-5)


def test_a_range_test_keeps_the_ratios_and_leaves_no_trace():
    x, y = data()
    model = classifier(LayerwiseLR(optimizers.SGD(0.1), {".*dense.*": 0.0}), dropout=0.0)
    before, built = values(model.variables), model.optimizer.built
    test = keras_lr.lr_find(model, x, y, steps=20, verbose=0)
    assert same(values(model.variables), before)
    assert model.optimizer.built == built
    assert len(test.losses) > 5
    trained(model)
    assert same(values([model.layers[0].kernel]), before[:1])


@pytest.mark.parametrize(
    "wrapper", ["LayerwiseLR", "ScheduleFree", "Hypergradient", "AdaptiveGains"]
)
@pytest.mark.parametrize("method", ["apply", "update_step"])
def test_a_method_put_into_the_optimizer_is_refused_since_it_calls_the_plain_step(wrapper, method):
    optimizer = optimizers.SGD(RATE)
    setattr(optimizer, method, getattr(optimizer, method))
    arguments = [{"a": 0.5}] if wrapper == "LayerwiseLR" else []
    with pytest.raises(ValueError, match=f"Define {method} in a subclass .* the {wrapper}"):
        getattr(keras_lr.optimizers, wrapper)(optimizer, *arguments)
