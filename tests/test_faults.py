"""Full disks and kills: a part of `benchmarks/faults/disks.py`, and each fault that it found."""

import os
import subprocess
import sys

import command_line
import disks
import keras
import numpy as np
import pytest
import readers

import keras_lr
from keras_lr._util.files import atomic_write
from keras_lr_cli.errors import RunFailed
from keras_lr_cli.outputs import print_answer

pytestmark = pytest.mark.once
needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")


@pytest.fixture
def full(request):
    """A folder on a full disk, with an old file whose name the test chooses."""
    if not sys.platform.startswith("linux") or not disks.can_mount():
        pytest.skip("a file system can be mounted by root alone")
    with disks.mounted("full", disks.Case("", request.param, lambda _: None)) as place:
        yield place


def test_a_picture_is_drawn_before_its_file_is_begun(tmp_path):
    """A process that is killed while it draws leaves no file behind."""
    seen = []

    def draw(file):
        seen.extend(tmp_path.iterdir())
        file.write(b"picture")

    assert atomic_write(tmp_path / "p.png", draw).read_bytes() == b"picture"
    assert seen == []


def test_nothing_of_the_picture_in_memory_is_lent_while_its_file_is_written(tmp_path, monkeypatch):
    """Python 3.12.1 crashes if a BytesIO is freed before its buffer."""
    drawn = []

    def draw(file):
        drawn.append(file)
        file.write(b"picture")

    def replace(source, target, move=os.replace):
        drawn[0].close()  # a BufferError while a buffer is lent
        move(source, target)

    monkeypatch.setattr(os, "replace", replace)
    assert atomic_write(tmp_path / "p.png", draw).read_bytes() == b"picture"
    assert drawn[0].closed


@pytest.mark.parametrize("full", ["curve.json", "curve.png"], indirect=True)
def test_find_prints_its_answer_though_the_disk_is_full(full, tmp_path, monkeypatch):
    command_line.write_files(tmp_path)
    monkeypatch.setattr(keras_lr, "lr_find", readers._ramp)
    (name,) = set(os.listdir(full)) - {"filler"}
    option = "--save" if name.endswith(".json") else "--plot"
    result = command_line.run("find", tmp_path / "model.keras", option, full / name)
    assert result.exit_code == 1
    assert result.stdout.startswith("Learning rate")
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "No space left" in errors[0], result.stderr
    assert (full / name).read_bytes() == disks.OLD
    assert set(os.listdir(full)) == {name, "filler"}


@pytest.mark.parametrize("full", ["rates.csv"], indirect=True)
def test_lr_logger_goes_on_when_the_disk_is_full_and_writes_it_all_later(full):
    class Room(keras.callbacks.Callback):
        """There is room again before the last epoch."""

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                (full / "filler").unlink()

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = np.ones((160, 2), "float32")
    logger = keras_lr.LRLogger(full / "rates.csv")
    with pytest.warns(UserWarning, match=r"could not write .*rates\.csv: No space left"):
        model.fit(
            x, x[:, :1], batch_size=1, epochs=3, verbose=0, shuffle=False,
            callbacks=[logger, Room()],
        )  # fmt: skip
    assert logger.history["step"] == list(range(480))
    rows = (full / "rates.csv").read_text().splitlines()
    assert rows[0] == "epoch,step,learning_rate,momentum"
    assert [row.split(",")[1] for row in rows[1:]] == [str(step) for step in range(480)]


@needs_dev_full
@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_a_full_stdout_is_told_in_a_line(arguments):
    with open("/dev/full", "w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "keras_lr_cli", *arguments],
            stdout=stdout, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The answer could not be written: ")
    assert done.stderr.count("\n") == 1


@needs_dev_full
def test_an_answer_that_stdout_does_not_take_is_in_the_error(monkeypatch):
    with open("/dev/full", "w", buffering=1) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(RunFailed, match=r"No space left.*The learning rate is 0\.1\."):
            print_answer("Learning rate 0.1\n" * 9000, "The learning rate is 0.1.")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())  # what is left goes there
