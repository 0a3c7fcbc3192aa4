"""What programs write as a log: names of columns, encodings, tables in text, shapes of JSON."""

import bz2
import gzip
import io
import json
import lzma
import math
import re
import tarfile
import zipfile

import numpy as np
import pytest

from keras_lr._util.compressed import unpacked
from keras_lr.diagnosis import diagnose
from keras_lr.diagnosis.choose import Asked
from keras_lr.diagnosis.readers import read, read_text

pytestmark = pytest.mark.once

COUNT = 12
LOSS = np.round(0.25 + 2.0 * 0.7 ** np.arange(COUNT), 4)
HELD = np.round(LOSS + 0.1, 4)
ACC = np.round(1 - LOSS / 4, 4)


def table(columns, separator=","):
    rows = zip(*columns.values(), strict=True)
    return "".join(separator.join(map(str, row)) + "\n" for row in [columns, *rows])


def plain(separator=","):
    return table({"epoch": range(COUNT), "train_loss": LOSS, "val_loss": HELD}, separator)


def in_zip(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def assert_read(log, *, held_out=True):
    np.testing.assert_allclose(log.loss, LOSS, rtol=1e-9)
    if held_out:
        np.testing.assert_allclose(log.val_loss, HELD, rtol=1e-9)
    else:
        assert log.val_loss is None
    assert not log.restarts


# Names of columns


@pytest.mark.parametrize(
    ("loss", "held_out"),
    [
        ("Train Loss", "Val Loss"), ("trainLoss", "validLoss"), ("trainloss", "valloss"),
        ("train_losses", "test_losses"), ("tr_loss", "va_loss"), ("trn_loss", "vld_loss"),
        ("main/loss", "validation/main/loss"), ("Loss (train)", "Loss (val)"),
        ("combined/loss", "eval/combined/loss"), ("cost", "val_cost"), ("train_mse", "val_mse"),
        ("rmse", "val_rmse"), ("ce_loss", "val_ce_loss"), ("train_bce", "valid_bce"),
    ],
)  # fmt: skip
def test_names_of_losses(loss, held_out):
    columns = {"Epoch": range(COUNT), loss: LOSS, "x": ACC, held_out: HELD}
    assert_read(read_text(table(columns), "log.csv"))


def test_a_loss_of_another_name_is_told_and_yields_to_a_loss():
    log = read({"train_mse": LOSS, "val_mse": HELD, "mae": LOSS / 2})
    assert "The loss is train_mse; the log has no column named loss." in log.notes
    assert_read(read({"mse": LOSS / 2, "loss": LOSS, "val_loss": HELD, "val_mse": HELD / 2}))


@pytest.mark.parametrize(
    "names",
    [
        ("d_loss", "g_loss"),
        ("train/d_loss", "train/g_loss"),
        ("train_actor_loss", "train_x_loss"),
    ],
)
def test_losses_that_oppose_each_other_are_not_added(names):
    columns = dict.fromkeys(names, LOSS)
    with pytest.raises(ValueError, match="If one of them is the loss, name it with loss"):
        read(columns)
    np.testing.assert_array_equal(read(columns, Asked(loss=names[0])).loss, LOSS)


def test_the_rate_of_yolov5():
    columns = {"epoch": range(COUNT), "train/box_loss": LOSS, "x/lr0": LOSS / 10}
    np.testing.assert_array_equal(read(columns).learning_rate, LOSS / 10)


# Cells


def test_cells_in_percent_and_positions_out_of_a_total():
    text = table(
        {
            "epoch": [f"{row}/{COUNT}" for row in range(1, COUNT + 1)],
            "loss": LOSS,
            "val_loss": HELD,
            "acc": [f"{100 * value:.2f}%" for value in ACC],
        }
    )
    log = read_text(text, "log.csv")
    assert_read(log)
    np.testing.assert_array_equal(log.positions, np.arange(1, COUNT + 1))
    np.testing.assert_allclose(log.metric, ACC, atol=1e-4)


def test_a_metric_that_is_not_a_number_is_left_out_and_told():
    mixed = ["good", *ACC[1:]]
    columns = {"epoch": range(COUNT), "loss": LOSS, "val_loss": HELD, "accuracy": mixed}
    log = read_text(table(columns), "log.csv")
    assert_read(log)
    assert log.metric is None
    assert "accuracy is left out, because it is not a column of numbers" in log.notes[0]
    assert log.notes[0].endswith("line 2 has 'good'.")
    with pytest.raises(ValueError, match="line 2: loss must be a number; got 'good'"):
        read_text("epoch,val_loss,loss\n0,1,good\n1,2,3\n", "log.csv")


def test_a_row_of_means_is_skipped_and_told():
    log = read_text(plain() + "mean,0.5,0.6\n", "log.csv")
    assert_read(log)
    assert log.notes == ("1 row was skipped, without a number for the epoch or the step.",)


def test_no_log_is_a_missing_value():
    """The Trainer of transformers prints it in notebooks before its first training loss."""
    rows = [("Epoch", "Training Loss", "Validation Loss"), (1, "No log", 0.9), (2, 0.8, 0.7)]
    rows += [(3, 0.6, 0.5)]
    log = read_text("\n".join("\t".join(map(str, row)) for row in rows), "out.txt")
    np.testing.assert_array_equal(log.loss, [0.8, 0.6])
    np.testing.assert_array_equal(log.evaluated.val_loss, [0.9, 0.7, 0.5])


# Files


@pytest.mark.parametrize(
    "content",
    [
        plain().encode("utf-16"),
        plain().encode("utf-8-sig").replace(b"\n", b"\r\n"),
        plain().encode().replace(b"\n", b"\r"),
        ("# été\n" + plain()).encode("latin-1"),
        ("sep=;\n" + plain(";")).encode(),
        gzip.compress(plain().encode()),
        bz2.compress(plain().encode()),
        lzma.compress(plain().encode()),
        in_zip({"log.csv": plain()}),
        in_zip({"runs/": "", "runs/log.csv": plain(), "__MACOSX/runs/._log.csv": "\0"}),
        plain().replace("\n", ",\n").encode(),
    ],
    ids=["utf-16", "mark", "cr", "latin-1", "sep", "gz", "bz2", "xz", "zip", "mac zip", "comma"],
)
def test_files_of_other_encodings_and_compressed_ones(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    assert_read(read(path))


@pytest.mark.parametrize("name", ["log.json.gz", "log.JSON.zip"])
def test_a_compressed_file_of_json_has_the_message_of_json(tmp_path, name):
    text = "not json"
    packed = in_zip({"a": text}) if name.endswith("zip") else gzip.compress(text.encode())
    (tmp_path / name).write_bytes(packed)
    with pytest.raises(ValueError, match=f"{name} is not valid JSON"):
        read(tmp_path / name)


_ZIPPED = in_zip({"log.csv": plain() * 50})
_CRC = _ZIPPED[14:18]
_XZ = lzma.compress(plain().encode())
_TARRED = io.BytesIO()
with tarfile.open(fileobj=_TARRED, mode="w") as _archive:
    _archive.addfile(tarfile.TarInfo("log.csv"))
DAMAGED = "is a damaged compressed file: "


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv.gz", gzip.compress(plain().encode() * 50)[:-40], DAMAGED + "Compressed file end"),
        ("log.csv.bz2", bz2.compress(plain().encode() * 50)[:-9], DAMAGED + "Compressed file end"),
        ("log.csv.xz", lzma.compress(plain().encode() * 50)[:-40], DAMAGED + "Compressed file end"),
        ("log.csv.gz", gzip.compress(b"a")[:10] + b"\xff" * 60, DAMAGED + "Error -3"),
        ("log.csv.xz", _XZ[:30] + b"\xff" * 9 + _XZ[39:], DAMAGED + "Corrupt input data"),
        ("log.csv.gz", b"\x00\x01\x02" * 9, DAMAGED + "it does not begin as a .gz file"),
        ("log.csv.bz2", b"BZh91AY&SY" + b"\0" * 60, DAMAGED + "Invalid data stream"),
        ("log.csv.zip", _ZIPPED[:-40], DAMAGED + "it is cut short"),
        ("log.csv.zip", _ZIPPED.replace(_CRC, b"\0\0\0\0"), DAMAGED + "Bad CRC-32"),
        ("log.csv.zip", in_zip({}), "is an archive that holds no file"),
        ("log.csv.zip", in_zip({"a/": ""}), "is an archive that holds no file"),
        ("log.csv.zip", in_zip({"a.csv": "", "b.csv": ""}), "holds 2: a.csv, b.csv. Unpack it"),
        ("log.csv.zip", in_zip({"a.csv": ""}), "log.csv.zip is empty"),
        ("log.csv", in_zip({"[Content_Types].xml": "", "x": ""}), "save it as a CSV file"),
        ("log.tar.gz", gzip.compress(_TARRED.getvalue()), "is a tar archive, which is not read"),
        ("log.csv.zst", b"\x28\xb5\x2f\xfd" + b"a" * 9, "is compressed with Zstandard"),
    ],
    ids=range(16),  # the bytes of gzip hold the time, and so would the names made of them
)
def test_a_compressed_file_that_is_not_one_whole_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path / name)


def test_an_encrypted_archive_is_refused(tmp_path):
    content = bytearray(in_zip({"log.csv": plain()}))
    content[6] |= 1  # the flag of encryption: of the file, and of the entry of the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "log.csv.zip").write_bytes(content)
    with pytest.raises(ValueError, match="is encrypted; unpack it with its password"):
        read(tmp_path / "log.csv.zip")


def test_a_disk_that_fails_is_not_taken_for_a_damaged_file():
    class Failing(io.BytesIO):
        def read(self, *size):
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().read(*size)

    with (
        pytest.raises(OSError, match="Input/output error"),
        unpacked(Failing(gzip.compress(b"a" * 2000)), "a.gz") as file,
    ):
        file.read()


# Tables in text


def test_tables_that_programs_print():
    rows = list(zip(range(COUNT), LOSS, HELD, strict=True))
    fastai = "epoch     train_loss  valid_loss  time    \n" + "".join(
        f"{at:<10d}{loss:<12.4f}{held:<12.4f}00:06   \n" for at, loss, held in rows
    )
    pandas = "    epoch  train_loss  val_loss\n" + "".join(
        f"{at:<4d}{at:5d}{loss:12.4f}{held:10.4f}\n" for at, loss, held in rows
    )
    card = (
        "# model\n\n- learning_rate: 5e-05\n- Loss: 0.3\n\n"
        "| Training Loss | Epoch | Step | Validation Loss |\n|:---:|:---:|:---:|:---:|\n"
    )
    card += "".join(f"| {loss} | {at}.0 | {at}00 | {held} |\n" for at, loss, held in rows)
    card += "\n### Framework versions\n- Transformers 4.2\n"
    boxed = "+----+----+----+\n| Epoch | Loss | Val Loss |\n+====+====+====+\n"
    boxed += "".join(f"| {at} | {loss} | {held} |\n+----+----+----+\n" for at, loss, held in rows)
    for text in (fastai, pandas, card, boxed, plain("   ")):
        assert_read(read_text("start\n" + text, "out.txt"))


def test_rows_that_name_their_data():
    """PyTorch programs write a row for each phase of an epoch."""
    train = [f"{at},train,{v},0.5" for at, v in enumerate(LOSS)]
    held = [f"{at},val,{v},0.5" for at, v in enumerate(HELD)]
    head = "epoch,phase,loss,acc\n"
    for rows in ([*train, *held], [row for pair in zip(train, held, strict=True) for row in pair]):
        assert_read(read_text(head + "\n".join(rows), "log.csv"))
    twice = read_text(head + "\n".join([*train, *held] * 2), "log.csv")
    assert len(twice) == 2 * COUNT and len(twice.restarts) == 1


def test_a_value_a_row():
    text = "epoch,metric,value\n" + "".join(
        f"{at},train_loss,{loss}\n{at},val_loss,{held}\n"
        for at, (loss, held) in enumerate(zip(LOSS, HELD, strict=True))
    )
    log = read_text(text, "log.csv")
    assert_read(log)
    assert log.unit == "epoch"


def test_a_scalar_downloaded_from_tensorboard():
    text = "Wall time,Step,Value\n" + "".join(f"1700,{at},{v}\n" for at, v in enumerate(LOSS))
    assert_read(read_text(text, "run-train-tag-epoch_loss.csv"), held_out=False)
    with pytest.raises(ValueError, match="its columns are: Wall time, Step, Value"):
        read_text(text, "run-train-tag-epoch_accuracy.csv")


def test_losses_of_the_steps_and_of_the_epoch_are_no_restart():
    """Lightning writes both for an epoch, each in a row of its own."""
    text = "epoch,step,train_loss_epoch,train_loss_step,val_loss\n"
    for at, (loss, held) in enumerate(zip(LOSS, HELD, strict=True)):
        end = 100 * at + 99
        text += f"{at},{end - 50},,{loss + 0.05},\n{at},{end},,,{held}\n{at},{end},{loss},,\n"
    assert_read(read_text(text, "metrics.csv"))


# JSON


def test_shapes_of_json():
    lists = {"loss": LOSS.tolist(), "val_loss": HELD.tolist()}
    pairs = list(zip(LOSS.tolist(), HELD.tolist(), strict=True))
    rows = [{"loss": loss, "val_loss": held} for loss, held in pairs]
    for content in (
        {name: {str(at): v for at, v in enumerate(values)} for name, values in lists.items()},
        {"columns": list(lists), "index": list(range(COUNT)), "data": list(map(list, pairs))},
        {f"epoch_{at + 1}": row for at, row in enumerate(rows)},
        {"train": {"loss": lists["loss"]}, "val": {"loss": lists["val_loss"]}},
        {"config": {"lr": 0.1}, "history": lists, "test": {"loss": 0.3}},
        {"model": "net", "results": {"best_epoch": 3, "training_history": lists}},
        {"epochs": rows},
        {"model": {"name": "x"}, "log": [{"epoch": 0, "text": "a"}], "all": {"epochs": rows}},
        [{"train": {"loss": loss}, "val": {"loss": held}} for loss, held in pairs],
        {"training": {"combined": lists}, "validation": {"combined": {"loss": lists["val_loss"]}}},
    ):
        assert_read(read_text(json.dumps(content), "log.json"))


def test_histories_of_folds_are_runs():
    lists = {"loss": LOSS.tolist(), "val_loss": HELD.tolist()}
    said = diagnose({"fold_1": {"history": lists}, "fold_2": {"history": lists}})
    assert [run.rows for run in (*said.earlier, said)] == [COUNT, COUNT]


def test_what_python_prints():
    lists = {"loss": LOSS.tolist(), "val_loss": HELD.tolist()}
    assert_read(read_text(str(lists), "out.txt"))
    numpy = str(lists).replace("[", "[np.float32(", 1).replace(",", "),", 1)
    assert_read(read_text(numpy, "out.txt"))
    lost = str({"loss": [1.0, float("nan"), float("inf")], "val_loss": [None, 1.0, 2.0]})
    np.testing.assert_array_equal(read_text(lost, "out.txt").loss, [1.0, np.nan, np.inf])


def test_dictionaries_between_progress_bars():
    """The output of the Trainer of transformers, with numbers or text as values."""
    for form in (float, str):
        text = "Namespace(epochs=3)\n"
        for at, (loss, held) in enumerate(zip(LOSS, HELD, strict=True), start=1):
            text += f"\r {at}%|###  | 10/100 [00:10<00:10]\n"
            text += f"{ {'loss': form(loss), 'learning_rate': form(0.1), 'epoch': form(at)} }\n"
            text += f"{ {'eval_loss': form(held), 'eval_runtime': form(2), 'epoch': form(at)} }\n"
        text += "{'train_runtime': 9.0, 'train_loss': 0.7, 'epoch': 12.0}\n"
        log = read_text(text, "train.log")
        assert_read(log)
        np.testing.assert_array_equal(log.learning_rate, [0.1] * COUNT)


# Text


def spoken(form, begin="", end="", **options):
    lines = [
        form.format(at=at, loss=loss, held=held, acc=acc)
        for at, (loss, held, acc) in enumerate(zip(LOSS, HELD, ACC, strict=True), start=1)
    ]
    return read_text(begin + "\n".join(lines) + end, "train.log", **options)


@pytest.mark.parametrize(
    "form",
    [
        "Epoch: {at:02d} | 0m 5s\n\tTrain Loss: {loss} | Train Acc: 50%\n\t Val. Loss: {held}",
        "Epoch {at}/12\n----------\ntrain Loss: {loss} Acc: 0.5\nval Loss: {held} Acc: 0.5\n",
        "epoch {at} loss {loss} acc 0.5 val_loss {held} val_acc 0.5",
        "Ep {at:3d}/12 | loss {loss} | val loss {held} | 3.2s",
        "[{at:3d}/12] train_loss: {loss} val_loss: {held}",
        "epoch {at} finished. The training loss was {loss}, the validation loss was {held}",
        "Epoch(train) [{at}][50/50] lr: 1.0e-02 loss: {loss}\nEpoch(val) [{at}][9/9] loss: {held}",
        "Epoch: [{at}][50/50]\tTime 0.3 (0.5)\tLoss 9.9e+00 ({loss})\n"
        "Test: [20/20]\tTime 0.3 (0.5)\tLoss 9.1e-01 ({held})",
        "| train | epoch {at:03d} | loss {loss} | nll_loss 0.5\n"
        "| valid | epoch {at:03d} | valid on 'valid' subset | loss {held} | nll_loss 0.6",
        "Epoch {at}: 50%|## | 50/100 [00:10<00:10, loss=9.0]\r"
        "Epoch {at}: 100%|####| 100/100 [00:20<00:00, loss={loss}, val_loss={held}]",
    ],
)  # fmt: skip
def test_lines_of_many_programs(form):
    begin = "Namespace(epochs=100, lr=0.001)\nTraining for 12 epochs\n"
    end = "\nBest epoch: 3, val_loss: 0.31\nBest val loss: 0.31\nTest loss: 0.35\n"
    assert_read(spoken(form, begin, end))


@pytest.mark.parametrize(
    "form",
    [
        "Step {at}, Minibatch Loss= {loss}, Training Accuracy= 0.5",
        "INFO:tensorflow:loss = {loss}, step = {at}00 (1.2 sec)\nINFO:global_step/sec: 80",
        "Epoch: {at:04d} cost= {loss}",
        "[{at},  2000] loss: 9.0\n[{at},  4000] loss: {loss}",
        " {at}: 9.5, {loss} avg loss, 0.001 rate, 5.1 seconds, 64 images",
        "I0101 solver.cpp:228] Iteration {at}00, loss = {loss}\n"
        "I0101 solver.cpp:244]     Train net output #0: loss = {loss} (* 1 = {loss} loss)",
    ],
)
def test_lines_with_a_training_loss_only(form):
    assert_read(spoken(form), held_out=False)


BAR = "\x1b[1m{at:3d}/100\x1b[0m \x1b[32m━━━\x1b[0m \x1b[1m3s\x1b[0m 30ms/step - loss: {loss:.4f}"


@pytest.mark.parametrize("again", ["\x08" * 60 + "\r", "\n"])
def test_progress_bars_of_keras(again):
    """The bars of `evaluate` after the run, also between two epochs, are not of the run."""
    text = ""
    for at, (loss, held) in enumerate(zip(LOSS, HELD, strict=True), start=1):
        text += f"Epoch {at}/12\n"
        text += again.join(BAR.format(at=part, loss=loss + 100 - part) for part in (1, 50, 100))
        text += f" - val_loss: {held:.4f}\n"
        if at == 4:
            text += BAR.format(at=100, loss=7.0) + "\n"
    text += "Epoch 12: early stopping\nRestoring model weights from the end of the best epoch: 9.\n"
    text += BAR.replace("/100", "/32").format(at=32, loss=9.0) + "\n"
    assert_read(read_text(text, "out.log"))
    two = "".join(
        f"Epoch {at}/12\n\nEpoch {at:05d}: val_loss improved from 0.9 to 0.8, saving m-0.8\n"
        f"100/100 - 2s - loss: {loss} - val_loss: {held}\n"
        for at, (loss, held) in enumerate(zip(LOSS, HELD, strict=True), start=1)
    )
    assert_read(read_text(two, "out.log"))


def test_losses_of_single_batches_are_averaged():
    rng = np.random.default_rng(0)
    batches = LOSS[:, None] * rng.uniform(0.5, 1.5, (COUNT, 20))
    running = np.cumsum(batches, axis=1) / np.arange(1, 21)

    def text(values):
        return "".join(
            f"Train Epoch: {at} [{64 * place}/1280]\tLoss: {value:.6f}\n"
            for at, row in enumerate(values)
            for place, value in enumerate(row)
        )

    means = batches.mean(axis=1)
    np.testing.assert_allclose(read_text(text(batches), "a.log").loss, means, rtol=1e-5)
    np.testing.assert_allclose(read_text(text(running), "a.log").loss, means, rtol=0.02)


# Reinforcement learning


def test_a_loss_of_reinforcement_learning_need_not_fall():
    rng = np.random.default_rng(0)
    loss = np.linspace(0.5, 20, 40) * rng.uniform(0.6, 1.6, 40)
    said = diagnose({"rollout/ep_rew_mean": np.arange(40.0), "train/loss": loss})
    assert not said
    assert any("the log has rewards" in line for line in said.not_judged)
    assert diagnose({"train/loss": loss})
    exploded = diagnose({"reward": np.arange(40.0), "loss": np.geomspace(0.5, 1e12, 40)})
    assert exploded.names == ("diverged",)
    lost = diagnose({"reward": np.arange(40.0), "loss": [*loss[:-1], np.nan]})
    assert lost.names == ("not-a-number",)


def test_the_best_loss_is_none_of_an_empty_replay_buffer():
    loss = [0.0] * 5 + [0.5, 0.4, 0.3, 0.6, 0.7, 0.5]
    assert diagnose({"loss": loss}).best == 0.3


ENDED_AT = [1.0 / (1 + 0.3 * i) for i in range(12)]


@pytest.mark.parametrize(
    ("scale", "written"),
    [
        (1.0, lambda value: f"{value:.3f}".replace(".", ",")),  # 0,523
        (1.0, lambda value: f"{value:.2e}".replace(".", ",")),
        (5000.0, lambda value: f"{value:,.2f}"),  # 1,234.56
    ],
)
@pytest.mark.parametrize("form", ["a,b", "a;b", "a\tb", "text"])
def test_commas_in_numbers_are_read_as_they_are_meant(tmp_path, scale, written, form):
    losses = [scale * value for value in ENDED_AT]
    path = tmp_path / ("run.log" if form == "text" else "run.csv")
    if form == "text":
        lines = [f"Epoch {i}: loss: {written(value)}" for i, value in enumerate(losses)]
    else:
        lines = [f"epoch{form[1]}loss"]
        lines += [f'{i}{form[1]}"{written(value)}"' for i, value in enumerate(losses)]
    path.write_text("\n".join(lines) + "\n")
    found = diagnose(path)
    assert (found.rows, found.best_at) == (12, 11)
    assert found.best == pytest.approx(losses[-1], rel=0.02)


@pytest.mark.parametrize("form", ["csv", "text"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2,302", "1,132", "951", "823"], [2302, 1132, 951, 823]),
        (["2,302", "1,132", "0,951", "0,823"], [2.302, 1.132, 0.951, 0.823]),
        (["12,302", "1,132.5", "1,002", "999.5"], [12302, 1132.5, 1002, 999.5]),
        (["3,302", "2,132", "1,951", "1,823"], None),
    ],
)
def test_a_number_that_may_be_two_numbers_is_told_by_the_others(tmp_path, values, expected, form):
    if form == "csv":
        path = tmp_path / "run.csv"
        lines = ["epoch,loss", *(f'{i},"{value}"' for i, value in enumerate(values))]
    else:
        path = tmp_path / "run.log"
        lines = [f"Epoch {i}, loss: {value}, time: 3 s" for i, value in enumerate(values)]
    path.write_text("\n".join([*lines, ""]))
    if expected is None:
        with pytest.raises(ValueError, match=r"3,302.* may be 3\.302 or 3302; write one of them"):
            diagnose(path)
    else:
        np.testing.assert_allclose(read(path).loss, expected)


@pytest.mark.parametrize("form", ["csv", "text"])
def test_steps_with_commas_between_thousands(tmp_path, form):
    steps = [500 * i for i in range(1, 13)]
    if form == "csv":
        lines = ["step,loss", *(f'"{n:,}",{v}' for n, v in zip(steps, ENDED_AT, strict=True))]
    else:
        lines = [f"Step {n:,}: loss: {v}" for n, v in zip(steps, ENDED_AT, strict=True)]
    (tmp_path / "run.csv").write_text("\n".join(lines) + "\n")
    found = diagnose(tmp_path / "run.csv")
    assert (found.rows, found.unit, found.best_at) == (12, "step", 6000)


FORMS = {
    "csv": ("epoch,loss\n", "{},{}"),
    "text": ("", "Epoch {}: loss: {}"),
    "table": ("epoch  loss\n", "{}      {}"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("written", "cut"),
    [("{:.4f}", 1), ("{:.4f}", 4), ("{:.4f}", 5), ("{:.3e}", 1), ("{:.3e}", 4), ("{:.3e}", 7)],
)
def test_a_number_that_a_killed_run_cut_off_is_left_out(form, written, cut):
    head, line = FORMS[form]
    scale = 1e-5 if "e" in written else 1.0
    cells = [written.format(scale * value) for value in ENDED_AT]
    text = head + "\n".join(line.format(i, cell) for i, cell in enumerate(cells))
    whole, log = read_text(text, "run.log"), read_text(text[:-cut], "run.log")
    np.testing.assert_allclose(whole.loss, [float(cell) for cell in cells])
    assert not any("cut off" in note for note in whole.notes)
    np.testing.assert_allclose(log.loss, whole.loss[:-1])
    assert any("may be cut off" in note for note in log.notes)
    assert len(read_text(text[:-cut] + "0\n", "run.log").loss) == 12  # the line is complete


def test_a_log_without_a_last_line_end_may_have_digits_of_any_number():
    cells = [0.5, 0.41234, 0.3, 0.2]
    log = read_text("\n".join(["epoch,loss", *(f"{i},{c}" for i, c in enumerate(cells))]), "a.csv")
    np.testing.assert_array_equal(log.loss, cells)


@pytest.mark.parametrize("name", ["loss", "val_loss", "lr", "epoch"])
def test_two_columns_of_one_name_are_refused_unless_they_agree(name):
    def text(change):
        lines = [f"{i},{v},{v + 1},0.1,{row}" for i, v, row in change]
        return "\n".join([f"epoch,loss,val_loss,lr,{name}", *lines]) + "\n"

    column = {"loss": 1, "val_loss": 2, "lr": 3, "epoch": 0}[name]
    rows = [(i, v, (i, v, v + 1, 0.1)[column]) for i, v in enumerate(ENDED_AT)]
    assert len(read_text(text(rows), "a.csv").loss) == 12
    with pytest.raises(ValueError, match=f"in two columns named {name}; rename one of them"):
        read_text(text([(i, v, 7) for i, v, _ in rows]), "a.csv")


def tables_with_two_columns(name, other):
    """Each kind of table, whose last column has the name of the loss, and its values plus other."""
    pd = pytest.importorskip("pandas")
    rows = [[i, value, value + other] for i, value in enumerate(ENDED_AT)]
    head = ["epoch", "loss", name]
    lines = [head, *rows]
    return {
        "csv": "\n".join(",".join(map(str, line)) for line in lines) + "\n",
        "bars": "\n".join(" | ".join(map(str, line)) for line in lines) + "\n",
        "json": json.dumps({"columns": head, "data": rows}),
        "wandb": "\n".join(
            ",".join(map(str, line)) for line in [["epoch", "a - loss", f"a - {name}"], *rows]
        )
        + "\n",
        "frame": pd.DataFrame(rows, columns=head),
    }


@pytest.mark.parametrize("kind", ["csv", "bars", "json", "wandb", "frame"])
def test_each_kind_of_table_refuses_two_columns_of_one_name_unless_they_agree(kind):
    def read_it(name, other):
        table = tables_with_two_columns(name, other)[kind]
        return read_text(table, "a.csv") if isinstance(table, str) else read(table)

    np.testing.assert_allclose(read_it("loss", 0).loss, ENDED_AT)
    with pytest.raises(
        ValueError, match=r"has '?[\d.]+'? and '?[\d.]+'? in two columns named loss; rename"
    ):
        read_it("loss", 1)


def test_two_columns_without_a_role_may_have_one_name():
    assert_read(read_text(table({"loss": LOSS, "val_loss": HELD, "x": ACC, " x": LOSS}), "a.csv"))


def test_two_columns_of_one_name_may_both_have_nan():
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame([[2.0, 2.0], [math.nan, math.nan]], columns=["loss", "loss"])
    np.testing.assert_array_equal(read(table).loss, [2.0, math.nan])


def test_a_row_before_an_incomplete_one_is_kept():
    text = "epoch,loss,val_loss\n0,0.5123,0.61\n1,0.4118,0.52\n2,0.4,0.51\n3,0.3"
    log = read_text(text, "a.csv")
    np.testing.assert_array_equal(log.loss, [0.5123, 0.4118, 0.4])
    assert log.notes == ("Line 5 is incomplete and was skipped.",)


def test_empty_cells_of_the_nullable_types_of_pandas():
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"epoch": [0, 1, 2, 3], "loss": [4, 3, 2, 1], "val_loss": [None, 5] * 2})
    log = read(table.convert_dtypes())
    np.testing.assert_array_equal(log.loss, [4, 3, 2, 1])
    held_out = log if log.evaluated is None else log.evaluated
    np.testing.assert_array_equal(held_out.val_loss, [5, 5])


def test_rows_that_are_sorted_as_text_are_read_in_the_order_of_their_numbers(tmp_path):
    numbers = sorted(range(1, 13), key=str)
    lines = [f"{n},{ENDED_AT[n - 1]}" for n in numbers]
    (tmp_path / "run.csv").write_text("\n".join(["epoch,loss", *lines]) + "\n")
    found = diagnose(tmp_path / "run.csv")
    assert (found.rows, found.best_at, found.names) == (12, 12, ())
    assert any("sorted as text (1, 10, 11, 12, ...)" in note for note in found.notes)
    resumed = [*range(1, 11), *range(4, 13)]  # a run that trained epochs again
    lines = [f"{n},{ENDED_AT[n - 1]}" for n in resumed]
    (tmp_path / "run.csv").write_text("\n".join(["epoch,loss", *lines]) + "\n")
    assert not any("sorted" in note for note in diagnose(tmp_path / "run.csv").notes)


def test_a_log_whose_last_epoch_comes_first_is_read_backwards(tmp_path):
    rows = [f"{i},{value}" for i, value in enumerate(ENDED_AT)]
    (tmp_path / "run.csv").write_text("\n".join(["epoch,loss", *reversed(rows)]))
    found = diagnose(tmp_path / "run.csv")
    assert (found.rows, found.best_at, found.names) == (12, 11, ())
    assert any("The last epoch comes first" in note for note in found.notes)
    (tmp_path / "run.csv").write_text("\n".join(["epoch,loss", *rows]))
    assert not diagnose(tmp_path / "run.csv").notes
