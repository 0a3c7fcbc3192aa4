"""Saved models of classes that override `compile`, which Keras does not call when it loads one."""

import command_line
import keras
import numpy as np
import pytest
from command_line import refused, run

from keras_lr_cli import models
from keras_lr_cli.own_compile import compiled_as_saved

LOSS = "sparse_categorical_crossentropy"


@keras.saving.register_keras_serializable("own_compile")
class Task(keras.Model):
    """As a task of KerasHub: compiled by its constructor, and `compile` takes all of Keras's."""

    def __init__(self, **options):
        super().__init__(**options)
        self.head = keras.layers.Dense(command_line.CLASSES, activation="softmax")
        self.compile()

    def call(self, x):
        return self.head(x)

    def build(self, shape):
        self.head.build(shape)

    def compile(self, optimizer="auto", loss="auto", *, metrics="auto", **options):
        optimizer = keras.optimizers.Adam(5e-5) if optimizer == "auto" else optimizer
        loss = LOSS if loss == "auto" else loss
        metrics = ["accuracy"] if metrics == "auto" else metrics
        super().compile(optimizer, loss, metrics=metrics, **options)


@keras.saving.register_keras_serializable("own_compile")
class Smoothed(Task):
    """`compile` takes some arguments of Keras's, and one of its own."""

    def compile(self, optimizer="sgd", loss=LOSS, metrics=None, smoothing=0.1):
        keras.Model.compile(self, optimizer, loss, metrics=metrics)


@keras.saving.register_keras_serializable("own_compile")
class Unweighted(Task):
    """`compile` does not take `loss_weights`, which the file has nevertheless."""

    def compile(self, optimizer="sgd", loss=LOSS):
        keras.Model.compile(self, optimizer, loss, loss_weights=[2.0])


@keras.saving.register_keras_serializable("own_compile")
class Distiller(Task):
    """`compile` takes what no file holds."""

    def __init__(self, **options):
        keras.Model.__init__(self, **options)
        self.head = keras.layers.Dense(command_line.CLASSES, activation="softmax")

    def compile(self, optimizer, student_loss, alpha):
        keras.Model.compile(self, optimizer, student_loss)


@keras.saving.register_keras_serializable("own_compile")
class Remembers(Distiller):
    """As Keras advises: the class saves the arguments of its `compile`."""

    def get_compile_config(self):
        return {"rate": float(self.optimizer.learning_rate)}

    def compile_from_config(self, config):
        self.compile(keras.optimizers.SGD(config["rate"]), LOSS, 0.5)


def save(model, path, **compiled):
    keras.utils.set_random_seed(0)
    model.build((None, command_line.FEATURES))
    model.compile(**compiled)
    model.fit(*command_line.arrays(), verbose=0)
    model.save(path)
    return str(path)


def test_the_optimizer_of_the_file_replaces_that_of_the_constructor(tmp_path):
    path = save(Task(), tmp_path / "task.keras", optimizer=keras.optimizers.RMSprop(0.02))
    model = models.load_model(path)
    assert isinstance(model.optimizer, keras.optimizers.RMSprop)
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.02, rtol=1e-5, atol=0)
    assert int(model.optimizer.iterations) == 2  # 64 rows in batches of 32: its state is loaded
    model.fit(*command_line.arrays(), verbose=0)


def test_find_says_the_optimizer_of_the_file(tmp_path):
    path = save(Task(), tmp_path / "task.keras", optimizer=keras.optimizers.RMSprop(0.02))
    x, y = command_line.arrays()
    np.savez(tmp_path / "task.npz", x=x, y=y)
    result = run("find", path, "--steps", 20, "--budget", 20)
    assert result.exit_code in (0, 1), result.output  # 20 steps may show no rate
    assert "with RMSprop" in result.output and "compile()" not in result.stderr


def test_arguments_with_defaults_are_named(tmp_path, capsys):
    path = save(Smoothed(), tmp_path / "own.keras", optimizer="rmsprop", smoothing=0.3)
    model = models.load_model(path)
    assert isinstance(model.optimizer, keras.optimizers.RMSprop)
    assert "Smoothed" in (said := capsys.readouterr().err) and "smoothing" in said


def test_a_compile_that_does_not_take_what_the_file_holds_is_not_called(tmp_path):
    path = save(Unweighted(), tmp_path / "own.keras", optimizer="rmsprop")
    with pytest.warns(UserWarning, match="was not called"):
        model = models.load_model(path)
    assert isinstance(model.optimizer, keras.optimizers.SGD)


@pytest.mark.filterwarnings("ignore:.*was not called")
def test_arguments_that_no_file_holds_are_named(tmp_path):
    given = {"optimizer": "sgd", "student_loss": LOSS, "alpha": 0.1}
    path = save(Distiller(), tmp_path / "own.keras", **given)
    x, y = command_line.arrays()
    np.savez(tmp_path / "own.npz", x=x, y=y)
    message = refused("find", path)
    assert "Distiller.compile takes: student_loss, alpha" in message
    assert "module:function" in message and "compile_from_config" in message


def test_a_class_that_saves_its_arguments_is_compiled_by_them(tmp_path):
    given = {"optimizer": keras.optimizers.SGD(0.3), "student_loss": LOSS, "alpha": 0.1}
    model = models.load_model(save(Remembers(), tmp_path / "own.keras", **given))
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.3, rtol=1e-5, atol=0)


def test_keras_has_its_own_function_again():
    before = keras.Model.compile_from_config
    with pytest.raises(ValueError, match="stop"), compiled_as_saved():
        assert keras.Model.compile_from_config is not before
        raise ValueError("stop")
    assert keras.Model.compile_from_config is before
    assert "compile_from_config" not in vars(keras.Model)
