"""Logs of other writers than Keras, in the shapes that they write."""

import json

import numpy as np
import pytest

from keras_lr.diagnosis import diagnose
from keras_lr.diagnosis.choose import Asked
from keras_lr.diagnosis.readers import read

pytestmark = pytest.mark.once

LOSS = [2.0, 1.5, 1.25, 1.125, 1.0, 0.9, 0.85, 0.8]


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, newline="")
    return path


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


# mmengine and mmcv


def test_scalars_of_mmengine(tmp_path):
    """Validation rows have the epoch as "step", which is no step back to the start."""
    rows = [{"accuracy/top1": 10.0, "step": 0}]
    for epoch in range(1, 5):
        for half in (1, 2):
            step = (epoch - 1) * 100 + 50 * half
            loss = LOSS[2 * epoch - 3 + half]
            rows.append({"lr": 0.02, "loss_cls": loss / 4, "loss": loss, "epoch": epoch})
            rows[-1] |= {"iter": step, "memory": 4000, "step": step}
        rows.append({"accuracy/top1": 60.0 + epoch, "data_time": 0.1, "step": epoch})
    log = read(written(tmp_path / "vis_data" / "scalars.json", lines(rows)))
    assert (log.unit, log.restarts, log.metric_name) == ("step", (), "accuracy_top1")
    np.testing.assert_array_equal(log.positions, np.arange(50, 401, 50))
    np.testing.assert_array_equal(log.loss, LOSS)
    np.testing.assert_array_equal(log.learning_rate, [0.02] * 8)


def test_logs_of_mmcv(tmp_path):
    rows = [{"env_info": "sys.platform: linux", "seed": 0, "exp_name": "net.py"}]
    for epoch in (1, 2):
        for step in (50, 100, 150, 200):
            loss = LOSS[(epoch - 1) * 4 + step // 50 - 1]
            rows.append({"mode": "train", "epoch": epoch, "iter": step, "lr": 0.1, "loss": loss})
        rows.append({"mode": "val", "epoch": epoch, "iter": 200, "lr": 0.1, "loss": 3.0 - epoch})
    log = read(written(tmp_path / "20210101.log.json", lines(rows)))
    assert (log.unit, log.restarts) == ("epoch", ())
    np.testing.assert_array_equal(log.positions, np.arange(1, 9) / 4)
    np.testing.assert_array_equal(log.loss, LOSS)
    np.testing.assert_array_equal(log.evaluated.positions, [1, 2])
    np.testing.assert_array_equal(log.evaluated.val_loss, [2.0, 1.0])


def test_metrics_in_percent():
    log = read({"loss": LOSS, "acc": np.arange(8.0) * 10, "val_acc": np.arange(8.0)})
    np.testing.assert_allclose(log.metric, np.arange(8) / 10)
    np.testing.assert_allclose(log.val_metric, np.arange(8) / 100)
    assert read({"loss": LOSS, "acc": np.arange(8.0) * 100}).metric is None


# Weights & Biases, MLflow


def test_history_of_wandb(tmp_path):
    text = "_step,_runtime,epoch,train/loss,val/loss,lr\n"
    for step, loss in enumerate(LOSS):
        text += f"{2 * step},{step / 3},{step},{loss},,0.1\n"
        text += f"{2 * step + 1},{step / 3},{step},,{loss + 1},\n"
    log = read(written(tmp_path / "history.csv", text))
    np.testing.assert_array_equal(log.loss, LOSS)
    np.testing.assert_array_equal(log.val_loss, np.add(LOSS, 1))
    np.testing.assert_array_equal(log.learning_rate, [0.1] * 8)
    assert log.restarts == ()


def test_a_chart_exported_from_wandb(tmp_path):
    name = "brave - sun-7 - train/loss"
    text = f'"Step","{name}","{name}__MIN","{name}__MAX"\n'
    text += "".join(f'"{10 * step}","{v}","{v}","{v}"\n' for step, v in enumerate(LOSS))
    log = read(written(tmp_path / "wandb_export.csv", text))
    np.testing.assert_array_equal(log.loss, LOSS)
    np.testing.assert_array_equal(log.positions, 10 * np.arange(8))
    two = '"Step","a - loss","b - loss"\n"0","2.0","3.0"\n"1","1.0","2.5"\n'
    path = written(tmp_path / "two.csv", two)
    with pytest.raises(ValueError, match="holds several runs: a, b. Name the .*loss='a - loss'"):
        read(path)
    np.testing.assert_array_equal(read(path, Asked(loss="b - loss")).loss, [3.0, 2.5])


def test_metrics_of_mlflow(tmp_path):
    for name, values in {"loss": LOSS, "val_loss": LOSS, "lr": [0.5] * 8}.items():
        text = "".join(f"170000000{step} {value} {step}\n" for step, value in enumerate(values))
        written(tmp_path / "run" / "metrics" / name, text)
    written(tmp_path / "run" / "meta.yaml", "run_id: abc\n")
    logs = [read(tmp_path / "run")]
    table = "run_id,key,value,timestamp,step\n"
    for step, value in enumerate(LOSS):
        for name in ("loss", "val_loss"):
            table += f"abc,{name},{value},1700,{step}\n"
        table += f"abc,lr,0.5,1700,{step}\n"
    logs.append(read(written(tmp_path / "table.csv", table)))
    rows = [
        {"key": name, "value": 0.5 if name == "lr" else value, "timestamp": 1700, "step": step}
        for name in ("loss", "lr", "val_loss")
        for step, value in enumerate(LOSS)
    ]
    logs.append(read(written(tmp_path / "table.json", json.dumps(rows))))
    for log in logs:
        np.testing.assert_array_equal(log.positions, np.arange(8))
        np.testing.assert_array_equal(log.loss, LOSS)
        np.testing.assert_array_equal(log.val_loss, LOSS)
        np.testing.assert_array_equal(log.learning_rate, [0.5] * 8)
    other = table + table.partition("\n")[2].replace("abc", "def")
    with pytest.raises(ValueError, match="holds 2 runs, by its column run_id"):
        read(written(tmp_path / "table.csv", other))
    written(tmp_path / "run" / "metrics" / "loss", "1700 2.0\n")
    with pytest.raises(ValueError, match="line 1, must hold time, value and step"):
        read(tmp_path / "run")


# Text


@pytest.mark.parametrize(
    "form",
    [
        "step {place}: train loss {loss:.4f}, val loss {held:.4f}",
        "iter {place} | loss: {loss:.4f} | 5ms/step\nstep {place} validation loss: {held:.4f}",
        "[INFO] Epoch [{place}/8], Loss: {loss:.4f}, Val Loss: {held:.4f}, lr=1e-3",
        "Train Epoch: {place} [0/100 (0%)]\tLoss: 9.0\nTrain Epoch: {place} [50/100 (50%)]\t"
        "Loss: {loss:.6f}\nTest set: Loss: {held:.4f}, Accuracy: 98/100 (98%)",
        "Epoch {place}\n  train: loss = {loss:.3e} acc = 0.5\n  valid: loss = {held:.3e} acc = 0.5",
    ],
)
def test_lines_that_programs_print(tmp_path, form):
    text = "seed 3\n" + "\n".join(
        form.format(place=place, loss=value, held=value + 1)
        for place, value in enumerate(LOSS, start=1)
    )
    log = read(written(tmp_path / "train.log", text))
    np.testing.assert_array_equal(log.positions, np.arange(1, 9))
    np.testing.assert_allclose(log.loss, LOSS)
    np.testing.assert_allclose(log.val_loss, np.add(LOSS, 1))
    assert log.unit == ("epoch" if "poch" in form else "step")


def test_columns_of_text_can_be_named(tmp_path):
    text = "".join(f"Epoch {n}: total BCE: {v}, other: 1.0\n" for n, v in enumerate(LOSS))
    path = written(tmp_path / "out.txt", text)
    np.testing.assert_array_equal(read(path, Asked(loss="total BCE")).loss, LOSS)
    np.testing.assert_array_equal(read(path, Asked("total BCE+other")).loss, np.add(LOSS, 1))


# Refusals say what helps


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Wall time,Step,Value\n1700,0,2.0\n1700,1,1.0\n", "name it with loss (--loss on the"),
        ("epoch,objective\n0,2.0\n1,1.0\n", "its columns are: epoch, objective. If one of them"),
        ("starting\nworking\ndone\n", "as in 'Epoch 3: loss=0.5'"),
    ],
)
def test_a_refusal_says_which_option_helps(tmp_path, content, words):
    path = written(tmp_path / "log.csv", content)
    with pytest.raises(ValueError) as refusal:
        diagnose(path)
    assert words in str(refusal.value)
    if "Value" in content:
        np.testing.assert_array_equal(read(path, Asked(loss="Value")).loss, [2.0, 1.0])
