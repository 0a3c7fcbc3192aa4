"""`ScheduleHyperparameter("rate", layers=...)`: the dropout rate of each step."""

import keras
import numpy as np
import pytest

import keras_lr

BACKEND = keras.backend.backend()
WIDTH, ROWS, STEPS = 512, 8, 4
CURVE = keras_lr.schedules.LinearRampSchedule(0.8, 0.1, 12)


def network(rate=0.5, spatial=False, **options):
    """A model whose metric is the share of ones that dropout keeps."""
    inputs = keras.Input((WIDTH, 4) if spatial else (WIDTH,))
    kind = keras.layers.SpatialDropout1D if spatial else keras.layers.Dropout
    dropped = kind(rate, name="drop", seed=3)(inputs)
    if spatial:
        dropped = keras.layers.Flatten()(dropped)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(dropped))

    both = keras.Model(inputs, [model.output, dropped])
    both.compile(
        keras.optimizers.SGD(1e-6),
        ["mse", None],
        metrics=[None, keras.metrics.MeanMetricWrapper(kept, name="kept")],
        **options,
    )
    return both


def kept(y_true, y_pred):
    return keras.ops.cast(y_pred > 0.0, "float32")


def fit(model, *callbacks, epochs=3, spatial=False, **options):
    shape = (ROWS * STEPS, WIDTH, 4) if spatial else (ROWS * STEPS, WIDTH)
    x = np.ones(shape, "float32")
    y = [np.zeros((len(x), 1), "float32"), np.zeros((len(x), 1), "float32")]
    return model.fit(
        x, y, batch_size=ROWS, epochs=epochs, shuffle=False, verbose=0,
        callbacks=list(callbacks), **options,
    )  # fmt: skip


def schedule(curve=CURVE, layers="drop", **options):
    return keras_lr.ScheduleHyperparameter("rate", curve, layers=layers, **options)


def shares(model, *callbacks, **options):
    """The mean share of each epoch that dropout kept."""
    history = fit(model, *callbacks, **options).history
    (name,) = [key for key in history if key.endswith("kept")]
    return np.array(history[name]), history


@pytest.mark.parametrize(
    "options", [{}, {"jit_compile": True}, {"steps_per_execution": 4}, {"run_eagerly": True}]
)
def test_each_step_drops_at_its_rate(options):
    if BACKEND == "torch" and ("jit_compile" in options or "steps_per_execution" in options):
        pytest.skip("Keras on torch runs one step at a time, and torch.compile is refused")
    model = network(**options)
    seen, history = shares(model, schedule())
    rates = np.linspace(0.8, 0.1, 12)
    # 16384 elements an epoch: the standard error is 0.004.
    np.testing.assert_allclose(seen, 1 - rates.reshape(3, 4).mean(axis=1), atol=0.016)
    np.testing.assert_allclose(history["rate_drop"], rates[3::4], rtol=1e-5)
    layer = model.get_layer("drop")
    assert layer.rate == 0.5 and "get_config" not in vars(layer)
    plain, _ = shares(model)  # the step of the callback does not stay
    np.testing.assert_allclose(plain, 0.5, atol=0.016)
    again, _ = shares(model, schedule(lambda step: 0.2 + 0.0 * keras.ops.cast(step, "float32")))
    np.testing.assert_allclose(again, 0.8, atol=0.016)


def test_rates_of_one_step_and_of_spatial_dropout():
    model = network(spatial=True)
    seen, _ = shares(model, schedule(0.25), spatial=True, epochs=20)
    np.testing.assert_allclose(np.mean(seen), 0.75, atol=0.06)  # 2560 channels
    seen, _ = shares(network(), schedule(lambda step: 0.0))
    np.testing.assert_array_equal(seen, 1.0)


def test_a_model_that_is_saved_meanwhile_has_its_own_rate(tmp_path):
    model = network()
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras", save_freq=2)
    fit(model, schedule(), saving, epochs=1)
    loaded = keras.saving.load_model(next(tmp_path.glob("*.keras")), compile=False)
    assert loaded.get_layer("drop").rate == 0.5


def test_after_an_exception_the_layer_has_its_own_rate():
    class Fails(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = network()
    with pytest.raises(KeyboardInterrupt):
        fit(model, schedule(), Fails())
    assert model.get_layer("drop").rate == 0.5


def test_a_config_of_the_programs_own_is_saved_and_stays():
    model = network()
    layer, seen = model.get_layer("drop"), []

    def own():
        return {**type(layer).get_config(layer), "note": "mine"}

    object.__setattr__(layer, "get_config", own)
    noting = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs=None: seen.append(layer.get_config())
    )
    fit(model, schedule(), noting, epochs=1)
    assert [(config["rate"], config["note"]) for config in seen] == STEPS * [(0.5, "mine")]
    assert layer.get_config is own


def test_what_cannot_be_scheduled_is_refused():
    with pytest.raises(ValueError, match="name must be 'rate', .* got 'seed'"):
        keras_lr.ScheduleHyperparameter("seed", 0.1, layers="drop")
    with pytest.raises(TypeError, match="layers must be a layer, a list of layers or a regular"):
        schedule(layers=3)
    with pytest.raises(ValueError, match=r"regular expression; got '\('"):
        schedule(layers="(")
    with pytest.raises(ValueError, match="schedule must be .* 1.5|schedule must be in"):
        schedule(1.5)
    with pytest.raises(ValueError, match="No layer matches 'nothing'; .* dropout are: drop"):
        fit(network(), schedule(layers="nothing"))
    with pytest.raises(ValueError, match="got Dense 'head'"):
        fit(network(), schedule(layers="head"))
    with pytest.raises(ValueError, match="is not in the model"):
        fit(network(), schedule(layers=keras.layers.Dropout(0.5, name="other")))
    with pytest.raises(ValueError, match="must be above 0 to be scheduled; got 0"):
        fit(network(rate=0), schedule())
    half = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dropout(0.5, dtype="float16")])
    half.compile("sgd", "mse")
    with pytest.raises(ValueError, match="computes in float32; got float16 for 'dropout"):
        half.fit(
            np.ones((8, WIDTH)),
            np.ones((8, WIDTH)),
            verbose=0,
            callbacks=[schedule(0.1, ".*out.*")],
        )
    with pytest.raises(ValueError, match="rate at update .* must be in"):
        fit(network(), schedule(lambda step: 0.5 + step))
    with pytest.raises(ValueError, match="Only one callback of a fit can set the rate of drop"):
        fit(network(), schedule(), schedule())
