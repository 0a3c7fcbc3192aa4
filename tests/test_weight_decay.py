"""Weight decay that the rate determines; the expected weights are by NumPy."""

import keras
import numpy as np
import pytest
from models import multi_optimizer
from test_schedule_hyperparameter import weight
from test_steering import fit, network, several_steps

import keras_lr
from keras_lr.schedules import LinearRampSchedule
from keras_lr.schedules.base import evaluate

X = np.random.default_rng(0).uniform(-2, 2, 12)  # the gradients of `weight`
RATE, DECAY = 0.1, 0.5
falling = LinearRampSchedule(0.4, 0.01, 12)
RATES = np.linspace(0.4, 0.01, 12)
one_cycle = lambda **options: keras_lr.OneCycle(0.4, cycle_momentum=False, **options)  # noqa: E731


def sgd(rates, products=RATE * DECAY):
    """SGD; `products` are rate x decay, the share of the weight that an update takes off."""
    w = 1.0
    for g, rate, product in zip(X, *np.broadcast_arrays(rates, products), strict=True):
        w -= w * product * (rate > 0)
        w -= rate * g
    return w


def adamw(rates, product=RATE * DECAY):
    w, m, v = 1.0, 0.0, 0.0
    for t, (g, rate) in enumerate(zip(X, rates, strict=True), 1):
        w -= w * product
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w -= rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
    return w


POLICIES = {
    "ScheduleLR": (
        lambda **options: keras_lr.ScheduleLR(falling, **options),
        lambda: RATES,
    ),
    "OneCycle": (
        one_cycle,
        lambda: evaluate(keras_lr.schedules.OneCycleSchedule(0.4, 12), np.arange(12)),
    ),
    "CyclicLR": (
        lambda **options: keras_lr.CyclicLR(0.0, 0.4, 3, **options),
        lambda: 0.4 * np.array([0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3] * 2),
    ),
    "WarmUpStableDecay": (
        lambda **options: keras_lr.WarmUpStableDecay(0.4, 0, 4, decay="linear", **options),
        lambda: 0.4 * np.minimum(np.arange(12, 0, -1) / 4, 1),
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_rate_times_decay_is_constant(name):
    make, rates = POLICIES[name]
    optimizer = keras.optimizers.SGD(RATE, weight_decay=DECAY)
    found = weight(optimizer, make(couple_weight_decay=True))
    np.testing.assert_allclose(found, sgd(rates()), rtol=2e-5)
    assert optimizer.weight_decay == DECAY
    found = weight(keras.optimizers.SGD(RATE, weight_decay=DECAY), make())
    np.testing.assert_allclose(found, sgd(rates(), rates() * DECAY), rtol=2e-5)


def test_adamw_with_a_constant_product():
    found = weight(
        keras.optimizers.AdamW(RATE, weight_decay=DECAY),
        keras_lr.ScheduleLR(falling, couple_weight_decay=True),
    )
    np.testing.assert_allclose(found, adamw(RATES), rtol=2e-5)


@several_steps
def test_several_steps_an_execution_have_each_their_own_decay():
    found = weight(
        keras.optimizers.SGD(RATE, weight_decay=DECAY),
        keras_lr.ScheduleLR(falling, couple_weight_decay=True),
        steps_per_execution=4,
    )
    np.testing.assert_allclose(found, sgd(RATES), rtol=2e-5)


def test_decay_balances_a_warm_up_and_a_plateau():
    """The rate of the last six updates is halved, and the first three warm up."""
    plateau = keras_lr.ReduceLROnPlateau("loss", 0.5, 1, min_delta=9.0)
    found = weight(
        keras.optimizers.SGD(RATE, weight_decay=DECAY),
        keras_lr.WarmUp(steps=3),
        keras_lr.ScheduleLR(falling, couple_weight_decay=True),
        Twice(plateau),
        plateau,
    )
    rates = RATES * np.minimum(np.arange(12) / 3, 1) * np.where(np.arange(12) < 6, 1, 0.5)
    np.testing.assert_allclose(found, sgd(rates), rtol=2e-5)


class Twice(keras.callbacks.Callback):
    """Shows a plateau callback two equal values after six batches."""

    def __init__(self, plateau):
        super().__init__()
        self.plateau = plateau

    def on_train_batch_end(self, batch, logs=None):
        if batch == 5:
            self.plateau._judges = self.plateau._known = True
            for _ in range(2):
                self.plateau._observe(1.0)


def test_each_group_keeps_its_own_product():
    inner = keras.optimizers
    first, second = inner.SGD(0.1, weight_decay=0.5), inner.SGD(0.01, weight_decay=0.3)
    model = network(multi_optimizer(first, {".*bias": second}))
    model.set_weights([np.ones_like(each) for each in model.get_weights()])
    x = np.zeros((64, 4), "float32")
    model.fit(  # no gradients: the weights only decay
        x, x[:, :1], batch_size=16, verbose=0, sample_weight=np.zeros(64),
        callbacks=[one_cycle(couple_weight_decay=True)],
    )  # fmt: skip
    for variable in model.trainable_variables:
        kept = 1 - (0.01 * 0.3 if variable.path.endswith("bias") else 0.1 * 0.5)
        value = np.array(keras.ops.convert_to_numpy(variable.value))
        np.testing.assert_allclose(value, kept**4, rtol=2e-6)


def test_the_logs_have_the_decay():
    model = network(keras.optimizers.SGD(RATE, weight_decay=DECAY))
    history = fit(model, one_cycle(couple_weight_decay=True)).history
    products = np.multiply(history["learning_rate"], history["weight_decay"])
    np.testing.assert_allclose(products, RATE * DECAY, rtol=1e-5)
    assert model.optimizer.weight_decay == DECAY


@pytest.mark.once
def test_a_second_fit_with_another_rate_keeps_another_product():
    model = network(keras.optimizers.SGD(RATE, weight_decay=DECAY))
    for rate in (RATE, 0.02):
        model.optimizer.learning_rate = rate
        model.set_weights([np.ones_like(each) for each in model.get_weights()])
        x = np.zeros((64, 4), "float32")
        callback = keras_lr.ScheduleLR(0.3, couple_weight_decay=True)
        model.fit(
            x, x[:, :1], batch_size=16, verbose=0, sample_weight=np.zeros(64), callbacks=[callback]
        )
        np.testing.assert_allclose(model.get_weights()[0], (1 - rate * DECAY) ** 4, rtol=2e-6)


@pytest.mark.once
@pytest.mark.parametrize(
    ("optimizer", "extra", "message"),
    [
        ("sgd", [], "needs an optimizer with a weight decay; got SGD with weight_decay=None"),
        (
            keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10), weight_decay=0.1),
            [],
            "got SGD with CosineDecay as its rate. Compile it with a number",
        ),
        (
            keras.optimizers.SGD(0.1, weight_decay=0.1),
            [keras_lr.ScheduleHyperparameter("weight_decay", 0.2)],
            "Only one callback of a fit can set the weight_decay; got OneCycle and Schedule",
        ),
    ],
)
def test_what_cannot_be_coupled_is_refused(optimizer, extra, message):
    with pytest.raises(ValueError, match=message):
        fit(network(optimizer), one_cycle(couple_weight_decay=True), *extra)


@pytest.mark.once
@pytest.mark.parametrize("name", POLICIES)
def test_the_argument_must_be_a_bool(name):
    with pytest.raises(TypeError, match="couple_weight_decay must be True or False; got 'yes'"):
        POLICIES[name][0](couple_weight_decay="yes")


# Which weights decay


def attention():
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4, name="embedding")(inputs)
    x = x + layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.LayerNormalization(axis=(1, 2), name="normal")(x)
    x = layers.GRU(3, name="gru")(x)
    x = layers.BatchNormalization(name="batch")(x)
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="dense")], name="inner")
    return keras.Model(inputs, inner(x))


def test_norms_and_biases_are_left_out():
    model = attention()
    excluded = keras_lr.no_weight_decay(model)
    decayed = [v for v in model.trainable_variables if all(v is not each for each in excluded)]
    names = [variable.path.removeprefix("inner/") for variable in decayed]
    assert {name.rpartition("/")[2] for name in names} == {
        "embeddings", "kernel", "recurrent_kernel",
    }  # fmt: skip
    assert len(names) == 1 + 4 + 2 + 1  # embedding, attention, recurrent layer, dense layer
    # Two dimensions alone do not make a kernel.
    shapes = [tuple(variable.shape) for variable in excluded]
    assert shapes.count((2, 3)) == 3  # biases of query, key and value
    assert shapes.count((5, 4)) == 2  # scale and offset over two axes
    assert (2, 9) in shapes  # the biases of the recurrent layer


@pytest.mark.parametrize("wrap", [False, True], ids=["AdamW", "LayerwiseLR"])
def test_excluded_weights_do_not_decay(wrap):
    model = attention()
    optimizer = keras.optimizers.AdamW(RATE, weight_decay=DECAY)
    if wrap:
        optimizer = keras_lr.optimizers.LayerwiseLR(optimizer, {"embedding": 0.5})
    excluded = keras_lr.no_weight_decay(model)
    optimizer.exclude_from_weight_decay(var_list=excluded)
    model.compile(optimizer, "mse")
    model.set_weights([np.ones_like(each) for each in model.get_weights()])
    x = np.zeros((8, 5), "int32")
    model.fit(x, np.zeros((8, 2)), batch_size=8, sample_weight=np.zeros(8), verbose=0)
    for variable in model.trainable_variables:
        decay = 0.0 if any(variable is each for each in excluded) else RATE * DECAY
        scale = 0.5 if wrap and "embedding" in variable.path else 1.0
        value = np.array(keras.ops.convert_to_numpy(variable.value))
        np.testing.assert_allclose(value, 1 - scale * decay, rtol=1e-6)


@pytest.mark.once
def test_no_weight_decay_refuses_what_is_not_a_built_model():
    with pytest.raises(TypeError, match="model must be a Keras model; got 3"):
        keras_lr.no_weight_decay(3)
    with pytest.raises(ValueError, match="no_weight_decay needs a built model"):
        keras_lr.no_weight_decay(keras.Sequential([keras.layers.Dense(2)]))
