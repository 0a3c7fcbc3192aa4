"""`keras-lr layers`, and the multipliers that it hands to `keras-lr find`."""

import json
import os
import re
import subprocess
import sys
import textwrap

import command_line
import keras
import pytest
from command_line import refused, run
from keras import layers

import keras_lr
from keras_lr.optimizers import LayerwiseLR
from keras_lr_cli.errors import BadInput
from keras_lr_cli.multipliers import put_multipliers, read_multipliers

pytestmark = pytest.mark.once

# The layers of `nested` from input to output: path, parameters, whether they train.
NESTED = [
    ("body/dense", 12, True),
    ("body/deep/dense", 12, True),
    ("body/norm", 12, True),  # half of its parameters
    ("body/frozen", 12, False),
    ("head", 4, True),
    ("dense", 2, True),
]


def nested():
    """Three layers called dense, two of them of one path."""
    deep = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="dense")], name="deep")
    inputs = keras.Input((3,))
    x = deep(layers.Dense(3, name="dense")(inputs))
    x = layers.BatchNormalization(name="norm")(x)
    body = keras.Model(inputs, layers.Dense(3, name="frozen", trainable=False)(x), name="body")
    x = layers.Dense(1, name="head")(layers.Dropout(0.5)(body(inputs)))
    return keras.Model(inputs, layers.Dense(1, name="dense")(x))


def saved(folder, optimizer=None, model=None):
    model = model or nested()
    if optimizer is not None:
        model.compile(optimizer, "mse")
    path = folder / "model.keras"
    model.save(path)
    return path


def answer(*arguments):
    result = run("layers", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def made_by(python, model):
    """The optimizer that the answer's Python makes."""
    scope = {"keras": keras, "keras_lr": keras_lr, "model": model}
    exec(textwrap.dedent(python), scope)
    return scope["optimizer"]


def by_variable(optimizer, model):
    """The multiplier of each variable that trains, by the layer's path in `NESTED`."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    optimizer.build(model.trainable_variables)
    body = model.get_layer("body")
    homes = {
        "body/dense": body.get_layer("dense"),
        "body/deep/dense": body.get_layer("deep").layers[0],
        "body/norm": body.get_layer("norm"),
        "head": model.get_layer("head"),
        "dense": model.get_layer("dense"),
    }
    found = {}
    for path, layer in homes.items():
        values = {optimizer._multiplier_of(v).number for v in layer.trainable_variables}
        (found[path],) = values
    return found


DECAYED = {
    "body/dense": 0.125, "body/deep/dense": 0.25, "body/norm": 0.25, "head": 0.5, "dense": 1.0,
}  # fmt: skip


# The table


def test_table_has_paths_sizes_shares_and_multipliers(tmp_path):
    result = run("layers", saved(tmp_path, "adam"), "--preset", "decay:0.5")
    assert result.exit_code == 0, result.stderr
    table, _, rest = result.stdout.partition("\n\n")
    rows = [line.split() for line in table.splitlines()[2:]]
    assert rows == [
        ["body/dense", "12", "22.2%", "yes", "0.125"],
        ["body/deep/dense", "12", "22.2%", "yes", "0.25"],
        ["body/norm", "12", "22.2%", "yes", "0.25"],
        ["body/frozen", "12", "22.2%", "no", "-"],
        ["head", "4", "7.4%", "yes", "0.5"],
        ["dense", "2", "3.7%", "yes", "1"],
    ]
    assert "54 parameters, 36 of them train. 2 layers without weights not shown." in rest
    assert "4 groups of layers; the smallest multiplier is 0.125." in rest
    assert "In Python:\n  optimizer = keras_lr.optimizers.LayerwiseLR(" in rest
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_long_names_fold_into_80_columns(tmp_path):
    name = "a_name_of_a_layer_that_goes_on_" * 4
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, name=name)])
    result = run("layers", saved(tmp_path, model=model))
    table = result.stdout.partition("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "".join(line.split()[0] for line in table.splitlines()[2:]) == name


def test_output_is_plain_where_the_terminal_is(tmp_path):
    model = saved(tmp_path, keras_lr.optimizers.LayerwiseLR(keras.optimizers.SGD(), {"head": 2.0}))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "keras_lr_cli", "layers", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")  # another process knows LayerwiseLR as well
    assert re.search(r"\|head +\| +4 \| +7.4% \| +yes \| +2\|", done.stdout)


# The multipliers


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("decay:0.5", DECAYED),
        ("decay:0.5:0.3", {path: max(value, 0.3) for path, value in DECAYED.items()}),
        ("head:10", {**dict.fromkeys(DECAYED, 1.0), "dense": 10.0}),
        (
            "discriminative:1e-5:1e-1",
            # The normalisation has the rate of the layer before it.
            {
                path: 1e-4 ** ((3 - place) / 3)
                for path, place in zip(DECAYED, (0, 1, 1, 2, 3), strict=True)
            },
        ),
        (None, dict.fromkeys(DECAYED, 1.0)),
    ],
)
def test_preset_is_in_the_layers_the_multipliers_and_the_python(tmp_path, preset, expected):
    path = saved(tmp_path, keras.optimizers.SGD(0.25, momentum=0.5))
    shown = answer(path, *(["--preset", preset] if preset else []))
    with_weights = [each for each in shown["layers"] if each["parameters"]]
    places = [(each["path"], each["parameters"], each["trainable"]) for each in with_weights]
    assert places == NESTED
    assert sum(each["share"] for each in shown["layers"]) == pytest.approx(1.0)
    assert (shown["parameters"], shown["trainable_parameters"]) == (54, 36)
    multipliers = {each["path"]: each["multiplier"] for each in with_weights if each["trainable"]}
    assert multipliers == pytest.approx(expected)

    model = keras.saving.load_model(path)
    optimizer = made_by(shown["python"], model)
    assert by_variable(optimizer, model) == pytest.approx(expected, rel=1e-5)  # six digits
    assert isinstance(optimizer, keras.optimizers.SGD) and optimizer.momentum == 0.5
    rate = 0.1 if preset and preset.startswith("disc") else 0.25
    assert float(optimizer.learning_rate) == pytest.approx(rate)
    assert shown["learning_rate"] == (rate if rate == 0.1 else None)

    (tmp_path / "f.json").write_text(json.dumps(shown))
    model = keras.saving.load_model(path)
    factors = read_multipliers(str(tmp_path / "f.json"))
    put_multipliers(model, factors, "f.json")
    assert by_variable(model.optimizer, model) == pytest.approx(expected)


def test_rate_of_discriminative_is_told(tmp_path):
    result = run("layers", saved(tmp_path), "--preset", "discriminative:1e-5:1e-3")
    assert "Set the optimizer's learning rate to 0.001, the rate of the head." in result.stdout
    assert "keras.optimizers.AdamW(learning_rate=0.001)" in result.stdout


def test_model_that_is_not_compiled_gets_adamw(tmp_path):
    shown = answer(saved(tmp_path), "--preset", "head:10")
    optimizer = made_by(shown["python"], keras.saving.load_model(tmp_path / "model.keras"))
    assert type(optimizer).__name__ == "LayerwiseLR[AdamW]"
    assert float(optimizer.learning_rate) == pytest.approx(1e-4)


def test_python_keeps_a_schedule_and_a_loss_scale(tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    for number, inner in enumerate((schedule, 0.5)):
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(inner, beta_1=0.75))
        (tmp_path / str(number)).mkdir()
        path = saved(tmp_path / str(number), optimizer)
        model = keras.saving.load_model(path)
        made = made_by(answer(path, "--preset", "decay:0.5")["python"], model)
        assert isinstance(made, keras.optimizers.LossScaleOptimizer)
        assert made.inner_optimizer.beta_1 == 0.75
        assert float(made.learning_rate) == pytest.approx(0.5)
        assert by_variable(made, model) == pytest.approx(DECAYED)


def test_multipliers_of_the_model_are_shown_and_replaced_by_a_preset(tmp_path):
    path = saved(tmp_path, LayerwiseLR(keras.optimizers.SGD(0.25), {"head": 3.0, "norm": 0.0}))
    shown = answer(path)
    own = {**dict.fromkeys(DECAYED, 1.0), "head": 3.0, "body/norm": 0.0}
    found = {each["path"]: each["multiplier"] for each in shown["layers"] if each["trainable"]}
    assert found == own
    model = keras.saving.load_model(path)
    assert by_variable(made_by(shown["python"], model), model) == own
    shown = answer(path, "--preset", "decay:0.5")
    made = made_by(shown["python"], model)
    assert by_variable(made, model) == pytest.approx(DECAYED)
    assert type(made).__name__ == "LayerwiseLR[SGD]"


def test_multipliers_that_vary_within_a_layer_are_not_made_up(tmp_path):
    path = saved(tmp_path, LayerwiseLR(keras.optimizers.SGD(0.25), {"head/kernel": 3.0}))
    result = run("layers", path)
    assert re.search(r"head +4 +7.4% +yes +varies", result.stdout)
    assert "In Python" not in result.stdout
    assert answer(path)["multipliers"] == {}


def test_layers_of_a_subclassed_model_and_its_own_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_weights_code.py").write_text(
        "import keras\n"
        "class Own(keras.Model):\n"
        "    def __init__(self):\n"
        "        super().__init__(name='own')\n"
        "        self.inner = [keras.layers.Dense(2, name=n) for n in ('a', 'same', 'same')]\n"
        "    def build(self, shape):\n"
        "        self.token = self.add_weight(shape=(2,), name='token')\n"
        "        for each in self.inner: each.build((None, 2))\n"
        "def model():\n    print('a model')\n    m = Own()\n    m.build((None, 2))\n    return m\n"
        "def unbuilt():\n    return keras.Sequential([keras.layers.Dense(2)])\n"
    )
    result = run("layers", "own_weights_code:model", "--preset", "decay:0.5", "--json")
    shown = json.loads(result.stdout)
    assert "a model" in result.stderr
    paths = {each["path"]: each["multiplier"] for each in shown["layers"]}
    assert paths == {"own (own weights)": 0.125, "a": 0.25, "same": 0.5, "same#2": 1.0}
    assert set(shown["multipliers"]) == {"own/token", "a", "same", "same#2"}
    from own_weights_code import model

    made = model()
    made.compile("sgd", "mse")
    put_multipliers(made, shown["multipliers"], "f.json")
    expected = [0.125, *[0.25] * 2, *[0.5] * 2, *[1.0] * 2]
    made.optimizer.build(made.trainable_variables)
    of = {id(v): made.optimizer._multiplier_of(v).number for v in made.trainable_variables}
    ordered = [made.token, *(v for each in made.layers for v in each.trainable_variables)]
    assert [of[id(variable)] for variable in ordered] == expected
    for preset in ([], ["--preset", "head:10"]):
        message = refused("layers", "own_weights_code:unbuilt", *preset)
        assert "no weights yet; add an Input" in message


# What is refused


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        (
            "decay",
            "must be decay:FACTOR[:MIN_SCALE], head:FACTOR or discriminative:LOW:HIGH; got 'decay'",
        ),
        ("decay:", "'' is not a number"),
        ("decay:0.5:0.5:1", "got 'decay:0.5:0.5:1'"),
        ("decay:0.5:0", "min_scale must be in (0, 1]; got 0.0"),
        ("head:1:2", "got 'head:1:2'"),
        ("tail:10", "got 'tail:10'"),
        ("", "it is empty, as is a shell variable that is not set"),
        ("head:ten", "--preset head:ten: 'ten' is not a number"),
        ("decay:2", "decay must be in (0, 1]; got 2.0"),
        ("decay:nan", "got nan"),
        ("head:-1", "factor must be above 0; got -1.0"),
        ("discriminative:1e-3:1e-5", "low must not be above high"),
    ],
)
def test_preset_that_is_none_is_refused(tmp_path, preset, words):
    assert words in refused("layers", saved(tmp_path), "--preset", preset)


def test_model_without_weights_that_train(tmp_path):
    model = nested()
    model.trainable = False
    path = saved(tmp_path, model=model)
    assert "trainable weights" in refused("layers", path, "--preset", "head:10")
    assert run("layers", path).exit_code == 0
    assert "does not exist" in refused("layers", tmp_path / "missing.keras")


BAD_FILES = {
    "no JSON": "is not JSON",
    "": "is not JSON",
    "[1, 2]": "must hold",
    "{}": "must hold",
    '{"multipliers": {}}': "must hold",
    "3": "must hold",
    '{"head": "10"}': "'head' must have a finite number of at least 0; got \"10\"",
    '{"head": true}': "got true",
    '{"head": null}': "got null",
    '{"head": -1}': "got -1",
    '{"head": NaN}': "got NaN",
    '{"head": 1e999}': "got Infinity",
    '{"head": 1' + "0" * 400 + "}": "finite number of at least 0",
    '{"head": 1' + "0" * 5000 + "}": "is not JSON",
    '{"head": 1, "head": 2}': "names 'head' twice",
    "[" * 100_000: "is not JSON",
    '{"hed": 1}': "No trainable variable matches 'hed'; the trainable layers are: ",
    '{"head": 1, "hea.": 2}': "got two keys for",
    '{"body": 1, "body/dense": 2}': "got two keys for",
    '{"head": 1, "(": 2}': "must be a regular expression",
    '{"body/frozen": 1}': "No trainable variable matches 'body/frozen'",
    '{"multipliers": {"hed": 1}}': "matches 'hed'",
}


@pytest.mark.parametrize("content", BAD_FILES, ids=lambda content: content[:30])
def test_file_of_multipliers_that_is_none_is_refused(content, tmp_path):
    path = tmp_path / "f.json"
    path.write_text(content)
    model = nested()
    model.compile("sgd", "mse")
    with pytest.raises(BadInput) as refusal:
        put_multipliers(model, read_multipliers(str(path)), str(path))
    message = refusal.value.format_message()
    assert BAD_FILES[content] in message and str(path) in message
    assert "\n" not in message and len(message) < 700


def test_file_that_cannot_be_read_is_refused_on_one_line(tmp_path):
    command_line.write_files(tmp_path)
    find = ("find", tmp_path / "model.keras", "--multipliers")
    assert "No such file" in refused(*find, tmp_path / "missing.json")
    assert "is a folder" in refused(*find, tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00{")
    assert "is not JSON" in refused(*find, tmp_path / "binary.json")
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(17 * 2**20)
    assert "larger than 16 MiB" in refused(*find, tmp_path / "huge.json")
    (tmp_path / "unknown.json").write_text('{"hed": 1}')
    assert "matches 'hed'" in refused(*find, tmp_path / "unknown.json")


def test_a_nested_model_is_a_key_too():
    model = nested()
    model.compile("sgd", "mse")
    put_multipliers(model, {"body": 0.5, "head": 2.0}, "f.json")
    expected = {path: 0.5 if path.startswith("body") else 1.0 for path in DECAYED}
    assert by_variable(model.optimizer, model) == {**expected, "head": 2.0}


def test_optimizer_keeps_its_state_and_its_loss_scale():
    model = nested()
    inner = keras.optimizers.Adam(0.25)
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    model.optimizer.build(model.trainable_variables)
    inner.iterations.assign(7)
    put_multipliers(model, {"head": 2.0}, "f.json")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    wrapped = model.optimizer.inner_optimizer
    assert isinstance(wrapped, LayerwiseLR)
    assert int(wrapped.iterations) == 7 and float(model.optimizer.learning_rate) == 0.25


def test_optimizers_with_rates_of_their_own_are_refused():
    model = nested()
    optimizers = [LayerwiseLR(keras.optimizers.SGD(), {"head": 2.0})]
    if hasattr(keras.optimizers, "MultiOptimizer"):
        map_ = keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(), {"head": keras.optimizers.SGD()}
        )
        optimizers.append(keras.optimizers.MultiOptimizer(map_))
    for optimizer in optimizers:
        model.compile(optimizer, "mse")
        with pytest.raises(BadInput, match="--optimizer"):
            put_multipliers(model, {"head": 2.0}, "f.json")
