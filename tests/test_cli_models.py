"""Models as users have them: saved, not compiled, damaged, hostile, or made by a function."""

import base64
import importlib
import io
import itertools
import json
import marshal
import re
import shutil
import sys
import zipfile

import command_line
import h5py
import keras
import numpy as np
import pytest
from command_line import refused

import keras_lr
from keras_lr._util import terminal
from keras_lr_cli import errors, model_files, models
from keras_lr_cli.errors import BadInput
from keras_lr_cli.logits import gives_logits
from keras_lr_cli.model_files import carried_code, is_endless
from keras_lr_cli.text import labelled, table_text

pytestmark = pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    command_line.write_files(folder)
    return folder


def rewrite(source, target, change):
    """A copy of a .keras file in which `change` had its way with the configuration."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            new.writestr(name, content)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.keras", "does not exist"),
        ("folder.keras", "is a folder"),
        ("empty.keras", "is an empty file"),
        ("text.keras", "damaged or not a .keras file"),
        ("text.h5", "could not be loaded"),
        ("text.txt", "neither with .keras nor with .h5"),
        ("x.weights.h5", "holds weights only"),
        ("zip.keras", "no config.json"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, name, words):
    path = tmp_path / name
    if name == "folder.keras":
        path.mkdir()
    elif name == "zip.keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")
    elif name != "missing.keras":
        path.write_text("" if name == "empty.keras" else "This is text.\n" * 100)
    assert words in refused("find", path, "--data", "nowhere:at_all")


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_model_is_refused(files, tmp_path, ending, share):
    content = (files / f"model.{ending}").read_bytes()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(content[: int(share * len(content))])
    assert str(path) in refused("find", path, "--data", files / "model.npz")


@pytest.mark.parametrize("missing", ["model.weights.h5", "config.json"])
def test_archive_without_a_part_is_refused(files, tmp_path, missing):
    with (
        zipfile.ZipFile(files / "model.keras") as old,
        zipfile.ZipFile(tmp_path / "part.keras", "w") as new,
    ):
        for name in old.namelist():
            if name != missing:
                new.writestr(name, old.read(name))
    refused("find", tmp_path / "part.keras", "--data", files / "model.npz")


def test_layer_larger_than_its_file_is_refused_before_it_is_made(files, tmp_path):
    def change(config):
        config["config"]["layers"][1]["config"]["units"] = 10**9

    rewrite(files / "model.keras", tmp_path / "bomb.keras", change)
    message = refused("find", tmp_path / "bomb.keras", "--data", files / "model.npz")
    assert "1000000000" in message and "more than the file holds" in message


def test_class_that_keras_does_not_know_points_to_a_function(files, tmp_path):
    def change(config):
        layer = config["config"]["layers"][1]
        layer.update(module="mine", class_name="Mine", registered_name="mine>Mine")

    rewrite(files / "model.keras", tmp_path / "own.keras", change)
    message = refused("find", tmp_path / "own.keras", "--data", files / "model.npz")
    assert "module:function" in message and "Mine" in message


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_lambda_runs_only_when_trusted(tmp_path, ending):
    layers = [keras.Input((8,)), keras.layers.Lambda(lambda x: x * 2.0), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    path = tmp_path / f"lambda.{ending}"
    model.save(path)
    with pytest.raises(BadInput, match="--trust"):
        models.load_model(str(path))
    assert models.load_model(str(path), trust=True).count_params() == 9


def _lambda_of_keras_2(layer):
    """As Keras 2 wrote it: the marshalled code, its defaults and its closure in a list."""
    code = marshal.dumps((lambda x: x * 2.0).__code__)
    layer["config"].update(function=[base64.b64encode(code).decode(), None, None])
    layer["config"].update(function_type="lambda", output_shape=None)


def _lambda_inside_another_layer(layer):
    inner = {"class_name": "Lambda", "config": json.loads(json.dumps(layer["config"]))}
    layer.update(class_name="TimeDistributed", config={"name": "t", "layer": inner})


def _wrapped_torch_module(layer):
    layer.update(
        class_name="TorchModuleWrapper", config={"name": "t", "module": {"class_name": ""}}
    )


@pytest.mark.once
@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize(
    "change",
    [lambda layer: None, _lambda_of_keras_2, _lambda_inside_another_layer, _wrapped_torch_module],
)
def test_code_in_a_file_is_found_whether_or_not_keras_would_refuse_it(
    tmp_path, ending, change, monkeypatch
):
    """Keras 3.11.2 and older load the Lambda of an `.h5` file in their safe mode too."""
    layers = [keras.Input((8,)), keras.layers.Lambda(lambda x: x * 2.0), keras.layers.Dense(1)]
    saved, path = tmp_path / f"saved.{ending}", tmp_path / f"lambda.{ending}"
    keras.Sequential(layers).save(saved)
    if ending == "h5":
        shutil.copy(saved, path)
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config["config"]["layers"][1])
            file.attrs["model_config"] = json.dumps(config)
    else:
        rewrite(saved, path, lambda config: change(config["config"]["layers"][1]))
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("Keras was asked"))
    with pytest.raises(BadInput, match="--trust"):
        models.load_model(str(path))


@pytest.mark.once
def test_strings_that_hdf5_would_read_without_end_are_refused(files, tmp_path):
    content = bytearray((files / "model.h5").read_bytes())
    heaps = [found.start() for found in re.finditer(b"GCOL", content)]
    assert heaps and not is_endless(str(files / "model.h5"))
    for heap in heaps:
        place, end = heap + 16, heap + int.from_bytes(content[heap + 8 : heap + 16], "little")
        while place + 16 <= end and content[place : place + 2] != b"\0\0":  # to the free space
            size = int.from_bytes(content[place + 8 : place + 16], "little")
            place += 16 + (size + 7) // 8 * 8
        if place + 16 <= end:
            damaged = content.copy()
            damaged[place + 8 : place + 16] = bytes(8)
            (tmp_path / "endless.h5").write_bytes(damaged)
            message = refused("find", tmp_path / "endless.h5", "--data", files / "model.npz")
            assert "endless.h5 is damaged" in message
    assert (tmp_path / "endless.h5").exists()


@pytest.mark.once
def test_a_named_function_in_a_lambda_carries_no_code(tmp_path):
    layers = [keras.Input((8,)), keras.layers.Lambda(keras.ops.relu), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    for ending in ("keras", "h5"):
        model.save(tmp_path / f"named.{ending}")
        assert carried_code(str(tmp_path / f"named.{ending}")) is None


@pytest.mark.once
def test_a_file_that_is_both_kinds_is_read_as_keras_reads_it(tmp_path):
    """An `.h5` file with a harmless `.keras` archive behind it."""
    harmless = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    harmless.save(tmp_path / "harmless.keras")
    layers = [keras.Input((8,)), keras.layers.Lambda(lambda x: x * 2.0), keras.layers.Dense(1)]
    keras.Sequential(layers).save(tmp_path / "both.h5")
    with open(tmp_path / "both.h5", "ab") as file:
        file.write((tmp_path / "harmless.keras").read_bytes())
    assert zipfile.is_zipfile(tmp_path / "both.h5")
    assert "Lambda" in carried_code(str(tmp_path / "both.h5"))


def test_model_without_compile_state_says_which_options_it_takes(files):
    message = refused("find", files / "bare.keras", "--data", files / "model.npz")
    assert "--optimizer" in message and "--loss" in message


@pytest.mark.parametrize(
    ("given", "missing"),
    [({"loss": "mse"}, "--optimizer"), ({"optimizer": "sgd"}, "--loss")],
)
def test_half_of_the_compile_state_is_not_enough(files, given, missing):
    with pytest.raises(BadInput, match=f"add {missing}"):
        models.load_model(str(files / "bare.keras"), **given)


def test_options_replace_what_the_file_says_and_keep_the_rest(files):
    model = models.load_model(str(files / "model.keras"), optimizer="sgd")
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert model.loss == "sparse_categorical_crossentropy"
    model = models.load_model(str(files / "model.keras"), loss="poisson", metrics=["mae"])
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert models.loss_name(model.loss) == "poisson"


@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_named_loss_takes_logits_exactly_when_the_model_gives_them(tmp_path, activation):
    model = command_line.dense(activation=activation)
    model.save(tmp_path / "m.keras")
    model = models.load_model(
        str(tmp_path / "m.keras"), optimizer="sgd", loss="sparse_categorical_crossentropy"
    )
    x, y = command_line.arrays()
    output = np.asarray(model.predict(x, verbose=0), dtype="float64")
    if activation == "linear":
        output = np.exp(output) / np.exp(output).sum(axis=1, keepdims=True)
    expected = -np.log(output[np.arange(len(y)), y]).mean()
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-4)


def head(activation):
    hidden = keras.layers.Dense(8, activation="relu")
    return keras.Sequential([hidden, keras.layers.Dense(3, activation=activation)])


GIVES_LOGITS = {
    "a head in a model": (lambda h: head(None)(h), True),
    "a head with a softmax": (lambda h: head("softmax")(h), False),
    "the operation softmax": (lambda h: keras.ops.softmax(keras.layers.Dense(3)(h)), False),
    "a layer after the logits": (lambda h: keras.layers.Dropout(0.1)(head(None)(h)), True),
    "a cast after the softmax": (
        lambda h: keras.layers.Activation("linear", dtype="float32")(head("softmax")(h)),
        False,
    ),
    "a sum of logits": (lambda h: keras.layers.Dense(3)(h) + keras.layers.Dense(3)(h), True),
    "several of both": (lambda h: [head("softmax")(h), head(None)(h)], None),
    "another operation": (lambda h: keras.layers.Dense(3)(h) * 2.0, None),
    "a relu": (lambda h: head("relu")(h), False),
}


@pytest.mark.parametrize("name", GIVES_LOGITS)
def test_logits_are_found_wherever_the_activation_stands(name):
    build, expected = GIVES_LOGITS[name]
    inputs = keras.Input((4,))
    model = keras.Model(inputs, build(keras.layers.Dense(8)(inputs)))
    assert gives_logits(model) is expected


def test_logits_of_a_model_without_a_graph():
    class Own(keras.Model):
        def __init__(self, activation):
            super().__init__()
            self.first = keras.layers.Dense(3, activation="relu")
            self.last = keras.layers.Dense(3, activation=activation)

    assert gives_logits(Own(None)) is True and gives_logits(Own("softmax")) is False
    assert gives_logits(head(None)) is True
    sequence = [keras.Input((5, 4)), keras.layers.TimeDistributed(head(None))]
    assert gives_logits(keras.Sequential(sequence)) is True


def test_a_loss_for_an_unknown_output_is_said_to_take_probabilities(tmp_path, capsys):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(4)(inputs) * 2.0)
    model.save(tmp_path / "m.keras")
    model = models.load_model(
        str(tmp_path / "m.keras"), optimizer="sgd", loss="sparse_categorical_crossentropy"
    )
    assert "do not say whether" in capsys.readouterr().err
    x, y = command_line.arrays()
    output = np.asarray(model.predict(x, verbose=0), dtype="float64")
    expected = keras.losses.sparse_categorical_crossentropy(y, output.astype("float32"))
    expected = np.asarray(keras.ops.convert_to_numpy(expected)).mean()
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_options_keep_the_weights_of_the_losses_and_the_metrics(tmp_path, ending):
    inputs = keras.Input((8,))
    outputs = [keras.layers.Dense(1, name=name)(inputs) for name in ("a", "b")]
    model = keras.Model(inputs, outputs)
    model.compile("adam", ["mse", "mse"], loss_weights=[100.0, 1.0], metrics=[["mae"], ["mae"]])
    model.save(tmp_path / f"m.{ending}")
    x, _ = command_line.arrays()
    y = [x[:, :1], x[:, 1:2]]
    before = model.evaluate(x, y, verbose=0, return_dict=True)
    given = {"optimizer": "sgd", "metrics": ["mse"], "loss": "mse"}
    some = [names for count in (1, 2, 3) for names in itertools.combinations(given, count)]
    for names in some:
        options = {name: given[name] for name in names}
        again = models.load_model(str(tmp_path / f"m.{ending}"), **options)
        after = again.evaluate(x, y, verbose=0, return_dict=True)
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-5), names
        kept = {"b_mae", "b_mean_absolute_error"}.intersection(after)  # as the file writes it
        assert bool(kept) is ("metrics" not in options)
        assert ("metrics" in options) is any("squared" in name for name in after)


@pytest.mark.parametrize("optimizer", [None, "sgd"])
def test_metrics_of_other_labels_than_the_new_loss_takes_are_left_out(tmp_path, capsys, optimizer):
    model = command_line.dense()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["sparse_categorical_accuracy"]
    )
    model.save(tmp_path / "m.keras")
    loss = "categorical_crossentropy"
    again = models.load_model(str(tmp_path / "m.keras"), loss=loss, optimizer=optimizer)
    assert "sparse_categorical_accuracy takes integers as labels" in capsys.readouterr().err
    x, y = command_line.arrays()
    assert list(again.evaluate(x, np.eye(4)[y], verbose=0, return_dict=True)) == ["loss"]


@pytest.mark.parametrize(
    ("option", "value", "near"),
    [
        ("--optimizer", "adma", "adam"),
        ("--loss", "mean_sqared_error", "mean_squared_error"),
        ("--metric", "acuracy", "accuracy"),
    ],
)
def test_misspelt_name_gets_the_near_ones(files, option, value, near):
    message = refused("find", files / "model.keras", option, value)
    assert repr(value) in message and near in message


@pytest.mark.parametrize("trained", [False, True])
def test_legacy_h5_trains_on_with_the_state_of_its_optimizer(tmp_path, trained):
    """Keras 3 builds the optimizer of such a file for no variables, and `fit` raises."""
    model = command_line.compiled()
    x, y = command_line.arrays()
    if trained:
        model.fit(x, y, epochs=2, batch_size=16, verbose=0)
    path = tmp_path / "old.h5"
    model.save(path)
    loaded = models.load_model(str(path))
    if trained:
        expected = [np.asarray(variable) for variable in model.optimizer.variables]
        for variable, value in zip(loaded.optimizer.variables, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(variable), value)
    loaded.fit(x, y, batch_size=16, verbose=0)


def test_h5_without_compile_state_takes_options(tmp_path):
    command_line.dense().save(tmp_path / "bare.h5")
    with pytest.raises(BadInput, match="--optimizer adam --loss mse"):
        models.load_model(str(tmp_path / "bare.h5"))
    model = models.load_model(str(tmp_path / "bare.h5"), optimizer="adam", loss="mse")
    assert model.compiled


@pytest.mark.parametrize("loss", ["mse", "mae", "binary_crossentropy", "MeanSquaredError"])
def test_h5_with_a_loss_by_its_short_name_loads(tmp_path, loss):
    model = command_line.dense()
    model.compile("sgd", loss, metrics=["mae", "mse"])
    model.save(tmp_path / "old.h5")
    loaded = models.load_model(str(tmp_path / "old.h5"))
    x = command_line.arrays()[0]
    y = np.ones((len(x), command_line.CLASSES)) / 2
    expected = model.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(loaded.evaluate(x, y, verbose=0), expected, rtol=1e-5)


def test_compile_state_that_cannot_be_read_gives_way_to_options(files, tmp_path, capsys):
    def change(config):
        unknown = {"class_name": "Adamantine", "registered_name": "Adamantine"}
        config["compile_config"]["optimizer"].update(unknown)

    rewrite(files / "model.keras", tmp_path / "m.keras", change)
    with pytest.raises(BadInput):
        models.load_model(str(tmp_path / "m.keras"))
    model = models.load_model(str(tmp_path / "m.keras"), optimizer="sgd", loss="mse")
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert "cannot be read and are left out" in capsys.readouterr().err


@pytest.mark.parametrize("saved", [True, False])
def test_compiler_is_that_of_this_backend_whatever_the_file_was_saved_on(files, tmp_path, saved):
    def change(config):
        config["compile_config"]["jit_compile"] = saved

    rewrite(files / "model.keras", tmp_path / "m.keras", change)
    model = models.load_model(str(tmp_path / "m.keras"))
    assert model.jit_compile is (keras.backend.backend() == "jax")


def test_h5_of_something_else_is_refused(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(BadInput, match="No model config found"):
        models.load_model(str(tmp_path / "data.h5"))


def test_huge_archive_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "_memory", lambda: 1000)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"\0" * 10_000)
    (tmp_path / "zeros.keras").write_bytes(content.getvalue())
    message = refused("find", tmp_path / "zeros.keras", "--data", "some:data")
    assert "more than this machine's memory" in message


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user in the current folder."""
    monkeypatch.chdir(tmp_path)
    name = f"user_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(
        "import command_line\n"
        "def model(): return command_line.compiled()\n"
        "def number(): return 3\n"
        "def broken(): raise OSError('the disk\\nis gone')\n"
        "constant = 4\n"
    )
    return name


def test_function_makes_the_model(module):
    assert models.load_model(f"{module}:model").compiled


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("number", "returned int; it must return a Keras model"),
        ("broken", "raised OSError: the disk is gone"),
        ("constant", "is not a function; it is int"),
        ("nothing", "has no nothing"),
    ],
)
def test_function_that_gives_no_model_is_named(module, function, words):
    assert words in refused("find", f"{module}:{function}", "--data", f"{module}:number")


def test_module_that_does_not_exist_is_named(module):
    assert "no module no_such" in refused("find", "no_such:model", "--data", f"{module}:number")


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("mse", "mean_squared_error"),
        ("MeanSquaredError", "mean_squared_error"),
        (keras.losses.BinaryCrossentropy(), "binary_crossentropy"),
        (keras.losses.sparse_categorical_crossentropy, "sparse_categorical_crossentropy"),
        (["mse"], ""),
        (None, ""),
    ],
)
def test_a_loss_has_one_name(loss, name):
    assert models.loss_name(loss) == name


def test_a_model_that_was_saved_on_torch_has_the_optimizer_of_this_backend(files, tmp_path):
    """Keras writes the module of its torch class down, and other backends cannot train with it."""

    def as_torch_writes(config):
        optimizer = config["compile_config"]["optimizer"]
        assert optimizer["class_name"] == "Adam"
        optimizer["module"] = "keras.src.backend.torch.optimizers.torch_adam"
        optimizer["registered_name"] = "Adam"

    rewrite(files / "model.keras", tmp_path / "torch.keras", as_torch_writes)
    loaded = models.load_model(str(tmp_path / "torch.keras"))
    assert type(loaded.optimizer) is type(keras.optimizers.Adam())
    loaded.fit(*command_line.arrays(), verbose=0)


# Names, keys and sizes out of a file


HOSTILE = "conv\x1b[2J\x9b31m\u202e\u200b[red]"


def test_names_reach_the_terminal_as_escapes(tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name=HOSTILE)])
    model.compile("sgd", "mse")
    model.save(tmp_path / "m.keras")
    shown = command_line.run("layers", tmp_path / "m.keras", "--preset", "head:10").stdout
    assert r"conv\x1b[2J\x9b31m\u202e\u200b[red]" in "".join(shown.split("\n"))
    assert all(c.isprintable() or c == "\n" for c in shown)
    (tmp_path / "m.json").write_text(json.dumps({"nothing" + HOSTILE: 2.0}))
    options = ("--data", tmp_path / "d.npz", "--multipliers", tmp_path / "m.json")
    np.savez(tmp_path / "d.npz", x=np.zeros((8, 8)), y=np.zeros((8, 4)))
    message = refused("find", tmp_path / "m.keras", *options)
    assert r"nothingconv\x1b[2J" in message and message.isprintable()
    as_json = json.loads(command_line.run("layers", tmp_path / "m.keras", "--json").stdout)
    assert as_json["layers"][0]["path"] == HOSTILE


@pytest.mark.once
@pytest.mark.parametrize("c", ["\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\ud800"])
def test_what_does_not_print_is_shown_as_an_escape(c):
    for text in (errors.visible(f"a{c}b"), errors.one_line(f"a{c}b"), labelled("Why", f"a{c}b")):
        assert text.endswith("a" + ascii(c)[1:-1] + "b"), text
    assert errors.visible("é文") == terminal.visible("é文") == "é文"
    assert terminal.visible(f"a{c}b") == errors.visible(f"a{c}b")  # the library's is the same


@pytest.mark.once
def test_brackets_in_a_table_are_no_markup():
    from rich.table import Table

    table = Table("[red]name[/red]")
    table.add_row("[bold]x :smile:")
    assert "[red]name[/red]" in table_text(table) and "[bold]x :smile:" in table_text(table)


def test_key_in_a_file_that_no_engine_would_finish_is_answered_at_once(tmp_path):
    layers = [keras.Input((8,)), keras.layers.Dense(4, name="a" * 60)]
    model = keras.Sequential(layers)
    optimizer = keras_lr.optimizers.LayerwiseLR(keras.optimizers.SGD(), {"a" * 60: 2.0})
    model.compile(optimizer, "mse")
    model.save(tmp_path / "m.keras")

    def change(config):
        (entry,) = config["compile_config"]["optimizer"]["config"]["multipliers"]
        entry.clear()
        entry.update(key="(a+)+b", multiplier=2.0)

    rewrite(tmp_path / "m.keras", tmp_path / "bad.keras", change)
    shown = command_line.run("layers", tmp_path / "bad.keras")
    assert shown.exit_code == 0 and "No trainable variable matches '(a+)+b'" in shown.stderr
    (tmp_path / "m.json").write_text('{"(a|a)*b": 2.0}')
    np.savez(tmp_path / "d.npz", x=np.zeros((8, 8)), y=np.zeros((8, 4)))
    options = ("--data", tmp_path / "d.npz", "--optimizer", "sgd", "--loss", "mse")
    message = refused("find", tmp_path / "m.keras", *options, "--multipliers", tmp_path / "m.json")
    assert "matches '(a|a)*b'" in message


@pytest.mark.parametrize("kind", ["lstm", "bidirectional", "convolution", "cells"])
def test_states_larger_than_the_file_are_refused_before_they_are_made(tmp_path, kind):
    layers = keras.layers
    shape, layer = {
        "lstm": ((2, 3), layers.LSTM(8, stateful=True)),
        "bidirectional": ((2, 3), layers.Bidirectional(layers.GRU(8, stateful=True))),
        "convolution": ((2, 5, 1), layers.ConvLSTM1D(2, 3, stateful=True)),
        "cells": ((2, 3), layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], stateful=True)),
    }[kind]
    model = keras.Sequential([keras.Input(shape, batch_size=2), layer])
    model.save(tmp_path / "m.keras")
    assert command_line.run("layers", tmp_path / "m.keras").exit_code == 0

    def change(config):
        text = json.dumps(config).replace("[2, ", "[20000000, ")
        config.update(json.loads(text))

    rewrite(tmp_path / "m.keras", tmp_path / "bad.keras", change)
    message = refused("layers", tmp_path / "bad.keras")
    assert "asks for states for a batch of 20000000, far more than the file holds" in message


# What another Keras saved, and classes of the user's own


def test_file_of_a_newer_keras_names_both_versions(files, tmp_path):
    with zipfile.ZipFile(files / "model.keras") as old:
        with zipfile.ZipFile(tmp_path / "new.keras", "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "metadata.json":
                    content = json.dumps({"keras_version": "9.2.1"}).encode()
                if name == "config.json":
                    content = content.replace(b'"Dense"', b'"FutureDense"')
                new.writestr(name, content)
    message = refused("find", tmp_path / "new.keras", "--data", files / "model.npz")
    assert f"was saved by Keras 9.2.1, and Keras {keras.__version__} cannot load it" in message
    assert "pip install -U keras" in message


def test_file_of_keras_2_with_metrics_takes_options(files, tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as new, h5py.File(files / "model.h5") as file:
        for name in file:
            file.copy(name, new)
        new.attrs.update(file.attrs)
        training = json.loads(file.attrs["training_config"])
        config = {"name": "accuracy", "dtype": "float32", "fn": "sparse_categorical_accuracy"}
        training["metrics"] = [[{"class_name": "OldMeanMetric", "config": config}]]
        new.attrs["training_config"] = json.dumps(training)
        new.attrs["keras_version"] = "2.15.0"
    message = refused("find", tmp_path / "old.h5", "--data", files / "model.npz")
    assert "old.h5, saved by Keras 2.15.0, cannot be read" in message
    assert "--optimizer adam --loss mse" in message
    loss = "sparse_categorical_crossentropy"
    model = models.load_model(str(tmp_path / "old.h5"), optimizer="adam", loss=loss)
    assert model.compiled
    shown = command_line.run("layers", tmp_path / "old.h5")
    assert shown.exit_code == 0 and "dense" in shown.stdout


def test_weights_under_the_name_of_a_model_are_refused(tmp_path):
    command_line.dense().save_weights(tmp_path / "w.weights.h5")
    shutil.copy(tmp_path / "w.weights.h5", tmp_path / "model.h5")
    shutil.copy(tmp_path / "w.weights.h5", tmp_path / "model.keras")
    assert "perhaps weights only; save the whole model" in refused("find", tmp_path / "model.h5")
    message = refused("find", tmp_path / "model.keras")
    assert "is an HDF5 file; give it a name that ends with .h5" in message


def test_a_quantized_model_says_which_layers_do_not_train(tmp_path, capsys):
    model = command_line.compiled()
    names = [layer.name for layer in model.layers]
    model.layers[0].quantize("int8")
    model.compile("sgd", "mse")
    model.save(tmp_path / "m.keras")
    models.load_model(str(tmp_path / "m.keras"))
    assert f"The kernels of {names[0]} are quantized and do not" in capsys.readouterr().err


@pytest.mark.once
def test_saved_model_is_refused_with_a_way_out(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"is a SavedModel, .* model.save\('model.keras'\)"):
        model_files.check_model_file(str(tmp_path / "saved"))


OWN = """
import keras
@keras.saving.register_keras_serializable("own")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


def test_import_registers_the_classes_of_a_module(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"own_{keras.backend.backend()}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    own = importlib.import_module(name)
    model = keras.Sequential([keras.Input((8,)), own.Doubled(), keras.layers.Dense(4)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save("m.keras")
    sys.path.pop()
    del sys.modules[name]
    del keras.saving.get_custom_objects()["own>Doubled"]
    message = refused("layers", "m.keras")
    assert "a class that Keras does not know. Pass --import" in message
    before = list(sys.path)
    for command in (["layers", "m.keras"], ["find", "m.keras", "--steps", 12]):
        data = ["--data", files / "model.npz"] if command[0] == "find" else []
        result = command_line.run(*command, *data, "--import", name)
        assert ("36 parameters" if command[0] == "layers" else "Cost") in result.stdout
    assert sys.path == before
    assert "no module not_there" in refused("layers", "m.keras", "--import", "not_there")
    assert "the name of a module" in refused("layers", "m.keras", "--import", "own.py/x")


def test_layers_need_no_compile_state(files, tmp_path):
    def change(config):
        unknown = {"class_name": "Adamantine", "registered_name": "Adamantine"}
        config["compile_config"]["optimizer"].update(unknown)

    rewrite(files / "model.keras", tmp_path / "m.keras", change)
    message = refused("find", tmp_path / "m.keras", "--data", files / "model.npz")
    assert "cannot be read; name them, as in --optimizer adam --loss mse" in message
    shown = command_line.run("layers", tmp_path / "m.keras")
    assert shown.exit_code == 0 and "cannot be read" in shown.stderr
