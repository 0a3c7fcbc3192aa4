"""Reading training logs: each writer gives the same arrays, each broken file one sentence."""

import csv
import json
import math
import random
import struct
import sys
import time

import keras
import numpy as np
import pytest

from keras_lr.diagnosis import diagnose
from keras_lr.diagnosis.columns import role_of
from keras_lr.diagnosis.log import MOST_ROWS, binned
from keras_lr.diagnosis.readers import read

pytestmark = pytest.mark.long_elsewhere(
    "whole runs, of parts that other tests check on each backend"
)

ROWS = {
    "epoch": [0, 1, 2],
    "loss": [2.0, 1.0, 0.5],
    "val_loss": [2.5, 1.5, 1.25],
    "learning_rate": [0.1, 0.1, 0.05],
}


def written(path, text):
    path.write_text(text, newline="")
    return path


def table(separator=",", columns=ROWS, head=True):
    lines = [separator.join(columns)] if head else []
    lines += [separator.join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    return "\n".join(lines) + "\n"


def check_rows(log, **expected):
    for name, values in {**ROWS, **expected}.items():
        found = log.positions if name == "epoch" else getattr(log, name)
        np.testing.assert_array_equal(found, values, err_msg=name)


def fitted(callbacks):
    """A model trained for three epochs, and its history."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse", metrics=["mae"])
    history = model.fit(
        *(x, x.sum(axis=1)),
        validation_data=(x[:16], x[:16].sum(axis=1)),
        epochs=3,
        verbose=0,
        callbacks=callbacks,
    )
    return model, history, x


# What Keras writes, end to end


def test_csv_logger_history_json_and_tensorboard_give_the_same_arrays(tmp_path):
    fixed = keras.callbacks.LearningRateScheduler(lambda epoch: 0.05 / (epoch + 1))
    board = keras.callbacks.TensorBoard(tmp_path / "board", write_graph=False)
    path = tmp_path / "log.csv"
    _, history, _ = fitted([fixed, keras.callbacks.CSVLogger(path), board])
    (tmp_path / "history.json").write_text(json.dumps(history.history, default=float))
    sources = [path, tmp_path / "history.json", tmp_path / "board", history, history.history]
    for source in sources:
        log = read(source)
        assert (log.unit, log.restarts, log.notes) == ("epoch", (), ())
        np.testing.assert_array_equal(log.positions, [0, 1, 2])
        for name in ("loss", "val_loss"):
            np.testing.assert_allclose(getattr(log, name), history.history[name], rtol=1e-5)
        np.testing.assert_allclose(log.learning_rate, [0.05, 0.025, 0.05 / 3], rtol=1e-5)
    assert read(history).total_epochs == 3
    np.testing.assert_array_equal(read(tmp_path / "board").updates, [2, 4, 6])


def test_a_run_that_goes_on_in_the_same_files_shows_where(tmp_path):
    path, board = tmp_path / "log.csv", tmp_path / "board"

    def callbacks(append):
        return [
            keras.callbacks.CSVLogger(path, append=append),
            keras.callbacks.TensorBoard(board, write_graph=False),
        ]

    model, first, x = fitted(callbacks(False))
    second = model.fit(
        *(x, x.sum(axis=1)), initial_epoch=2, epochs=4, verbose=0, callbacks=callbacks(True)
    )
    expected = first.history["loss"][:2] + second.history["loss"]
    for source in (path, board):
        log = read(source)
        np.testing.assert_array_equal(log.positions, [0, 1, 2, 3])
        np.testing.assert_allclose(log.loss, expected, rtol=1e-5)
        assert log.restarts == (2,)
        assert log.notes == (
            "1 epoch was trained again after a restart; the later values are used.",
        )


# Forms of one log


@pytest.mark.once
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_csv_files_of_each_separator(tmp_path, separator, ending):
    text = table(separator).replace("\n", ending)
    check_rows(read(written(tmp_path / "log.csv", "\ufeff" + text)))


@pytest.mark.once
def test_decimal_commas_between_semicolons(tmp_path):
    check_rows(read(written(tmp_path / "log.csv", table(";").replace(".", ","))))


@pytest.mark.once
@pytest.mark.parametrize(
    "form",
    [
        "{loss}", " {loss} ", "[{loss}]", "np.float32({loss})", "array({loss}, dtype=float32)",
        "tf.Tensor({loss}, shape=(), dtype=float32)", "array([{loss}], dtype=float32)",
    ],
)  # fmt: skip
def test_numbers_as_they_are_printed(tmp_path, form):
    with open(tmp_path / "log.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["loss"])
        rows.writerows([[form.format(loss=text)] for text in ("2.0", "1e-3", "-.5", "nan", "-inf")])
    found = read(tmp_path / "log.csv").loss
    np.testing.assert_array_equal(found, [2.0, 1e-3, -0.5, math.nan, -math.inf])


@pytest.mark.once
def test_forms_of_json(tmp_path):
    lists = {name: values for name, values in ROWS.items() if name != "epoch"}
    rows = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    as_text = {name: [str(value) for value in values] for name, values in lists.items()}
    wrapped = {"history": lists, "params": {"epochs": 9, "steps": 4}, "epoch": [0, 1, 2]}
    state = {"log_history": [{"loss": row.pop("loss"), **row} for row in map(dict, rows)]}
    forms = [lists, ROWS, rows, as_text, wrapped, state]
    for content in forms:
        check_rows(read(written(tmp_path / "log.json", json.dumps(content))))
    check_rows(read(written(tmp_path / "log.txt", "\n".join(map(json.dumps, rows)))))
    assert read(written(tmp_path / "log.json", json.dumps(wrapped))).total_epochs == 9
    lost = {**lists, "loss": [2.0, math.nan, math.inf]}
    check_rows(read(written(tmp_path / "log.json", json.dumps(lost))), loss=lost["loss"])


@pytest.mark.once
def test_objects_of_python():
    pandas = pytest.importorskip("pandas")
    check_rows(read(ROWS))
    check_rows(read({name: np.array(values) for name, values in ROWS.items()}))
    check_rows(read(pandas.DataFrame(ROWS)))
    lost = {**ROWS, "loss": [2.0, math.nan, math.nan]}
    check_rows(read(pandas.DataFrame(lost)), loss=lost["loss"])
    gaps = pandas.DataFrame({"loss": [4.0, 2.0, 1.0, 0.5], "val_loss": [None, 3.0, None, 2.0]})
    np.testing.assert_array_equal(read(gaps).evaluated.val_loss, [3.0, 2.0])
    with pytest.raises(TypeError, match="must be a path, a History"):
        read(3)


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("loss", "loss"),
        ("train_loss", "loss"),
        ("Loss/train", "loss"),
        ("trainLoss", "loss"),
        ("epoch_loss", "loss"),
        ("val_loss", "val_loss"),
        ("validation/epoch_loss", "val_loss"),
        ("eval_loss", "val_loss"),
        ("Loss/val", "val_loss"),
        ("lr", "learning_rate"),
        ("lr-Adam", "learning_rate"),
        ("train/epoch_learning_rate", "learning_rate"),
        ("batch_size", "batch_size"),
        ("global_step", "step"),
        ("accuracy", "metric accuracy"),
        ("val_accuracy", "val_metric accuracy"),
        ("dense_1_loss", None),
        ("evaluation_loss_vs_iterations", None),
        ("val_mae", None),
        ("color", None),
    ],
)
def test_a_column_is_known_by_its_name(name, role):
    assert (role_of(name) or (None,))[0] == role


@pytest.mark.once
def test_the_plainest_of_two_columns_counts():
    both = {"train_loss_step": [9.0, 9.0], "loss": [2.0, 1.0], "epoch_loss": [5.0, 5.0]}
    np.testing.assert_array_equal(read(both).loss, [2.0, 1.0])


# Columns with values in different rows


@pytest.mark.once
def test_losses_of_batches_are_averaged_between_held_out_losses(tmp_path):
    """Lightning's CSVLogger: rows of batches and of epoch ends, with empty cells."""
    text = "epoch,step,train_loss,val_loss\n"
    for epoch in range(4):
        for batch in range(5):
            text += f"{epoch},{5 * epoch + batch},{10 - epoch + batch / 10},\n"
        text += f"{epoch},{5 * epoch + 4},,{20 - epoch}\n"
    log = read(written(tmp_path / "metrics.csv", text))
    assert (log.unit, len(log)) == ("step", 20)
    log = log.evaluated
    np.testing.assert_allclose(log.loss, [10.2, 9.2, 8.2, 7.2])
    np.testing.assert_array_equal(log.val_loss, [20, 19, 18, 17])


@pytest.mark.once
def test_validation_each_few_epochs(tmp_path):
    losses = [8.0, 6.0, 4.0, 2.0]
    log = read({"loss": losses, "val_loss": [7.0, 3.0]})  # as History has it
    np.testing.assert_array_equal(log.loss, losses)
    log = log.evaluated
    np.testing.assert_array_equal(log.positions, [1, 3])
    np.testing.assert_array_equal(log.loss, [7.0, 3.0])
    np.testing.assert_array_equal(log.val_loss, [7.0, 3.0])
    text = "epoch,loss,val_loss\n0,8,NA\n1,6,7\n2,4,NA\n3,2,3\n"  # as CSVLogger has it
    log = read(written(tmp_path / "log.csv", text))
    np.testing.assert_array_equal(log.evaluated.loss, [7.0, 3.0])


@pytest.mark.once
def test_files_of_several_runs(tmp_path):
    again = table() + table(head=False)
    log = read(written(tmp_path / "log.csv", again))  # fit twice, from epoch 0
    np.testing.assert_array_equal(log.loss, [2.0, 1.0, 0.5] * 2)
    assert log.restarts == (3,)
    assert (log.at(1), log.at(4)) == ("epoch 1 of run 1", "epoch 1 of run 2")
    other = {"epoch": [3, 4], "val_loss": [7, 8], "loss": [9, 8], "learning_rate": [1, 1]}
    log = read(written(tmp_path / "log.csv", table() + table(columns=other)))  # another order
    np.testing.assert_array_equal(log.loss, [2.0, 1.0, 0.5, 9, 8])
    assert log.restarts == (3,)
    back = {"epoch": [1, 2], "loss": [0.9, 0.4], "val_loss": [1, 1], "learning_rate": [1, 1]}
    log = read(written(tmp_path / "log.csv", table() + table(columns=back, head=False)))
    np.testing.assert_array_equal(log.positions, [0, 1, 2])
    np.testing.assert_array_equal(log.loss, [2.0, 0.9, 0.4])
    assert log.restarts == (1,)
    assert log.notes == ("2 epochs were trained again after a restart; the later values are used.",)


@pytest.mark.once
def test_a_long_log_is_averaged():
    log = read({"loss": np.arange(10_000.0)})
    assert len(log) == 10_000
    mean = binned(log)
    assert len(mean) == MOST_ROWS
    assert mean.positions[-1] == 9999
    np.testing.assert_array_equal(mean.loss, np.arange(10_000.0).reshape(200, 50).mean(axis=1))
    notes = diagnose({"loss": np.arange(10_000.0, 0.0, -1.0)}).notes
    assert "10000 epochs are averaged into 200 rows." in notes


# TensorBoard


def events(folder, scalars):
    """An event file of another writer than Keras; `scalars` has values by tag."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for tag, values in scalars.items():
            for step, value in enumerate(values):
                writer.add_scalar(tag, value, step)


@pytest.mark.once
def test_event_files_of_torch(tmp_path):
    scalars = {"Loss/train": ROWS["loss"], "Loss/val": ROWS["val_loss"], "lr": [0.5, 0.5, 0.25]}
    events(tmp_path / "run", scalars)
    check_rows(read(tmp_path / "run"), learning_rate=[0.5, 0.5, 0.25])
    (file,) = (tmp_path / "run").iterdir()
    check_rows(read(file), learning_rate=[0.5, 0.5, 0.25])
    assert read(tmp_path).unit == "step"  # the only run below


@pytest.mark.once
def test_several_runs_in_a_folder_are_named(tmp_path):
    for name in ("first", "second"):
        events(tmp_path / name, {"loss": [2.0, 1.0]})
    with pytest.raises(
        ValueError, match="several runs; pass the folder of one of them: first, second"
    ):
        read(tmp_path)
    assert len(read(tmp_path / "second")) == 2


@pytest.mark.once
def test_an_event_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path):
    events(tmp_path, {"loss": np.arange(10.0, 0.0, -1.0)})
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    log = read(tmp_path)
    assert 7 <= len(log) < 10 and "truncated" in log.notes[0]
    length = struct.unpack("<Q", whole[:8])[0]
    for junk in (b"", b"junk", whole[: 16 + length], bytes(200), whole[:5]):
        file.write_bytes(junk)
        with pytest.raises(ValueError, match="no training loss column|no TensorBoard event file"):
            read(tmp_path)


@pytest.mark.once
def test_a_folder_without_the_tensorboard_package_is_refused(tmp_path, monkeypatch):
    events(tmp_path, {"loss": [1.0]})
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        read(tmp_path)


# Files that are not logs

BAD_TEXTS = {
    "": "is empty",
    " \n\n": "is empty",
    "epoch,loss\n": "is empty: it has only a header",
    "hello\n": "is not a log: it has one line",
    "epoch,accuracy\n0,0.5\n": "no training loss column; its columns are: epoch, accuracy.",
    "epoch,val_loss\n0,0.5\n": "no training loss column",
    "epoch,loss\n0,abc\n": "line 2: loss must be a number; got 'abc'.",
    "epoch,loss\n0,1\n1,2 3\n": "line 3: loss must be a number; got '2 3'.",
    "epoch,loss\n0,NA\n": "its loss column has no values",
    "0,1.5\n1,1.2\n": "has no header",
    "epoch,loss\n0,1\n1\n2,3\n": "line 3, has 1 cells; the header has 2.",
    "epoch,loss\n0,1,2\n": "line 2, has 3 cells; the header has 2.",
    "epoch,loss\n0,\0\n": "is not a text file",
    "{": "is not valid JSON",
    "[]": "is empty",
    "{}": "is empty",
    "[1, 2]": "must hold lists of values by column name, or rows of them",
    '{"loss": 3}': "loss must be a list; got 3.",
    '{"loss": []}': "its loss column has no values",
    '{"loss": [1, 2], "learning_rate": [1]}': "all lists must have the same length",
    '{"loss": [1, {}]}': "loss must be a number; got {}",
    '{"accuracy": [1]}': "no training loss column; its columns are: accuracy.",
    "[" * 100_000: "is not valid JSON",
}


@pytest.mark.once
@pytest.mark.parametrize("content", BAD_TEXTS, ids=lambda content: content[:30])
def test_a_file_that_is_not_a_log_is_refused_in_one_line(tmp_path, content):
    path = written(tmp_path / "log.csv", content)
    with pytest.raises(ValueError) as refusal:
        diagnose(path)
    message = str(refusal.value)
    assert BAD_TEXTS[content] in message and str(path) in message
    assert "\n" not in message and len(message) < 500
    assert path.read_text() == content


@pytest.mark.once
def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read(tmp_path / "missing.csv")
    (tmp_path / "log.csv").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="is not a text file"):
        read(tmp_path / "log.csv")
    (tmp_path / "log.csv").unlink()
    with pytest.raises(ValueError, match="contains no TensorBoard event file"):
        read(tmp_path)


@pytest.mark.once
def test_the_last_line_of_a_killed_run_is_left_out(tmp_path):
    text = table()
    whole = text[: text.rindex("\n", 0, -1) + 1]
    for cut in range(len(whole) + 1, len(text) - 1):
        cells = text[len(whole) : cut].count(",")
        log = read(written(tmp_path / "log.csv", text[:cut]))
        whole_rate = log.learning_rate[-1] == ROWS["learning_rate"][-1]
        assert len(log) == 2 or whole_rate or text[:cut].endswith(",")
        assert len(log) == 3 or "incomplete" in log.notes[0] or "cut off" in log.notes[0]
        if cells < 3:
            assert len(log) == 2 and "incomplete" in log.notes[0]
    lines = "".join(json.dumps({"loss": 1.0 / (epoch + 1)}) + "\n" for epoch in range(5))
    log = read(written(tmp_path / "log.jsonl", lines[:-4]))
    assert len(log) == 4 and "incomplete" in log.notes[0]


@pytest.mark.once
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path):
    """Randomly changed, dropped and repeated bytes give a result or a ValueError."""
    chance = random.Random(0)
    sources = [table().encode(), table(";").encode(), json.dumps(ROWS).encode()]
    path = tmp_path / "log.csv"
    for _ in range(400):
        content = bytearray(chance.choice(sources))
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(content))
            action = chance.randrange(4)
            if action == 0:
                content[place] = chance.randrange(256)
            elif action == 1:
                del content[place : place + chance.randint(1, 20)]
            elif action == 2:
                content[place:place] = content[: chance.randint(1, 40)]
            else:
                content[place:place] = chance.choice([b",", b"\n", b'"', b"nan", b"1e999", b"-"])
            content = content or bytearray(b" ")
        path.write_bytes(content)
        try:
            diagnose(path).to_text()
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
        assert path.read_bytes() == content


# Time


@pytest.mark.once
@pytest.mark.parametrize(
    ("rows", "least"),
    [
        (lambda n: "0;1" + "," * n + "(\n", 25_000),
        (lambda n: "0;" + "1" * n + "x\n", 25_000),
        (lambda n: "0;1." + "1" * n + "x\n", 25_000),
        (lambda n: "0;1," + "a" * n + "()" + "a" * n + "(\n", 12_000),
        (lambda n: "0;1" + " " * n + "(\n", 25_000),
        (lambda n: "0;1\nepoch;loss\n" * n + "0;1\n", 500),
        (lambda n: "1;1\n0;1\n" * n, 500),
    ],
)
def test_reading_takes_a_time_linear_in_the_file(tmp_path, rows, least):
    """Four times the text takes less than eight times the time."""

    def seconds(count):
        path = tmp_path / f"{count}.csv"
        path.write_text("epoch;loss\n" + rows(count))
        took = []
        for _ in range(3):
            start = time.perf_counter()
            try:
                read(path)
            except ValueError:
                pass
            took.append(time.perf_counter() - start)
        return min(took)

    assert seconds(4 * least) < 8 * seconds(least) + 0.05
