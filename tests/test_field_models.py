"""Field models through everything: what `fit` trains is handled, or refused in a sentence."""

import functools
import inspect
import traceback
from pathlib import Path

import keras
import numpy as np
import pytest
from field_models import MODELS
from field_models.reinforcement import play
from keras import ops
from models import same, sampled, values

import keras_lr
from keras_lr.optimizers import LayerwiseLR
from keras_lr.steering import innermost_optimizers, model_optimizers

BACKEND = keras.backend.backend()
HERE = [name for name, entry in MODELS.items() if BACKEND in entry.backends]
ELSEWHERE = [name for name in MODELS if name not in HERE]
SEVERAL = [name for name in HERE if MODELS[name].choose]
LIBRARY = Path(inspect.getfile(keras_lr)).parent
MAX_LR = 0.02

pytestmark = [
    # KerasHub makes a data set of the arrays, and passes Keras's own default on.
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*was called on layer.*unbuilt state:UserWarning"),
]
WHY = "the models that train in a way of their own show what the backends do differently"
each_model = pytest.mark.parametrize(
    "name", sampled(HERE, "gan", "q_network", "stateful", "accumulating", "mixed_float16", why=WHY)
)

refusal = pytest.mark.long_elsewhere(
    "refusals follow from the object graph, before a backend trains"
)


def made(name, wrap=lambda optimizer: optimizer):
    keras.utils.set_random_seed(0)
    return MODELS[name].make(wrap)


def fit(name, model, *callbacks, epochs=2, **options):
    entry = MODELS[name]
    x, y = entry.data()
    options = {"batch_size": entry.batch_size, **entry.fit_options, **options}
    return model.fit(x, y, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


def find(name, model, **options):
    entry = MODELS[name]
    x, y = entry.data()
    options = {"steps": 12, "start_lr": 1e-5, "end_lr": 1e-1, "verbose": 0, **options}
    return keras_lr.lr_find(
        model, x, y, batch_size=entry.batch_size, **entry.fit_options, **options
    )


def choice(name):
    """The argument that says which optimizer, where it has to be said."""
    entry = MODELS[name]
    return {"optimizer": entry.optimizer} if entry.choose else {}


def optimizers(name, model):
    """The optimizers that train: the one to steer first."""
    entry, held = MODELS[name], model_optimizers(model)
    return [innermost_optimizers(held[each])[0] for each in (entry.optimizer, *entry.others)]


def state(model):
    """Everything that training changes: weights, and the variables of all optimizers."""
    held = [v for optimizer in model_optimizers(model).values() for v in optimizer.variables]
    return values([*model.variables, *held])


def spied(name, model):
    """The model, whose logs also have `rate_0`, `rate_1`: what each optimizer's update was given.

    An update inside a conditional leaves it in a variable, 0 where there was none; on JAX such a
    variable does not leave the step, and the logs have no rate.
    """
    inside = MODELS[name].inside
    seen = {}
    kept = keras.Variable(0.0, trainable=False, name="kept") if inside else None
    for index, optimizer in enumerate(optimizers(name, model)):

        def update(gradients, variables, rate, index=index, inner=optimizer._backend_update_step):
            if inside:
                kept.assign(ops.convert_to_tensor(rate, "float32"))
            else:
                seen[f"rate_{index}"] = ops.convert_to_tensor(rate, "float32") * 1.0  # a copy
            return inner(gradients, variables, rate)

        if not (inside and BACKEND == "jax"):
            object.__setattr__(optimizer, "_backend_update_step", update)
    kind = type(model)

    def train_step(self, *arguments):
        seen.clear()
        if inside and BACKEND != "jax":
            kept.assign(0.0)
        result = kind.train_step(self, *arguments)
        if inside and BACKEND != "jax":
            seen["rate_0"] = ops.convert_to_tensor(kept) * 1.0
        (result[0] if BACKEND == "jax" else result).update(seen)
        return result

    object.__setattr__(model, "__class__", type(kind.__name__, (kind,), {"train_step": train_step}))
    return model


class Recorder(keras.callbacks.Callback):
    """The rates of every batch, from the logs of a spied model."""

    def on_train_begin(self, logs=None):
        self.rates = {}

    def on_train_batch_end(self, batch, logs=None):
        for key, rate in logs.items():
            if key.startswith("rate_"):
                self.rates.setdefault(key, []).append(float(rate))


@functools.cache
def twin(name):
    """The model after a fit, and the logs of the fit, without anything of ours."""
    model = spied(name, made(name))
    before = values(model.trainable_variables)
    history = fit(name, model).history
    return before, values(model.trainable_variables), state(model), history


def clocks(name, batches):
    """What may count as a step: an update, or a batch where a step makes several or none.

    Returns pairs: the count that each batch ends with, from 0; and how many there are.
    """
    each = MODELS[name].updates
    ends = np.ceil(np.arange(1, batches + 1) * each - 1)
    by_update = ends, int(batches * each)
    if each == 1 or MODELS[name].accumulates:
        return [by_update]
    return [by_update, (np.arange(batches), batches)]


def check_rates(got, candidates, updates=1):
    """Equal to one of the curves that are right: a value for each batch, or for each update."""
    if updates < 1 and len(got) == len(candidates[0]) * updates:
        every = round(1 / updates)
        candidates = [each[every - 1 :: every] for each in candidates]
    assert len(got) == len(candidates[0])
    if updates < 1 or 0 in got:
        made = np.array(got) != 0  # a spied model logs 0 where there was no update
        got, candidates = np.array(got)[made], [each[made] for each in candidates]
        assert len(got)
    if not any(np.allclose(got, each, rtol=1e-4, atol=1e-12) for each in candidates):
        np.testing.assert_allclose(got, candidates[0], rtol=1e-4, atol=1e-12)


def batches_of(name, epochs):
    entry = MODELS[name]
    rows = len(keras.tree.flatten(entry.data())[0])
    return epochs * -(-rows // entry.batch_size)


def one_cycle(step, total, peak_share=0.3):
    """Smith's cycle with cosines, as torch's OneCycleLR has it."""
    first, last = MAX_LR / 25.0, MAX_LR / 25.0 / 1e4
    peak, end = peak_share * total - 1.0, total - 1.0
    rise = np.clip(step / peak, 0, 1)
    fall = np.clip((step - peak) / (end - peak), 0, 1)
    up = first + (MAX_LR - first) * (1 - np.cos(np.pi * rise)) / 2
    down = last + (MAX_LR - last) * (1 + np.cos(np.pi * fall)) / 2
    return np.where(step < peak, up, down)


def refused(call):
    """Check that an error is one of ours: a sentence that was raised on purpose.

    Returns its text, or None if nothing was raised.
    """
    try:
        call()
    except (ValueError, TypeError) as error:
        place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        assert LIBRARY in place.parents, f"raised in {place}: {error!r}"
        text = str(error)
        assert text[0].isalnum() and text.endswith("."), text
        return text
    return None


@pytest.mark.parametrize("name", ELSEWHERE)
def test_fit_itself_cannot_train_the_models_that_name_other_backends(name):
    assert MODELS[name].why_not
    with pytest.raises(TypeError):
        fit(name, made(name))


@each_model
def test_fit_trains_the_model(name):
    before, after, _, history = twin(name)
    pairs = zip(before, after, strict=False)  # some weights are made by the first step
    assert len(after) > len(before) or any((old != new).any() for old, new in pairs)
    assert np.all(np.isfinite(history[MODELS[name].monitor]))


@each_model
def test_a_range_test_uses_its_rates_and_the_fit_after_it_is_that_of_a_twin(name):
    entry = MODELS[name]
    model = spied(name, made(name))
    test = find(name, model, **choice(name), **monitor(name))
    assert len(test.losses) >= 6 and np.all(np.isfinite(test.losses[:6]))
    ramp = np.geomspace(1e-5, 1e-1, 12)[: len(test.losses)]
    np.testing.assert_allclose(test.learning_rates, ramp, rtol=1e-5, atol=0)
    if "rate_0" in test.metrics:
        np.testing.assert_allclose(test.metrics["rate_0"], used(entry, ramp), rtol=1e-5, atol=0)
    for index, other in enumerate(optimizers(name, model)[1:], 1):
        rates = test.metrics[f"rate_{index}"]
        np.testing.assert_allclose(rates, float(other.learning_rate), rtol=1e-5, atol=0)
    fit(name, model)
    assert same(state(model), twin(name)[2])


def used(entry, ramp):
    """What a spied model logs: a mean over the batches of an update, 0 for those without one."""
    return ramp * min(entry.updates, 1)


def monitor(name):
    named = MODELS[name].monitor
    return {} if named == "loss" else {"monitor": named}


@pytest.mark.parametrize("name", SEVERAL)
@refusal
def test_what_does_not_say_which_optimizer_is_refused_and_leaves_nothing_behind(name):
    entry = MODELS[name]
    model = spied(name, made(name))
    x, y = entry.data()
    calls = [
        lambda: find(name, model),
        lambda: fit(name, model, keras_lr.OneCycle(MAX_LR, cycle_momentum=False)),
        lambda: fit(name, model, keras_lr.LRLogger()),
        lambda: keras_lr.search(model, x, y, low=1e-3, high=0.1, epochs=1, verbose=0),
    ]
    for call in calls:
        text = refused(call)
        assert text is not None
        assert all(each in text for each in (entry.optimizer, *entry.others)), text
    fit(name, model)
    assert same(state(model), twin(name)[2])


@pytest.mark.parametrize("name", SEVERAL)
@refusal
def test_an_optimizer_that_trains_nothing_is_refused_and_leaves_nothing_behind(name):
    model = spied(name, made(name))
    named = {"optimizer": "optimizer", **monitor(name)}
    assert refused(lambda: find(name, model, **named)) is not None
    fit(name, model)
    assert same(state(model), twin(name)[2])
    cycle = keras_lr.OneCycle(MAX_LR, cycle_momentum=False, optimizer="optimizer")
    assert refused(lambda: fit(name, model, cycle)) is not None


@pytest.mark.parametrize("name", [name for name in HERE if MODELS[name].monitor != "loss"])
@refusal
def test_a_log_that_does_not_exist_is_refused_with_those_that_do(name):
    model = spied(name, made(name))
    text = refused(lambda: find(name, model, monitor="los", **choice(name)))
    assert text is not None and MODELS[name].monitor in text
    fit(name, model)
    assert same(state(model), twin(name)[2])


@each_model
def test_callbacks_steer_the_optimizer_that_they_name_and_give_it_back(name, tmp_path):
    entry = MODELS[name]
    model = spied(name, made(name))
    kind = model.__class__
    steered, *others = optimizers(name, model)
    own, own_rate = steered._learning_rate, float(steered.learning_rate)
    momenta = {
        each: vars(steered)[each] for each in ("momentum", "beta_1") if each in vars(steered)
    }
    recorder, logger = Recorder(), keras_lr.LRLogger(**choice(name))
    cycle = keras_lr.OneCycle(MAX_LR, cycle_momentum=entry.momentum, **choice(name))
    fit(name, model, cycle, logger, recorder)
    expected = [one_cycle(*clock) for clock in clocks(name, batches_of(name, 2))]
    if "rate_0" in recorder.rates:
        check_rates(recorder.rates["rate_0"], expected)
    check_rates(logger.history["learning_rate"], expected, entry.updates)
    for index, other in enumerate(others, 1):
        rates = recorder.rates[f"rate_{index}"]
        np.testing.assert_allclose(rates, float(other.learning_rate), rtol=1e-5, atol=0)
    assert steered._learning_rate is own and float(own) == own_rate
    assert momenta == {each: vars(steered)[each] for each in momenta}
    assert "get_config" not in vars(steered)

    plateau = keras_lr.ReduceLROnPlateau(
        entry.monitor, factor=0.5, patience=1, min_delta=100.0, mode="min", **choice(name)
    )
    warm_up = keras_lr.WarmUp(steps=3, **choice(name))
    fit(name, model, warm_up, plateau, recorder, epochs=3)
    scale = own_rate * np.repeat([1.0, 1.0, 0.5], batches_of(name, 1))
    each = clocks(name, batches_of(name, 3))
    if "rate_0" in recorder.rates:
        expected = [np.clip(ends / 3, 0.0, 1.0) * scale for ends, _ in each]
        check_rates(recorder.rates["rate_0"], expected)
    assert steered._learning_rate is own
    assert float(own) == pytest.approx(own_rate / 4, rel=1e-5)  # and once more at the end

    if entry.saved:
        for optimizer in optimizers(name, model):
            vars(optimizer).pop("_backend_update_step", None)
        object.__setattr__(model, "__class__", kind.__bases__[0])
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert same(values(loaded.weights), values(model.weights))
        assert same(values(loaded.optimizer.variables), values(model.optimizer.variables))


@each_model
@pytest.mark.long_elsewhere(
    "two trainings compiled for one factor; test_layerwise.py has it on each backend"
)
def test_half_the_rate_by_a_multiplier_is_half_the_rate(name):
    def wrap(optimizer):
        optimizer.learning_rate = float(optimizer.learning_rate) * 2
        return LayerwiseLR(optimizer, {".*": 0.5})

    model = made(name, wrap)
    fit(name, model)
    got, expected = values(model.trainable_variables), twin(name)[1]
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.once
@pytest.mark.parametrize(
    "name",
    sampled(
        HERE,
        *("gan", "distillation", "seq2seq", "tabular"),
        why="a search takes seconds; what it does with a model is Keras's own fit",
        mark="long",
    ),
)
def test_a_search_answers_or_refuses_in_a_sentence(name):
    entry = MODELS[name]
    model = made(name)
    x, y = entry.data()
    options = {"epochs": 1, "fine_rounds": 1, "points": 3, "final_seeds": 1, "verbose": 0}
    found = []

    def search():
        found.append(
            keras_lr.search(
                model,
                x,
                y,
                batch_size=entry.batch_size,
                low=1e-3,
                high=1e-1,
                objective=f"val_{entry.monitor}",
                mode="min",
                **options,
                **entry.fit_options,
            )
        )

    text = refused(search)
    if entry.validates and not entry.choose:
        assert text is None, text
        assert found[0].low <= found[0].learning_rate <= found[0].high
    else:
        assert text is not None


def test_callbacks_work_when_an_agent_drives_them_by_hand():
    name = "q_network"
    model = spied(name, made(name))
    logger, recorder = keras_lr.LRLogger(), Recorder()
    play(model, [keras_lr.OneCycle(MAX_LR), logger, recorder], epochs=2, batch_size=8)
    expected = one_cycle(np.arange(10), 10)
    np.testing.assert_allclose(recorder.rates["rate_0"], expected, rtol=1e-4, atol=0)
    np.testing.assert_allclose(logger.history["learning_rate"], expected, rtol=1e-4, atol=0)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)
