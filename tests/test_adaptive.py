"""`Hypergradient` and `AdaptiveGains` against the papers' equations, in float64 NumPy."""

import keras
import numpy as np
import pytest
from keras import optimizers
from models import classifier, data, values

import keras_lr
from keras_lr.optimizers import AdaptiveGains, Hypergradient, LayerwiseLR, hypergradient

pytestmark = pytest.mark.long_elsewhere(
    "the update is keras.ops, and test_contract.py trains with it on each backend"
)

STEPS = 12
SHAPES = {"a": (3, 4), "b": (5,)}


def start():
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape) for shape in SHAPES.values()]


def variables():
    pairs = zip(SHAPES, start(), strict=True)
    return [keras.Variable(value.astype("float32"), name=name) for name, value in pairs]


def gradient_of(weights):
    """Of a loss that is curved differently along each weight."""
    return [
        np.linspace(0.5, 4.0, w.size).reshape(w.shape) * w + 0.3 * np.sin(3 * w) for w in weights
    ]


def trained(optimizer, steps=STEPS, gradient=gradient_of):
    weights = [
        keras.Variable(w.astype("float32"), name=n) for n, w in zip(SHAPES, start(), strict=True)
    ]
    rates = []
    for _ in range(steps):
        grads = gradient([w.astype("float64") for w in values(weights)])
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in grads], weights)
        rates.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
    return values(weights), rates


class Reference:
    """Algorithms 4 to 6 of Baydin et al. 2018: the direction of each, then one rule."""

    def __init__(self, kind, momentum=0.9):
        self.kind, self.momentum, self.count = kind, momentum, 0
        self.m = [np.zeros_like(w) for w in start()]
        self.v = [np.zeros_like(w) for w in start()]

    def directions(self, grads):
        self.count += 1
        if self.kind == "sgd":
            return [-g for g in grads]
        if self.kind in ("momentum", "nesterov"):
            self.m = [self.momentum * m + g for m, g in zip(self.m, grads, strict=True)]
            if self.kind == "momentum":
                return [-m for m in self.m]
            return [-(g + self.momentum * m) for g, m in zip(grads, self.m, strict=True)]
        self.m = [0.9 * m + 0.1 * g for m, g in zip(self.m, grads, strict=True)]
        self.v = [0.999 * v + 0.001 * g * g for v, g in zip(self.v, grads, strict=True)]
        first, second = 1 - 0.9**self.count, 1 - 0.999**self.count
        # Keras adds epsilon before it corrects the bias.
        steps = zip(self.m, self.v, strict=True)
        return [-(m / first) / ((np.sqrt(v) + 1e-7) / np.sqrt(second)) for m, v in steps]

    def run(self, rate, beta, mode):
        weights, rates = start(), []
        last = [np.zeros_like(w) for w in weights]
        for _ in range(STEPS):
            grads = gradient_of(weights)
            slope = sum((g * d).sum() for g, d in zip(grads, last, strict=True))
            if mode == "additive":
                rate = rate - beta * slope
            elif self.count:
                sizes = [np.sqrt(sum((x * x).sum() for x in each)) for each in (grads, last)]
                rate = rate * (1 - beta * slope / np.prod(sizes))
            last = self.directions(grads)
            weights = [w + rate * d for w, d in zip(weights, last, strict=True)]
            rates.append(rate)
        return weights, rates


HYPERGRADIENTS = {
    "sgd": (lambda: optimizers.SGD(0.01), 1e-4),
    "momentum": (lambda: optimizers.SGD(0.01, momentum=0.9), 1e-5),
    "nesterov": (lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True), 1e-5),
    "adam": (lambda: optimizers.Adam(0.01), 1e-4),
}


@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
@pytest.mark.parametrize("kind", HYPERGRADIENTS)
def test_hypergradient_follows_the_equations_of_the_paper(kind, mode):
    make, beta = HYPERGRADIENTS[kind]
    beta = beta if mode == "additive" else 0.1
    weights, rates = trained(Hypergradient(make(), beta, mode))
    expected, expected_rates = Reference(kind).run(0.01, beta, mode)
    np.testing.assert_allclose(rates, expected_rates, rtol=1e-5, atol=0)
    assert max(rates) > 1.1 * min(rates)
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_default_betas_are_those_of_the_paper():
    for make, beta in ((lambda: optimizers.SGD(0.01), 1e-3), (lambda: optimizers.Adam(0.01), 1e-7)):
        np.testing.assert_array_equal(
            trained(Hypergradient(make()))[1], trained(Hypergradient(make(), beta))[1]
        )


@pytest.mark.parametrize("small", [0, 8, 100])
def test_large_tensors_count_in_a_product_as_small_ones_do(monkeypatch, small):
    monkeypatch.setattr(hypergradient, "_SMALL", small)
    rng = np.random.default_rng(0)
    pairs = [rng.normal(size=(2, *shape)).astype("float32") for shape in ((3, 4), (5,), (), (2,))]
    tensors = [[keras.ops.convert_to_tensor(pair[side]) for pair in pairs] for side in (0, 1)]
    expected = sum((pair[0] * pair[1]).sum() for pair in pairs)
    np.testing.assert_allclose(float(hypergradient._dot(*tensors)), expected, rtol=1e-5)


def test_the_rate_stays_above_its_bound():
    """The gradient turns around at each step, and asks for a rate below 0."""
    sign = [1.0]

    def alternating(weights):
        sign[0] = -sign[0]
        return [np.full(w.shape, sign[0]) for w in weights]

    _, rates = trained(Hypergradient(optimizers.SGD(0.01), 1.0, min_lr=1e-5), 4, alternating)
    np.testing.assert_allclose(rates, [0.01, 1e-5, 1e-5, 1e-5], rtol=1e-6)


def test_a_gradient_that_is_not_finite_does_not_change_the_rate():
    for mode in ("additive", "multiplicative"):
        optimizer = Hypergradient(optimizers.SGD(0.01), mode=mode)
        _, rates = trained(optimizer, 3, lambda weights: [w * np.inf for w in weights])
        np.testing.assert_allclose(rates, 0.01, rtol=1e-6)


def test_a_rate_that_is_too_small_grows_and_one_that_is_too_large_falls():
    for rate in (1e-3, 0.45):  # 2 / 4.9, the largest curvature, is the edge of stability
        optimizer = Hypergradient(optimizers.SGD(rate), 0.2, "multiplicative")
        _, rates = trained(optimizer, 6)
        assert (rates[-1] > 1.5 * rate) if rate < 0.01 else (rates[-1] < 0.95 * rate)


def test_an_optimizer_with_velocities_goes_on_as_before():
    for make in (
        lambda: optimizers.SGD(0.01, momentum=0.9),
        lambda: optimizers.RMSprop(0.01, momentum=0.9),
    ):
        weights = []
        for wrap in (False, True):
            optimizer = make()
            kept = variables()
            optimizer.build(kept)
            for step in range(6):
                if wrap and step == 3:
                    optimizer = Hypergradient(optimizer, 1e-12)
                grads = gradient_of(values(kept))
                optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in grads], kept)
            weights.append(values(kept))
        for plain, ours in zip(*weights, strict=True):
            np.testing.assert_allclose(ours, plain, rtol=1e-5)


def test_frozen_layers_stay_and_do_not_count_for_the_rate():
    frozen = Hypergradient(LayerwiseLR(optimizers.SGD(0.01), {"a": 0.0}), 1e-4)
    weights, rates = trained(frozen)
    np.testing.assert_array_equal(weights[0], start()[0].astype("float32"))

    rate, w, last = 0.01, start()[1], np.zeros(5)
    for expected in rates:
        (gradient,) = gradient_of([w])
        rate += 1e-4 * (gradient * last).sum()
        np.testing.assert_allclose(expected, rate, rtol=1e-5)
        w, last = w - rate * gradient, gradient
    np.testing.assert_allclose(weights[1], w, rtol=1e-5)


@pytest.mark.parametrize("how", ["a schedule", "multipliers that are set"])
def test_layers_that_freeze_on_the_way_stop_at_once(how):
    """Their velocities are left, and neither move them nor count for the rate."""
    until = keras.optimizers.schedules.PiecewiseConstantDecay([2], [1.0, 0.0])
    multiplier = until if how == "a schedule" else 1.0
    optimizer = Hypergradient(
        LayerwiseLR(optimizers.SGD(0.01, momentum=0.9), {"a": multiplier}), 1e-4
    )
    kept, rates = variables(), []
    weights, rate = start(), 0.01
    velocities, last = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for step in range(7):
        if step == 3 and how == "multipliers that are set":
            optimizer.multipliers = {"a": 0.0}
        grads = gradient_of(values(kept))
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in grads], kept)
        rates.append(float(optimizer.learning_rate))

        grads = gradient_of(weights)
        rate -= 1e-4 * sum((g * d).sum() for g, d in zip(grads, last, strict=True))
        velocities = [0.9 * v - g for v, g in zip(velocities, grads, strict=True)]
        last = [v * (step < 3 or i == 1) for i, v in enumerate(velocities)]
        weights = [w + rate * d for w, d in zip(weights, last, strict=True)]
        np.testing.assert_allclose(rates[-1], rate, rtol=1e-5)
        for ours, theirs in zip(values(kept), weights, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_callback_that_sets_the_rate_is_refused():
    x, y = data()
    model = classifier(Hypergradient(optimizers.SGD(0.01)))
    with pytest.raises(ValueError, match=r"rate of Hypergradient\[SGD\]; got OneCycle\. Use"):
        model.fit(x, y, verbose=0, callbacks=[keras_lr.OneCycle(0.1, cycle_momentum=False)])


def test_a_plateau_reduces_the_rate_that_is_tuned():
    x, y = data()
    model = classifier(Hypergradient(optimizers.SGD(0.01), 1e-12), dropout=0.0)
    plateau = keras_lr.ReduceLROnPlateau("loss", 0.5, 1, min_delta=1e9)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[plateau])
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.0025, rtol=1e-4)


def test_memory_is_one_copy_of_the_weights_for_each():
    sizes = {}
    for name, make in {
        "plain": lambda: optimizers.SGD(0.01),
        "hypergradient": lambda: Hypergradient(optimizers.SGD(0.01)),
        "gains": lambda: AdaptiveGains(optimizers.SGD(0.01)),
        "hypergradient and momentum": lambda: Hypergradient(optimizers.SGD(0.01, momentum=0.9)),
        "plain momentum": lambda: optimizers.SGD(0.01, momentum=0.9),
        "gains and momentum": lambda: AdaptiveGains(optimizers.SGD(0.01, momentum=0.9)),
    }.items():
        optimizer = make()
        trained(optimizer, 1)
        sizes[name] = sum(int(np.prod(v.shape)) for v in optimizer.variables)
    one = sum(int(np.prod(shape)) for shape in SHAPES.values())
    assert sizes["hypergradient"] - sizes["plain"] == one
    assert sizes["hypergradient and momentum"] == sizes["plain momentum"]
    assert sizes["gains"] - sizes["plain"] == 2 * one
    assert sizes["gains and momentum"] - sizes["plain momentum"] == one


# Gains


def gains_of_the_lecture(kind, theta, low=0.5, high=1.3):
    """Lecture 6d and Jacobs 1988, on gradients that are known beforehand."""
    weights, gains = np.concatenate([w.ravel() for w in start()]), np.ones(17)
    trace, velocity, second, rate = np.zeros(17), np.zeros(17), np.zeros(17), 0.01
    for count, gradient in enumerate(noise(), 1):
        towards = -velocity if kind == "momentum" else velocity if kind == "adam" else trace
        agree = np.sign(gradient) * np.sign(trace if theta is not None else towards)
        gains = np.where(agree > 0, gains + 0.05, np.where(agree < 0, gains * 0.95, gains))
        gains = np.clip(gains, low, high)
        trace = (theta or 0) * trace + (1 - (theta or 0)) * gradient
        if kind == "adam":
            velocity = 0.9 * velocity + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            scale = np.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            weights = weights - rate * gains * scale * velocity / (np.sqrt(second) + 1e-7)
        else:
            velocity = (0.9 if kind == "momentum" else 0.0) * velocity - rate * gains * gradient
            weights = weights + velocity
    return weights, gains


def noise():
    rng = np.random.default_rng(5)
    steps = rng.normal(0.4, 1.0, (40, 17))
    return np.where(rng.uniform(size=steps.shape) < 0.1, 0.0, steps)


@pytest.mark.parametrize("theta", [None, 0.0, 0.7])
@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_gains_follow_the_lecture(kind, theta):
    inner = {
        "sgd": lambda: optimizers.SGD(0.01),
        "momentum": lambda: optimizers.SGD(0.01, momentum=0.9),
        "adam": lambda: optimizers.Adam(0.01),
    }[kind]()
    optimizer = AdaptiveGains(inner, min_gain=0.5, max_gain=1.3, theta=theta)
    given = iter(noise())

    def split(weights):
        flat = next(given)
        return [flat[:12].reshape(3, 4), flat[12:]]

    weights, _ = trained(optimizer, 40, split)
    expected, expected_gains = gains_of_the_lecture(kind, theta)
    gains = [np.ravel(keras.ops.convert_to_numpy(gain)) for gain in optimizer.gains]
    np.testing.assert_allclose(np.concatenate(gains), expected_gains, rtol=1e-5)
    assert expected_gains.min() < 0.9 < 1.29 < expected_gains.max()
    flat = np.concatenate([np.ravel(w) for w in weights])
    np.testing.assert_allclose(flat, expected, rtol=1e-4, atol=1e-6)


def test_without_momentum_theta_0_is_the_comparison_with_the_last_gradient():
    plain, full = (trained(AdaptiveGains(optimizers.SGD(0.01), theta=t))[0] for t in (None, 0.0))
    for ours, theirs in zip(plain, full, strict=True):
        np.testing.assert_array_equal(ours, theirs)


LINEAR = ["Adadelta", "Adagrad", "AdamW", "Adamax", "Lamb", "Lion", "Muon", "Nadam", "RMSprop"]


@pytest.mark.parametrize("name", [name for name in LINEAR if hasattr(optimizers, name)])
def test_with_nothing_to_adapt_the_optimizer_is_the_plain_one(name):
    plain = trained(getattr(optimizers, name)(0.01))[0]
    for ours in (
        trained(AdaptiveGains(getattr(optimizers, name)(0.01), 0.0, 1.0))[0],
        trained(Hypergradient(getattr(optimizers, name)(0.01), 1e-30))[0],
        trained(AdaptiveGains(LayerwiseLR(getattr(optimizers, name)(0.01)), 0.0, 1.0))[0],
        trained(Hypergradient(LayerwiseLR(getattr(optimizers, name)(0.01), {"a": 1.0}), 1e-30))[0],
    ):
        for got, expected in zip(ours, plain, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("make", [Hypergradient, AdaptiveGains])
def test_a_config_with_another_modification_inside_makes_an_equal_optimizer(make):
    optimizer = make(LayerwiseLR(optimizers.Adam(0.01), {"a": 0.5}))
    again = optimizers.deserialize(optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    for ours, theirs in zip(trained(optimizer)[0], trained(again)[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.once
def test_the_mode_is_compared_by_value():
    mode = Hypergradient(optimizers.SGD(), mode=np.str_("multiplicative")).get_config()["mode"]
    assert repr(mode) == "'multiplicative'"


SCHEDULE = optimizers.schedules.CosineDecay(0.1, 10)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Hypergradient(optimizers.Ftrl()), ValueError, "got Ftrl. Use one of Adadelta"),
        (lambda: AdaptiveGains(optimizers.Adafactor()), ValueError, "got Adafactor"),
        (lambda: Hypergradient(optimizers.SGD(SCHEDULE)), TypeError, "a number as .* got Cos"),
        (lambda: Hypergradient(optimizers.SGD(), 0.0), ValueError, "beta must be above 0"),
        (lambda: Hypergradient(optimizers.SGD(), 1.5, "multiplicative"), ValueError, "in .0, 1"),
        (lambda: Hypergradient(optimizers.SGD(), mode="both"), ValueError, "mode must be"),
        (lambda: Hypergradient(optimizers.SGD(), min_lr=0), ValueError, "min_lr"),
        (lambda: AdaptiveGains(optimizers.SGD(), -0.1), ValueError, "increase"),
        (lambda: AdaptiveGains(optimizers.SGD(), decrease=1.1), ValueError, "decrease"),
        (lambda: AdaptiveGains(optimizers.SGD(), min_gain=2), ValueError, "min_gain"),
        (lambda: AdaptiveGains(optimizers.SGD(), max_gain=0.5), ValueError, "max_gain"),
        (lambda: AdaptiveGains(optimizers.SGD(), theta=1.0), ValueError, "theta"),
        (lambda: AdaptiveGains("sgd"), TypeError, "needs a Keras optimizer; got 'sgd'"),
    ],
)
def test_bad_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
