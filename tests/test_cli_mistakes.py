"""The commonest mistakes on the command line: each is one line that names the way out."""

import click
import command_line
import keras
import numpy as np
import pytest
from command_line import refused

from keras_lr_cli import main

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    command_line.write_files(folder)
    x, y = command_line.arrays()
    np.savez(folder / "labels_from_1.npz", x=x, y=y + 1)
    np.savez(folder / "wide.npz", x=x[:, :5], y=y)
    np.savez(folder / "one_hot.npz", x=x, y=keras.ops.convert_to_numpy(keras.ops.one_hot(y, 4)))
    hole = x.copy()
    hole[3, 2] = np.nan
    np.savez(folder / "hole.npz", x=hole, y=y)
    (folder / "class_a").mkdir()
    (folder / "class_a" / "notes.md").write_text("no picture")
    lambda_layer = keras.layers.Lambda(lambda x: 2 * x)
    model = keras.Sequential([keras.Input((8,)), lambda_layer, keras.layers.Dense(4)])
    model.compile("adam", "mse")
    model.save(folder / "lambda.keras")

    @keras.saving.register_keras_serializable("mistakes")
    class Ours(keras.layers.Dense):
        pass

    model = keras.Sequential([keras.Input((8,)), Ours(4)])
    model.compile("adam", "mse")
    model.save(folder / "ours.keras")
    keras.saving.get_custom_objects().pop("mistakes>Ours")
    command_line.compiled().save(folder / "other.keras")
    return folder


MISTAKES = {  # what was done: (arguments, the refusal, the way out)
    "the model file is misspelt": (
        ["modle.keras"],
        "modle.keras does not exist",
        "model.keras",
    ),
    "no data was given": (["other.keras"], "No --data was given", "other.npz"),
    "the table has no target": (
        ["model.keras", "--data", "model.csv"],
        "--target",
        "f6, f7, label",
    ),
    "the target is misspelt": (
        ["model.keras", "--data", "model.csv", "--target", "lable"],
        "lable",
        "label",
    ),
    "the model was saved without compile": (
        ["bare.keras", "--data", "model.npz"],
        "without its optimizer",
        "--optimizer",
    ),
    "labels begin at 1": (
        ["model.keras", "--data", "labels_from_1.npz"],
        "4",
        "0 to 3",
    ),
    "the inputs have another shape": (
        ["model.keras", "--data", "wide.npz"],
        "(64, 5)",
        "8",
    ),
    "labels are one-hot for a sparse loss": (
        ["model.keras", "--data", "one_hot.npz"],
        "(64, 4)",
        "categorical_crossentropy",
    ),
    "the model has a custom class": (
        ["ours.keras", "--data", "model.npz"],
        "Ours",
        "--import",
    ),
    "the model has a Lambda layer": (
        ["lambda.keras", "--data", "model.npz"],
        "Lambda",
        "--trust",
    ),
    "the folder has no images": (
        ["model.keras", "--data", "class_a"],
        "class_a",
        "folder",
    ),
    "an option is misspelt": (["model.keras", "--epoch", "3"], "--epoch", "--epochs"),
    "the policy is misspelt": (
        ["model.keras", "--policy", "onecycle"],
        "onecycle",
        "'one-cycle'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_common_mistake_ends_in_a_line_with_the_way_out(files, monkeypatch, mistake):
    monkeypatch.chdir(files)
    arguments, wrong, way_out = MISTAKES[mistake]
    line = refused("find", *arguments)
    assert wrong in line and way_out in line, line


def test_an_empty_value_is_refused_not_ignored():
    """As from `--save "$OUT"` with a variable that is not set."""
    count = 0
    for name, command in main.commands.items():
        for parameter in command.params:
            if parameter.type.name == "text":
                place = [] if parameter.param_type_name == "argument" else ["model.keras"]
                option = [parameter.opts[0]] if place else []
                message = refused(name, *place, *option, "")
                assert "it is empty, as is a shell variable that is not set" in message
                count += 1
            else:
                assert parameter.type is not click.STRING
    assert count > 40
