"""Prodigy against its authors' package, step for step, and in every place where Keras trains.

Run as a program, it trains on two devices and on one, and prints `passed`.
"""

import doctest
import json
import math
import os
import subprocess
import sys
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from keras import ops

from keras_lr.optimizers import prodigy
from keras_lr.optimizers.prodigy import Prodigy
from keras_lr.schedules import FlatCosineSchedule, WarmUpSchedule

pytestmark = pytest.mark.long_elsewhere(
    "the update is keras.ops, and test_contract.py trains with it on each backend"
)

BACKEND = keras.backend.backend()
STEPS = 32
PEER_NAMES = {"learning_rate": "lr", "beta_3": "beta3", "epsilon": "eps"}


def problem():
    """Batches of a regression that is badly scaled and noisy, and the weights to begin with."""
    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS * 16, 5)) * [0.1, 0.5, 1.0, 2.0, 5.0]
    y = x @ random.normal(size=(5, 3)) + 2.0 + 0.1 * random.normal(size=(STEPS * 16, 3))
    weights = [random.normal(size=(5, 3)), np.zeros(3)]
    return x.astype("float32"), y.astype("float32"), [part.astype("float32") for part in weights]


X, Y, STARTS = problem()
# In float32 the first steps are few units of the last digit of a weight, so that a rounding
# more or less shows in the estimate, and grows with it. Rates are float32 in either case.
TOLERANCE = {"float32": 5e-4, "float64": 1e-6}


def gradients(weights, step):
    """Of the mean squared error on batch `step`."""
    kernel, bias = (np.asarray(part, "float64") for part in weights)
    rows = slice(step * 16, step * 16 + 16)
    error = 2 * (X[rows] @ kernel + bias - Y[rows]) / Y[rows].size
    return [X[rows].T @ error, error.sum(axis=0)]


def peer_run(gradients=gradients, rates=None, steps=STEPS, dtype="float32", **options):
    """Weights and d after each step of the authors' package."""
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("prodigyopt")
    options = {PEER_NAMES.get(name, name): value for name, value in options.items()}
    options["betas"] = (options.pop("beta_1", 0.9), options.pop("beta_2", 0.999))
    weights = [torch.nn.Parameter(torch.tensor(start.astype(dtype))) for start in STARTS]
    optimizer = package.Prodigy(weights, **options)
    path = []
    for step in range(steps):
        if rates is not None:
            optimizer.param_groups[0]["lr"] = rates[step]
        now = [weight.detach().numpy().copy() for weight in weights]
        for weight, gradient in zip(weights, gradients(now, step), strict=True):
            weight.grad = torch.tensor(gradient.astype(dtype))
        optimizer.step()
        now = [weight.detach().numpy().copy() for weight in weights]
        path.append((now, optimizer.param_groups[0]["d"]))
    return path


def variables(dtype="float32"):
    return [
        keras.Variable(start, name=name, dtype=dtype)
        for start, name in zip(STARTS, ("kernel", "bias"), strict=True)
    ]


def values(weights):
    return [np.array(ops.convert_to_numpy(weight)) for weight in weights]


def run(optimizer, weights, gradients=gradients, steps=range(STEPS)):
    def apply(now):
        optimizer.apply(now, weights)

    if BACKEND == "tensorflow":  # in half of the time
        import tensorflow as tf

        optimizer.build(weights)
        apply = tf.function(apply)
    path = []
    for step in steps:
        now = gradients(values(weights), step)
        now = [ops.convert_to_tensor(part, weights[0].dtype) for part in now]
        apply(now)
        path.append((values(weights), optimizer.d))
    return path


def assert_same_path(ours, theirs, rtol=TOLERANCE["float32"]):
    assert len(ours) == len(theirs)
    for step, ((weights, d), (expected, expected_d)) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(d, expected_d, rtol=rtol, err_msg=f"d after step {step}")
        for weight, value in zip(weights, expected, strict=True):
            np.testing.assert_allclose(
                weight, value, rtol=rtol, atol=rtol, err_msg=f"weights after step {step}"
            )


def model(optimizer, **compile_options):
    made = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, name="dense")])
    made.set_weights(STARTS)
    made.compile(optimizer, "mse", **compile_options)
    return made


def fit(made, rows=slice(None), batch_size=16):
    made.fit(X[rows], Y[rows], batch_size=batch_size, shuffle=False, verbose=0)
    return made


COSINE = FlatCosineSchedule(1.0, STEPS, 0.5)
WARM_UP = WarmUpSchedule(1.0, 8)


SET_UPS = [
    {},
    {"use_bias_correction": True, "beta_2": 0.99, "d0": 1e-5},
    {"use_bias_correction": True, "safeguard_warmup": True, "d0": 1e-3, "weight_decay": 0.1},
    {"growth_rate": 1.5, "d0": 1e-3},
    {"learning_rate": COSINE, "weight_decay": 0.3},
    {"safeguard_warmup": True, "learning_rate": 0.25},
    {"d_coef": 2.0, "beta_3": 0.9, "epsilon": 1e-3},
    {"beta_1": 0.0, "growth_rate": 1.2, "d0": 1e-2, "epsilon": 0.1},
    {"beta_1": 0.0, "beta_2": 0.0, "beta_3": 0.5, "epsilon": 0.1, "use_bias_correction": True},
    {"learning_rate": WARM_UP, "safeguard_warmup": True, "d0": 1e-3},
    {"learning_rate": WARM_UP},
]


@pytest.mark.parametrize(
    ("options", "dtype"),
    [(options, "float64") for options in SET_UPS]
    + [(options, "float32") for options in SET_UPS[:5]],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "defaults",
)
def test_each_step_is_that_of_the_authors_package(options, dtype):
    peer_options, rates = dict(options), None
    if callable(options.get("learning_rate")):
        rates = [float(peer_options["learning_rate"](step)) for step in range(STEPS)]
        del peer_options["learning_rate"]
    theirs = peer_run(rates=rates, dtype=dtype, **peer_options)
    assert theirs[-1][1] > 2 * options.get("d0", 1e-6), "d grew"
    with wide() if dtype == "float64" else nullcontext():
        optimizer = Prodigy(**options)
        ours = run(optimizer, variables(dtype))
        assert ours[0][0][0].dtype == optimizer._d.dtype == dtype
    assert_same_path(ours, theirs, TOLERANCE[dtype])


def wide():
    """JAX computes in float64 only where it is told to."""
    if BACKEND != "jax":
        return nullcontext()
    import jax

    return jax.enable_x64(True)


@pytest.mark.parametrize("jit_compile", [False] if BACKEND == "torch" else [False, True])
def test_training_in_graph_equals_the_authors_package(jit_compile):
    options = {"weight_decay": 0.1, "use_bias_correction": True}
    theirs = peer_run(rates=[float(COSINE(step)) for step in range(STEPS)], **options)
    made = fit(model(Prodigy(COSINE, **options), jit_compile=jit_compile))
    assert_same_path([(made.get_weights(), made.optimizer.d)], theirs[-1:])


def test_an_update_without_a_rate_or_a_gradient_changes_nothing():
    weights, optimizer = variables(), Prodigy(0.0)
    run(optimizer, weights, steps=range(3))
    optimizer.learning_rate = 1.0
    run(optimizer, weights, lambda now, step: [0 * part for part in now], range(3))
    for weight, start in zip(values(weights), STARTS, strict=True):
        np.testing.assert_array_equal(weight, start)
    assert optimizer.d == pytest.approx(1e-6, rel=1e-6)
    assert_same_path(run(optimizer, weights), peer_run())


def test_a_rate_of_0_in_the_middle_leaves_no_trace():
    weights, optimizer = variables(), Prodigy(use_bias_correction=True)
    first = run(optimizer, weights, steps=range(20))
    optimizer.learning_rate = 0.0
    run(optimizer, weights, steps=range(5))
    optimizer.learning_rate = 1.0
    ours = first + run(optimizer, weights, steps=range(20, STEPS))
    assert_same_path(ours, peer_run(use_bias_correction=True))


def test_weights_set_after_building_are_the_start():
    weights, optimizer = variables(), Prodigy()
    for weight in weights:
        weight.assign(weight + 5.0)
    optimizer.build(weights)
    for weight, start in zip(weights, STARTS, strict=True):
        weight.assign(start)
    assert_same_path(run(optimizer, weights), peer_run())


def test_d_is_d0_before_there_is_an_update():
    optimizer = Prodigy(d0=1e-3)
    assert optimizer.d == 1e-3
    optimizer.build(variables())
    assert optimizer.d == pytest.approx(1e-3)


def test_excluded_variables_do_not_decay():
    optimizer, weights = Prodigy(weight_decay=0.5, d0=0.1), variables()
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    run(optimizer, weights)
    plain = run(Prodigy(d0=0.1), variables(), steps=range(1))[0][0]
    optimizer, weights = Prodigy(weight_decay=0.5, d0=0.1), variables()
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    weights[1].assign(weights[1] + 1.0)
    same = lambda now, step: gradients(STARTS, step)  # noqa: E731
    kernel, bias = run(optimizer, weights, same, range(1))[0][0]
    np.testing.assert_allclose(kernel, plain[0], rtol=1e-6)
    np.testing.assert_allclose(bias, 1.0 - 0.5 * 0.1 + plain[1], rtol=1e-6)


def test_training_goes_on_after_loading_as_if_never_stopped(tmp_path):
    def made():
        return model(Prodigy(weight_decay=0.1, growth_rate=2.0, use_bias_correction=True))

    half = slice(0, STEPS * 8)
    whole, saved = fit(made(), half), fit(made(), half)
    saved.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is Prodigy
    assert loaded.optimizer.d == saved.optimizer.d > 1e-6
    rest = slice(STEPS * 8, None)
    fit(loaded, rest), fit(whole, rest)
    assert loaded.optimizer.d == whole.optimizer.d
    for weight, expected in zip(loaded.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_the_config_is_plain_json_and_makes_the_same_optimizer():
    chosen = {
        "learning_rate": 0.5,
        "beta_1": 0.8,
        "beta_2": 0.95,
        "beta_3": 0.7,
        "epsilon": 1e-6,
        "weight_decay": 0.1,
        "use_bias_correction": True,
        "safeguard_warmup": True,
        "d0": 1e-4,
        "d_coef": 2.0,
        "growth_rate": 1.5,
        "clipnorm": 3.0,
        "gradient_accumulation_steps": 2,
        "name": "mine",
    }
    config = Prodigy(**chosen).get_config()
    assert {name: config[name] for name in chosen} == chosen
    assert Prodigy.from_config(dict(config)).get_config() == config
    text = json.dumps(Prodigy().get_config(), allow_nan=False)
    assert Prodigy.from_config(json.loads(text)).growth_rate == math.inf


def test_accumulated_gradients_make_one_update():
    def mean(now, step):
        return [
            sum(pair) / 2
            for pair in zip(gradients(now, 2 * step), gradients(now, 2 * step + 1), strict=True)
        ]

    made = fit(model(Prodigy(gradient_accumulation_steps=2, weight_decay=0.1)))
    theirs = peer_run(mean, steps=STEPS // 2, weight_decay=0.1)
    assert_same_path([(made.get_weights(), made.optimizer.d)], theirs[-1:])


def test_the_average_of_the_weights_is_that_of_the_path():
    momentum = 0.8
    made = fit(model(Prodigy(use_ema=True, ema_momentum=momentum)))
    path = [weights for weights, _ in peer_run()]
    average = path[0]
    for weights in path[1:]:
        average = [momentum * a + (1 - momentum) * w for a, w in zip(average, weights, strict=True)]
    assert_same_path([(made.get_weights(), 0.0)], [(average, 0.0)])


def test_gradients_are_clipped_before_the_estimate():
    def clipped(now, step):
        return [part * min(1, 0.5 / np.linalg.norm(part)) for part in gradients(now, step)]

    assert_same_path(run(Prodigy(clipnorm=0.5), variables()), peer_run(clipped))


def test_loss_scaling_changes_nothing_and_skips_what_is_not_finite():
    inner = Prodigy(weight_decay=0.1)
    made = model(keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0))
    made.fit(np.full_like(X[:16], np.inf), Y[:16], batch_size=16, verbose=0)
    assert inner.d == pytest.approx(1e-6)
    fit(made)
    assert float(made.optimizer.dynamic_scale) == 32.0
    theirs = peer_run(weight_decay=0.1)
    assert_same_path([(made.get_weights(), inner.d)], theirs[-1:])


def test_mixed_precision_trains():
    inner = Prodigy(d0=1e-3)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        made = model(keras.optimizers.LossScaleOptimizer(inner, 16.0), jit_compile=False)
    finally:
        keras.config.set_dtype_policy("float32")
    fit(made, slice(0, 8 * 16))
    assert made.layers[0].compute_dtype == "float16"
    assert float(made.optimizer.dynamic_scale) == 16.0
    # Half precision has three digits, and the path through the estimate takes one.
    np.testing.assert_allclose(inner.d, peer_run(d0=1e-3, steps=8)[-1][1], rtol=0.03)


def test_bfloat16_variables_train_and_float16_is_refused():
    weights = [keras.Variable(start, dtype="bfloat16") for start in STARTS]
    optimizer = Prodigy(d0=1e-3)
    for step in range(STEPS):
        now = gradients([ops.convert_to_numpy(ops.cast(w, "float32")) for w in weights], step)
        optimizer.apply([ops.cast(part, "bfloat16") for part in now], weights)
    assert 0.01 < optimizer.d < 10.0
    with pytest.raises(ValueError, match="bfloat16; got float16 for 'weak'. Train with"):
        Prodigy().build([keras.Variable([1.0], dtype="float16", name="weak")])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has sparse gradients")
def test_sparse_gradients_count_as_dense_ones():
    import tensorflow as tf

    sparse, dense = ([keras.Variable(STARTS[0], name="kernel")] for _ in range(2))
    ours, expected = Prodigy(weight_decay=0.1), Prodigy(weight_decay=0.1)
    rows = tf.constant([0, 2, 2])
    slices = tf.IndexedSlices(tf.constant(gradients(STARTS, 0)[0][:3], "float32"), rows, (5, 3))
    for _ in range(5):
        ours.apply([slices], sparse)
        expected.apply([tf.convert_to_tensor(slices)], dense)
    np.testing.assert_allclose(values(sparse)[0], values(dense)[0], rtol=1e-6)
    assert ours.d == pytest.approx(expected.d, rel=1e-6) and ours.d > 1e-6


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"learning_rate": -1.0}, ValueError, "learning_rate must be at least 0; got -1.0"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate .* got 'fast'"),
        ({"beta_1": 1.0}, ValueError, r"beta_1 must be in \[0, 1\); got 1.0"),
        ({"beta_2": -0.1}, ValueError, r"beta_2 must be in \[0, 1\); got -0.1"),
        ({"beta_3": 1.5}, ValueError, r"beta_3 must be in \[0, 1\); got 1.5"),
        ({"epsilon": 0.0}, ValueError, "epsilon must be above 0; got 0.0"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0; got -0.1"),
        ({"use_bias_correction": 1}, TypeError, "use_bias_correction .* got 1"),
        ({"safeguard_warmup": None}, TypeError, "safeguard_warmup .* got None"),
        ({"d0": 0}, ValueError, "d0 must be above 0; got 0"),
        ({"d_coef": math.nan}, ValueError, "d_coef .* above 0; got nan"),
        ({"growth_rate": 0.9}, ValueError, "growth_rate must be at least 1; got 0.9"),
        ({"growth_rate": True}, TypeError, "growth_rate .* got True"),
        ({"slice_p": 11}, ValueError, "slice_p"),
    ],
)
def test_a_bad_argument_is_refused_with_the_rule(options, error, message):
    with pytest.raises(error, match=message):
        Prodigy(**options)


def test_the_example_runs():
    failed, count = doctest.testmod(prodigy)
    assert count and not failed


@pytest.mark.skipif(BACKEND == "torch", reason="Keras distributes no training on torch")
def test_two_devices_train_as_one():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"} if BACKEND == "jax" else {}
    result = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.stdout.endswith("passed\n"), result.stderr[-4000:]


def main():
    def made():
        optimizer = Prodigy(COSINE, weight_decay=0.1, use_bias_correction=True)
        return model(optimizer, jit_compile=BACKEND == "jax")

    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            distributed = made()
        fit(distributed)
        replicas = [v.value.values for v in distributed.optimizer.variables[2:]]
        for first, second in replicas:
            np.testing.assert_array_equal(first, second)
    else:
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        distributed = fit(made())
        keras.distribution.set_distribution(None)
    alone = fit(made())
    pairs = [(m.get_weights(), m.optimizer.d) for m in (distributed, alone)]
    assert pairs[1][1] > 1e-3
    assert_same_path(pairs[:1], pairs[1:])
    print("passed")


if __name__ == "__main__":
    main()
