"""`ScheduleFree` against the paper's equations in NumPy, and against the authors' package."""

import keras
import numpy as np
import pytest
from models import classifier, data, same, values

import keras_lr
from keras_lr.optimizers import AdaptiveGains, Hypergradient, LayerwiseLR, ScheduleFree
from keras_lr.optimizers.rectification import rectification

UPDATES = 200
SHAPES = [(3, 4), (5,)]
# Inner optimizer, its arguments, and ours. The rates are exact in float32, as Keras stores them.
CASES = [
    ("SGD", {"learning_rate": 0.5, "momentum": 0.9}, {}),
    ("SGD", {"learning_rate": 0.25, "momentum": 0.7, "weight_decay": 0.02}, {"warmup_steps": 30}),
    ("Adam", {"learning_rate": 2**-7}, {"r": 1.5, "weight_lr_power": 0.0, "warmup_steps": 7}),
    ("Adam", {"learning_rate": 2**-6, "beta_1": 0.95, "beta_2": 0.99, "epsilon": 1e-5}, {}),
    (
        "AdamW",
        {"learning_rate": 2**-7, "weight_decay": 0.1},
        {"warmup_steps": 50, "r": 0.5, "weight_lr_power": 1.0},
    ),
    ("Adam", {"learning_rate": 2**-6}, {"rectify": True}),
    (
        "AdamW",
        {"learning_rate": 2**-6, "weight_decay": 0.1, "beta_1": 0.95, "beta_2": 0.97},
        {"rectify": True, "r": 0.5, "weight_lr_power": 1.0},
    ),
    ("Adam", {"learning_rate": 2**-6, "beta_2": 0.99}, {"rectify": True, "weight_lr_power": 0.0}),
]
cases = pytest.mark.parametrize(("kind", "inner", "ours"), CASES)
dtypes = pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])


def starts():
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape) for shape in SHAPES]


def gradients(update):
    """Mostly in one direction, so that the weights move far; noisy, as those of batches are."""
    rng = np.random.default_rng(100 + update)
    return [0.5 + rng.normal(size=shape) for shape in SHAPES]


def made(kind, inner, ours):
    return ScheduleFree(getattr(keras.optimizers, kind)(**inner), **ours)


def trained(optimizer, dtype, updates=UPDATES):
    """The weights at y and at x after some updates."""
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX computes in float32 unless its configuration says otherwise")
    weights = [keras.Variable(w, dtype=dtype, name=f"w{i}") for i, w in enumerate(starts())]
    for update in range(updates):
        optimizer.apply([keras.ops.convert_to_tensor(g, dtype) for g in gradients(update)], weights)
    y = values(weights)
    optimizer.eval()
    return y, values(weights)


def rectified(t, beta_2):
    """Algorithm 2 of Liu et al., without its steps of SGD."""
    rho = 2 / (1 - beta_2) - 1
    rho_t = rho - 2 * t * beta_2**t / (1 - beta_2**t)
    if rho_t <= 4:
        return 0.0
    return np.sqrt((rho_t - 4) * (rho_t - 2) * rho / ((rho - 4) * (rho - 2) * rho_t))


def by_the_paper(kind, inner, ours, updates=UPDATES):
    """Equations 3 to 5 with x, y and z apart, in float64; the points y and x."""
    beta = inner.get("momentum", inner.get("beta_1", 0.9))
    beta_2, epsilon = inner.get("beta_2", 0.999), inner.get("epsilon", 1e-7)
    warmup, power = ours.get("warmup_steps", 0), ours.get("weight_lr_power", 2.0)
    x, y, z = starts(), starts(), starts()
    v = [np.zeros_like(w) for w in x]
    largest = total = 0.0
    for k in range(updates):
        gamma = inner["learning_rate"] * (min(1.0, (k + 1) / warmup) if warmup else 1.0)
        if ours.get("rectify"):
            gamma *= rectified(k + 1, beta_2)
        largest = max(largest, gamma)
        weight = (k + 1) ** ours.get("r", 0.0) * largest**power
        total += weight
        c = weight / total if total else 0.0
        for i, g in enumerate(gradients(k)):
            u = g
            if kind != "SGD":
                v[i] = beta_2 * v[i] + (1 - beta_2) * g**2
                u = g / (np.sqrt(v[i] / (1 - beta_2 ** (k + 1))) + epsilon)
            u = u + inner.get("weight_decay", 0.0) * y[i]
            z[i] = z[i] - gamma * u
            x[i] = (1 - c) * x[i] + c * z[i]
            y[i] = (1 - beta) * z[i] + beta * x[i]
    return y, x


def by_the_package(kind, inner, ours):
    """The points y and x of the `*Reference` classes, in float64."""
    package = pytest.importorskip("schedulefree")
    import torch

    weights = [torch.nn.Parameter(torch.tensor(w)) for w in starts()]
    options = {"lr": inner["learning_rate"], "weight_decay": inner.get("weight_decay", 0.0), **ours}
    if kind == "SGD":
        optimizer = package.SGDScheduleFreeReference(weights, momentum=inner["momentum"], **options)
    else:
        betas = inner.get("beta_1", 0.9), inner.get("beta_2", 0.999)
        reference = package.AdamWScheduleFreeReference
        if options.pop("rectify", False):
            reference = package.RAdamScheduleFree  # which has no `*Reference`
        optimizer = reference(weights, betas=betas, eps=inner.get("epsilon", 1e-7), **options)
    optimizer.train()
    for update in range(UPDATES):
        for weight, gradient in zip(weights, gradients(update), strict=True):
            weight.grad = torch.tensor(gradient)
        optimizer.step()
    y = [weight.detach().numpy().copy() for weight in weights]
    optimizer.eval()
    return y, [weight.detach().numpy().copy() for weight in weights]


def assert_close(ours, expected, tolerance):
    """The error of each variable, relative to the norm of the variable."""
    for points, others in zip(ours, expected, strict=True):
        for point, other in zip(points, others, strict=True):
            error = np.linalg.norm(point.astype("float64") - other) / np.linalg.norm(other)
            assert error < tolerance


@cases
@dtypes
def test_the_updates_are_those_of_the_paper(kind, inner, ours, dtype, tolerance):
    points = trained(made(kind, inner, ours), dtype)
    assert_close(points, by_the_paper(kind, inner, ours), tolerance)


@cases
@dtypes
def test_the_updates_are_those_of_the_authors_package(kind, inner, ours, dtype, tolerance):
    expected = by_the_package(kind, inner, ours)
    assert_close(trained(made(kind, inner, ours), dtype), expected, tolerance)


def test_updates_at_rate_0_change_nothing_and_do_not_count():
    optimizer = made("SGD", {"learning_rate": 0.0, "momentum": 0.9}, {})
    expected = [each.astype("float32") for each in starts()]
    y, x = trained(optimizer, "float32", updates=3)
    assert same(y, expected) and same(x, expected)


def test_weights_that_are_set_after_build_are_the_start():
    optimizer = made("SGD", {"learning_rate": 1.0, "momentum": 0.5}, {})
    weight = keras.Variable([0.0])
    optimizer.build([weight])
    weight.assign([4.0])
    for _ in range(2):
        optimizer.apply([keras.ops.ones(1)], [weight])
    assert weight.numpy().tolist() == [2.25]


def test_eval_and_train_move_the_weights_once():
    optimizer = made("SGD", {"learning_rate": 1.0, "momentum": 0.5}, {})
    weight = keras.Variable([4.0])
    optimizer.eval(), optimizer.train()  # before it is built
    for _ in range(2):
        optimizer.apply([keras.ops.ones(1)], [weight])
    for move, value in ((optimizer.eval, 2.5), (optimizer.train, 2.25)):
        move(), move()
        assert weight.numpy().tolist() == [value]


def test_the_average_moves_with_weights_that_are_set_at_y():
    optimizer = made("SGD", {"learning_rate": 1.0, "momentum": 0.5}, {})
    weight = keras.Variable([4.0])
    for _ in range(2):
        optimizer.apply([keras.ops.ones(1)], [weight])
    weight.assign([10.0])  # from y = 2.25; x was 2.5
    optimizer.eval()
    assert weight.numpy().tolist() == [10.25]


def test_a_file_of_an_earlier_version_begins_a_new_average():
    """It had z in the slots, and positive marks of the weights at x."""
    optimizer = made("SGD", {"learning_rate": 1.0, "momentum": 0.5}, {})
    weight = keras.Variable([4.0])
    for _ in range(2):
        optimizer.apply([keras.ops.ones(1)], [weight])
    optimizer.eval()
    for variable in optimizer.variables:
        if variable.path.endswith("at_average"):
            variable.assign(-float(variable))
        elif variable.path.endswith("momentum"):
            variable.assign([2.0])
    optimizer.train()
    optimizer.apply([keras.ops.ones(1)], [weight])
    assert weight.numpy().tolist() == [1.5]  # from 2.5


def test_a_step_at_the_average_is_refused():
    optimizer = made("SGD", {"learning_rate": 1.0, "momentum": 0.5}, {})
    weight, gradient = keras.Variable([4.0]), keras.ops.ones(1)
    optimizer.apply([gradient], [weight])
    optimizer.eval()
    with pytest.raises(ValueError, match=r"got weights at the average x. Call train\(\)"):
        optimizer.apply([gradient], [weight])
    optimizer.train()
    optimizer.apply([gradient], [weight])
    assert weight.numpy().tolist() == [2.25]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a loop with tf.function")
@pytest.mark.parametrize("inner", ["SGD", "Adam"])
def test_the_first_step_of_a_compiled_loop_may_build_the_optimizer(inner):
    import tensorflow as tf

    arguments = {"learning_rate": 0.1} | ({"momentum": 0.5} if inner == "SGD" else {})

    def trained(compiled):
        optimizer, weight = made(inner, arguments, {}), keras.Variable([4.0])

        def step():
            with tf.GradientTape() as tape:
                loss = weight.value**2
            optimizer.apply([tape.gradient(loss, weight.value)], [weight])

        run = compiled(step)
        for _ in range(3):
            run()
        optimizer.eval()
        return weight.numpy()

    ends = [trained(tf.function), trained(lambda step: step)]
    np.testing.assert_allclose(*ends, rtol=1e-6, atol=0)
    assert 0 < ends[0][0] < 4


def test_a_step_at_the_average_is_refused_after_loading(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(made("SGD", {"learning_rate": 0.1, "momentum": 0.5}, {}), "mse")
    model.fit(np.ones((4, 1)), np.ones(4), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="got weights at the average x"):
        loaded.optimizer.apply([keras.ops.ones((1, 1))], loaded.trainable_variables)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_rows_that_a_batch_repeats_are_summed(kind):
    """The gradient of an embedding on TensorFlow is a list of rows; elsewhere it is dense."""
    table, ids = np.arange(8, dtype="float32").reshape(4, 2) / 8, np.array([[1, 1, 2]])
    embedding = keras.layers.Embedding(4, 2)
    model = keras.Sequential([keras.Input((3,), dtype="int32"), embedding])
    embedding.set_weights([table])
    options = {"learning_rate": 0.125, "momentum" if kind == "SGD" else "beta_1": 0.5}
    model.compile(made(kind, options, {}), "mse")
    model.fit(ids, np.zeros((1, 3, 2), "float32"), verbose=0)
    gradient = np.zeros_like(table)
    np.add.at(gradient, ids[0], 2 * table[ids[0]] / 6)
    after = table - 0.125 * (gradient if kind == "SGD" else np.sign(gradient))
    np.testing.assert_allclose(embedding.get_weights()[0], after, rtol=1e-5)


def test_gradient_accumulation_makes_the_updates_of_the_mean_gradients():
    options = {"learning_rate": 0.1, "momentum": 0.9}
    pair = [
        made("SGD", {**options, "gradient_accumulation_steps": 2}, {"warmup_steps": 3}),
        made("SGD", options, {"warmup_steps": 3}),
    ]
    ours, other = keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])
    for update in range(6):
        gradient = np.array([1.0, -2.0], "float32") * (update + 1)
        for share in (0.5, 1.5):
            pair[0].apply([keras.ops.convert_to_tensor(share * gradient)], [ours])
        pair[1].apply([keras.ops.convert_to_tensor(gradient)], [other])
    for optimizer in pair:
        optimizer.eval()
    np.testing.assert_allclose(ours.numpy(), other.numpy(), rtol=1e-6)


def test_no_more_memory_than_the_given_optimizer():
    weight = keras.Variable(np.ones((50, 50), "float32"))
    sizes = []
    for optimizer in (keras.optimizers.Adam(), ScheduleFree(keras.optimizers.Adam())):
        optimizer.build([weight])
        sizes.append(sum(int(np.prod(each.shape)) for each in optimizer.variables))
    assert sizes[1] - sizes[0] == 3  # three scalars


@pytest.mark.once
@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ScheduleFree("adam"), TypeError, "needs a Keras optimizer; got 'adam'"),
        (lambda: ScheduleFree(keras.optimizers.SGD(0.1)), ValueError, r"in \(0, 1\); got 0.0"),
        (lambda: ScheduleFree(keras.optimizers.Lion()), ValueError, "got Lion"),
        (
            lambda: ScheduleFree(AdaptiveGains(keras.optimizers.Adam())),
            ValueError,
            "got AdaptiveGains",
        ),
        (
            lambda: ScheduleFree(LayerwiseLR(keras.optimizers.Lion())),
            ValueError,
            "got Lion",
        ),
        (
            lambda: ScheduleFree(
                LayerwiseLR(
                    keras.optimizers.Adam(),
                    {"a": keras.optimizers.schedules.CosineDecay(0.1, 9)},
                )
            ),
            ValueError,
            "multipliers that are numbers; got .* for 'a'",
        ),
        (
            lambda: ScheduleFree(ScheduleFree(keras.optimizers.Adam())),
            ValueError,
            "cannot wrap another ScheduleFree",
        ),
        (
            lambda: ScheduleFree(
                keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 9))
            ),
            ValueError,
            "needs a number as the learning rate; got CosineDecay",
        ),
        (
            lambda: ScheduleFree(keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)),
            ValueError,
            "nesterov=True",
        ),
        (lambda: ScheduleFree(keras.optimizers.Adam(amsgrad=True)), ValueError, "amsgrad=True"),
        (lambda: ScheduleFree(keras.optimizers.Adam(use_ema=True)), ValueError, "use_ema=True"),
        (
            lambda: ScheduleFree(keras.optimizers.Adam(), warmup_steps=-1),
            ValueError,
            "warmup_steps must be an integer of at least 0; got -1",
        ),
        (lambda: ScheduleFree(keras.optimizers.Adam(), r=-1), ValueError, "r must be at least 0"),
        (
            lambda: ScheduleFree(keras.optimizers.Adam(), weight_lr_power="2"),
            TypeError,
            "weight_lr_power must be a finite number",
        ),
    ],
)
def test_bad_input_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.once
@pytest.mark.parametrize("wrapper", [AdaptiveGains, Hypergradient, LayerwiseLR])
def test_other_wrappers_do_not_wrap_it(wrapper):
    with pytest.raises(ValueError, match=rf"{wrapper.__name__} cannot wrap ScheduleFree\[Adam"):
        wrapper(ScheduleFree(keras.optimizers.Adam()))


@pytest.mark.once
def test_a_logger_of_rates_reads_the_rate():
    x, y = np.ones((8, 2)), np.ones((8, 1))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(ScheduleFree(keras.optimizers.Adam(0.25)), "mse")
    logger = keras_lr.LRLogger()
    model.fit(x, y, batch_size=4, callbacks=[logger], verbose=0)
    assert logger.history["learning_rate"] == [0.25, 0.25]


@pytest.mark.once
@pytest.mark.once
def test_a_rectification_without_a_meaning_is_refused():
    inner = keras.optimizers
    with pytest.raises(ValueError, match="got rectify=True and warmup_steps=4. Use one"):
        ScheduleFree(inner.Adam(0.1), warmup_steps=4, rectify=True)
    with pytest.raises(ValueError, match="rectify needs Adam or AdamW"):
        ScheduleFree(inner.SGD(0.1, momentum=0.9), rectify=True)
    with pytest.raises(ValueError, match=r"beta_2 with rectify must be in \(0.6, 1\); got 0.6"):
        ScheduleFree(inner.Adam(0.1, beta_2=0.6), rectify=True)
    with pytest.raises(TypeError, match="rectify must be True or False; got 1"):
        ScheduleFree(inner.Adam(0.1), rectify=1)


@pytest.mark.once
def test_the_rectification_keeps_its_digits_in_float32():
    updates = np.arange(1, 20001)
    for beta_2 in (0.999, 0.9999, 0.97, 0.9):
        ours = rectification(keras.ops.convert_to_tensor(updates, "float32"), beta_2)
        theirs = [rectified(int(t), beta_2) for t in updates]
        # rho_t - 4 is small at the fifth update of 0.9.
        np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), theirs, rtol=2e-6)


def test_a_constraint_and_a_trained_optimizer_are_refused():
    inner, weight = keras.optimizers.Adam(), keras.Variable([1.0])
    inner.apply([keras.ops.ones(1)], [weight])
    with pytest.raises(ValueError, match="has not trained yet; got one after 1 batches"):
        ScheduleFree(inner)
    weight.constraint = keras.constraints.NonNeg()
    with pytest.raises(ValueError, match="variables without a constraint"):
        ScheduleFree(keras.optimizers.Adam()).build([weight])


@pytest.mark.once
def test_a_callback_that_steers_the_rate_is_refused():
    x, y = data()
    model = classifier(ScheduleFree(keras.optimizers.Adam()))
    message = r"rate of ScheduleFree\[Adam\]; got OneCycle\. .* pass warmup_steps"
    with pytest.raises(ValueError, match=message):
        callbacks = [keras_lr.LRLogger(), keras_lr.OneCycle(0.1, cycle_momentum=False)]
        model.fit(x, y, callbacks=callbacks, verbose=0)


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_multipliers_multiply_the_rate_of_a_variable(kind):
    """Each variable as in a run of its own at its own rate; 0 leaves the weights unchanged."""
    rate, factors = 2**-6, [2.0, 0.25, 0.0]
    options = {"momentum": 0.9} if kind == "SGD" else {"weight_decay": 0.1}

    def inner(rate):
        return getattr(keras.optimizers, kind)(rate, **options)

    names = ["first", "second", "frozen"]
    weights = [keras.Variable(np.ones((2, 3), "float32"), name=name) for name in names]
    layered = LayerwiseLR(inner(rate), dict(zip(names, factors, strict=True)))
    ours = ScheduleFree(layered, warmup_steps=5)
    alone = [keras.Variable(np.ones((2, 3), "float32")) for _ in names[:2]]
    others = [ScheduleFree(inner(rate * each), warmup_steps=5) for each in factors[:2]]
    for update in range(20):
        grads = [np.random.default_rng([update, i]).normal(size=(2, 3)) for i in range(3)]
        grads[2] *= np.inf
        tensors = [keras.ops.convert_to_tensor(each, "float32") for each in grads]
        ours.apply(tensors, weights)
        for gradient, weight, optimizer in zip(tensors, alone, others, strict=False):
            optimizer.apply([gradient], [weight])
    for point in ("train", "eval"):
        for optimizer in (ours, *others):
            getattr(optimizer, point)()
        for weight, other in zip(weights, alone, strict=False):
            np.testing.assert_allclose(weight.numpy(), other.numpy(), rtol=1e-5)
        assert (weights[2].numpy() == 1.0).all()


@pytest.mark.once
def test_a_model_with_multipliers_inside_is_saved_with_them(tmp_path):
    x, y = data()
    layered = LayerwiseLR(keras.optimizers.Adam(0.01), {"dense.*": 0.5})
    model = classifier(ScheduleFree(layered), dropout=0.0)
    model.fit(x, y, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(x, y, shuffle=False, verbose=0)
    assert same(values(model.variables), values(loaded.variables))
    assert loaded.optimizer.multipliers == {"dense.*": 0.5}


@pytest.mark.once
def test_multipliers_that_change_are_refused():
    optimizer, weight = ScheduleFree(LayerwiseLR(keras.optimizers.Adam())), keras.Variable([1.0])
    optimizer.build([weight])
    with pytest.raises(ValueError, match="multipliers that stay the same"):
        optimizer.gate({0: None})
    with pytest.raises(ValueError, match="multipliers that are numbers"):
        optimizer.multipliers = {".*": keras.optimizers.schedules.CosineDecay(1.0, 9)}


@pytest.mark.once
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_variables_of_low_precision_are_refused_and_mixed_precision_trains(dtype):
    with pytest.raises(ValueError, match=f"got {dtype} for 'weak'. Train with the policy 'mixed_"):
        optimizer = ScheduleFree(keras.optimizers.Adam())
        optimizer.build([keras.Variable([1.0], dtype=dtype, name="weak")])
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        model = classifier(ScheduleFree(keras.optimizers.Adam(0.01)))
    finally:
        keras.config.set_dtype_policy("float32")
    losses = model.fit(*data(), epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
