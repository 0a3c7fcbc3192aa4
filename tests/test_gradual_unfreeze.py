"""`GradualUnfreeze`: what is frozen stays, and what thaws trains as if it had been alone."""

import keras
import numpy as np
import pytest
from models import data, same, sampled, values

import keras_lr
from keras_lr.optimizers import LayerwiseLR

elsewhere = pytest.mark.long_elsewhere("each thaw compiles the step again: seconds")

GROUPS = ["head", ["block2", "norm2"], "block1"]


def network(optimizer=None):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    body = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, name="block1"),
            layers.Dense(4, name="block2"),
            layers.BatchNormalization(name="norm2"),
        ],
        name="body",
    )
    model = keras.Sequential(
        [keras.Input((6,)), body, layers.Dense(3, activation="softmax", name="head")]
    )
    model.compile(optimizer or keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def parts(model):
    """Weights that train and statistics, by the name of the layer."""
    result = {}
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if layer._trainable_variables:
            result[layer.name] = values(layer.trainable_variables)
            if layer.non_trainable_variables:
                result[f"{layer.name} statistics"] = values(layer.non_trainable_variables)
    return result


class Record(keras.callbacks.Callback):
    """What has changed in each epoch; reading `self.model` synchronises JAX's state."""

    def on_train_begin(self, logs=None):
        self.changes, self.before = [], parts(self.model)

    def on_epoch_end(self, epoch, logs=None):
        now = parts(self.model)
        self.changes.append({name for name in now if not same(now[name], self.before[name])})
        self.before = now


def fit(model, epochs=4, **options):
    x, y = data()
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, **options}
    return model.fit(x, y, epochs=epochs, **options)


FIRST = {"head"}
SECOND = FIRST | {"block2", "norm2", "norm2 statistics"}
ALL = SECOND | {"block1"}
OPTIMIZERS = {
    "Adam": lambda: keras.optimizers.Adam(0.01),
    "SGD": lambda: keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=0.1),
    "layer-wise": lambda: LayerwiseLR(keras.optimizers.AdamW(0.01), {"head": 0.5}),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), 8.0),
}
STACKS = {
    "alone": lambda: [],
    "one cycle": lambda: [keras_lr.OneCycle(0.02, cycle_momentum=False), keras_lr.LRLogger()],
    "plateau": lambda: [keras_lr.WarmUp(3), keras_lr.ReduceLROnPlateau("loss", 0.5, 1)],
}


@pytest.mark.parametrize(
    "make", sampled(OPTIMIZERS, "Adam", why="every optimizer is compiled again at a thaw")
)
def test_a_group_thaws_at_its_epoch_with_its_statistics(make):
    model, record = network(make()), Record()
    optimizer = model.optimizer
    for _ in range(2):
        fit(model, callbacks=[keras_lr.GradualUnfreeze(GROUPS), record])
        assert record.changes == [FIRST, SECOND, ALL, ALL]
    assert model.optimizer is optimizer
    fit(model, 1, callbacks=[record])
    assert record.changes == [ALL]


@pytest.mark.parametrize("stack", sampled(STACKS, "one cycle", why="the rates are composed alike"))
def test_it_goes_with_callbacks_that_steer_the_rate(stack):
    model, record = network(), Record()
    fit(model, callbacks=[*stack(), keras_lr.GradualUnfreeze(GROUPS), record])
    assert record.changes == [FIRST, SECOND, ALL, ALL]


def test_it_prints_what_it_unfreezes(capsys):
    fit(network(), 3, callbacks=[keras_lr.GradualUnfreeze(GROUPS, verbose=1)])
    lines = [line for line in capsys.readouterr().out.splitlines() if "unfreezes" in line]
    assert [line.partition(":")[0] for line in lines] == ["Epoch 2", "Epoch 3"]
    assert "GradualUnfreeze unfreezes block2" in lines[0]


class Normalization(keras.layers.BatchNormalization):
    def call(self, inputs, training=None):  # without the mask
        return super().call(inputs, training)


class Always(keras.layers.BatchNormalization):
    def call(self, inputs):
        return super().call(inputs, True)


def normalized(layer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layer, keras.layers.Dense(1, name="head")])
    model.compile("sgd", "mse")
    return model


def fit_statistics(model):
    """The statistics after an epoch in which only the head trains."""
    x, y = data()
    thaw = keras_lr.GradualUnfreeze(["head", "norm"])
    model.fit(x, y, epochs=2, initial_epoch=0, batch_size=16, verbose=0, callbacks=[thaw, Stops()])
    return values(model.get_layer("norm").non_trainable_variables)


class Stops(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def test_a_call_of_the_programs_own_is_frozen_and_stays():
    before = [np.zeros(6, "float32"), np.ones(6, "float32")]
    assert same(fit_statistics(normalized(Normalization(name="norm"))), before)

    layer, calls = keras.layers.BatchNormalization(name="norm"), []
    model, original = normalized(layer), layer.call

    def own(inputs, training=None, mask=None):
        calls.append(training)
        return original(inputs, training=training, mask=mask)

    object.__setattr__(layer, "call", own)
    assert same(fit_statistics(model), before)
    assert layer.call is own and set(calls) == {False}


def test_a_call_without_training_is_refused():
    model = normalized(Always(name="norm"))
    with pytest.raises(ValueError, match="statistics of 'norm' cannot be frozen, .* no argument"):
        fit_statistics(model)
    assert "call" not in vars(model.get_layer("norm"))


@elsewhere
def test_several_epochs_for_each_group():
    model, record = network(), Record()
    thaw = keras_lr.GradualUnfreeze(GROUPS, epochs_per_group=2)
    fit(model, 5, callbacks=[thaw, record])
    assert record.changes == [FIRST, FIRST, SECOND, SECOND, ALL]


@elsewhere
def test_an_epoch_of_fewer_updates_than_batches():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model, record = network(optimizer), Record()
    fit(model, 3, callbacks=[keras_lr.GradualUnfreeze(GROUPS), record])
    assert record.changes == [FIRST, SECOND, ALL]


@elsewhere
def test_statistics_move_on_where_that_is_asked_for():
    model, record = network(), Record()
    fit(model, 3, callbacks=[keras_lr.GradualUnfreeze(GROUPS, statistics=False), record])
    assert record.changes[0] == {"head", "norm2 statistics"}


def test_the_frozen_phase_is_that_of_layers_that_are_not_trainable():
    """Keras's own way, without the state of the optimizer: `trainable = False` and `compile`."""
    ours, twin = network(keras.optimizers.SGD(0.1)), network()
    for name in ("block1", "block2", "norm2"):
        twin.layers[0].get_layer(name).trainable = False
    twin.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    thaw = keras_lr.GradualUnfreeze(GROUPS, 3)
    with pytest.warns(UserWarning, match="should be unfrozen before the training ends"):
        history = fit(ours, 3, callbacks=[thaw]).history
    expected = fit(twin, 3).history
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
    for got, theirs in zip(ours.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(got, theirs, rtol=1e-4, atol=1e-6)


@elsewhere
def test_adams_averages_are_ready_when_weights_thaw():
    model = network()
    fit(model, 4, callbacks=[keras_lr.GradualUnfreeze(["head", "body/block.*|block.*|norm2"], 2)])
    kernels = [v for v in model.optimizer.variables if "block1_kernel" in v.path]
    assert kernels and all(np.abs(values([kernel])[0]).max() > 0 for kernel in kernels)
    assert int(model.optimizer.iterations) == 24
    kept = len(model.optimizer.variables)
    fit(model, 1)  # goes on with those averages, and makes none of its own
    assert len(model.optimizer.variables) == kept


@pytest.mark.parametrize("done", [2, 3])
@elsewhere
def test_a_run_that_goes_on_has_thawed_what_it_had(done):
    whole, first = network(), network()
    fit(whole, 5, callbacks=[keras_lr.GradualUnfreeze(GROUPS)])
    thaw = keras_lr.GradualUnfreeze(GROUPS)
    if done == 2:
        with pytest.warns(UserWarning, match="should be unfrozen"):
            fit(first, done, callbacks=[thaw])
    else:
        fit(first, done, callbacks=[thaw])
    record = Record()
    again = keras_lr.GradualUnfreeze(GROUPS)
    fit(first, 5, initial_epoch=done, callbacks=[again, record])
    assert record.changes == [ALL] * (5 - done)
    for got, expected in zip(first.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [OPTIMIZERS["Adam"], OPTIMIZERS["layer-wise"]])
def test_an_interrupted_fit_leaves_the_model_as_it_was_compiled(make):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    model = network(make())
    optimizer = model.optimizer
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[keras_lr.GradualUnfreeze(GROUPS), Stop()])
    record = Record()
    fit(model, 1, batch_size=96, callbacks=[keras_lr.LRLogger(), record])
    assert model.optimizer is optimizer
    assert record.changes == [ALL]


@elsewhere
def test_a_model_saved_on_the_way_loads_and_trains_whole(tmp_path):
    model = network()
    save = keras.callbacks.ModelCheckpoint(str(tmp_path / "model-{epoch}.keras"))
    fit(model, 3, callbacks=[keras_lr.GradualUnfreeze(GROUPS), save])
    loaded, record = keras.saving.load_model(tmp_path / "model-1.keras"), Record()
    fit(loaded, 1, callbacks=[record])
    assert record.changes == [ALL]


def batches():
    x, y = data()
    while True:
        yield x[:16], y[:16]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["head", "nobody"], "No trainable variable matches 'nobody'"),
        (["body|block.*|norm2", "block1"], "got groups 0 and 1 for .*block1"),
    ],
)
def test_bad_groups_are_known_when_training_begins(groups, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        fit(model, callbacks=[keras_lr.GradualUnfreeze(groups)])
    assert type(model.optimizer) is type(network().optimizer)


def test_data_of_unknown_length_are_refused():
    with pytest.raises(ValueError, match="length of an epoch.*steps_per_epoch"):
        thaw = keras_lr.GradualUnfreeze(GROUPS)
        network().fit(batches(), epochs=3, shuffle=False, callbacks=[thaw], verbose=0)


def test_attributes_that_a_program_sets_during_the_fit_stay():
    class SetDecay(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.weight_decay = 0.25

    model = network(keras.optimizers.AdamW(0.01))
    optimizer = model.optimizer
    stack = [SetDecay(), keras_lr.OneCycle(max_lr=0.02), keras_lr.GradualUnfreeze(GROUPS)]
    model.fit(*data(), epochs=3, verbose=0, callbacks=stack)
    assert model.optimizer is optimizer
    assert (optimizer.weight_decay, optimizer.beta_1) == (0.25, 0.9)  # and the momentum of before
    assert not {"apply", "get_config"} & set(vars(optimizer))
    np.testing.assert_allclose(values([optimizer._learning_rate])[0], 0.01, rtol=1e-5, atol=0)


def test_an_optimizer_with_a_method_put_into_it_is_refused():
    # It calls the plain step, for all weights: what is frozen would train.
    model = network()
    optimizer, plain = model.optimizer, model.optimizer.apply
    optimizer.apply = lambda *arguments: plain(*arguments)
    before = values(model.variables)
    with pytest.raises(ValueError, match="got Adam with apply put into the object"):
        model.fit(*data(), verbose=0, callbacks=[keras_lr.GradualUnfreeze(GROUPS)])
    assert model.optimizer is optimizer and "apply" in vars(optimizer)
    assert same(values(model.variables), before)


def test_an_optimizer_that_multipliers_do_not_suit_is_refused_by_its_name():
    model = network(keras_lr.optimizers.ScheduleFree(keras.optimizers.Adam(0.01)))
    with pytest.raises(ValueError, match="^GradualUnfreeze trains with LayerwiseLR. Layer"):
        model.fit(*data(), verbose=0, callbacks=[keras_lr.GradualUnfreeze(GROUPS)])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("head",), TypeError, "a list of groups"),
        (([],), ValueError, "trains from the start"),
        (([[]],), TypeError, "A group must have"),
        (([3],), TypeError, "A group must be"),
        ((["head"], 0), ValueError, "epochs_per_group must be an integer of at least 1"),
        ((["head"], 1, "yes"), TypeError, "statistics must be True or False"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        keras_lr.GradualUnfreeze(*arguments)
