"""TensorBoard folders whose columns are named, summed, or of several evaluation sets."""

import numpy as np
import pytest

from keras_lr.diagnosis import diagnose
from keras_lr.diagnosis.choose import Asked
from keras_lr.diagnosis.readers import read

pytestmark = pytest.mark.once

LOSS = np.array([2.0, 1.5, 1.25, 1.125, 1.0, 0.75, 0.5, 0.25])


def events(folder, scalars):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for tag, values in scalars.items():
            for step, value in enumerate(values):
                writer.add_scalar(tag, value, step)


def test_columns_that_are_named_and_added(tmp_path):
    parts = {"objective/a": LOSS, "objective/kl": LOSS / 4}
    events(tmp_path, {**parts, "probe": LOSS * 2, "eta": LOSS / 8})
    with pytest.raises(ValueError, match="no training loss column; its columns are: objective/a"):
        read(tmp_path)
    log = read(tmp_path, Asked("objective/a+objective/kl", "probe", "eta"))
    np.testing.assert_array_equal(log.loss, LOSS * 1.25)
    np.testing.assert_array_equal(log.val_loss, LOSS * 2)
    np.testing.assert_array_equal(log.learning_rate, LOSS / 8)
    with pytest.raises(ValueError, match="has no column 'x' for val_loss; its columns are: "):
        read(tmp_path, Asked("objective/a", "x"))
    assert diagnose(tmp_path, loss="objective/a", val_loss="probe").best_of == "val_loss"


def test_a_named_column_beats_the_usual_one(tmp_path):
    events(tmp_path, {"train/loss": LOSS, "train/critic": LOSS * 3, "val/loss": LOSS * 2})
    log = read(tmp_path, Asked(loss="train/critic"))
    np.testing.assert_array_equal(log.loss, LOSS * 3)
    np.testing.assert_array_equal(log.val_loss, LOSS * 2)


def test_columns_below_the_folders_of_keras(tmp_path):
    events(tmp_path / "train", {"epoch_output_loss": LOSS})
    events(tmp_path / "validation", {"epoch_output_loss": LOSS * 2})
    log = read(tmp_path, Asked("train/epoch_output_loss", "validation/epoch_output_loss"))
    np.testing.assert_array_equal(log.loss, LOSS)
    np.testing.assert_array_equal(log.val_loss, LOSS * 2)
    assert log.unit == "epoch"
    np.testing.assert_array_equal(read(tmp_path).val_loss, LOSS * 2)  # the only loss of the log


def test_parts_of_a_loss_are_added(tmp_path):
    parts = {"box": LOSS, "cls": LOSS * 2}
    events(tmp_path, {f"{s}/{n}_loss": v for s in ("train", "val") for n, v in parts.items()})
    log = read(tmp_path)
    np.testing.assert_array_equal(log.loss, LOSS * 3)
    np.testing.assert_array_equal(log.val_loss, LOSS * 3)
    assert "The loss is the sum of train/box_loss, train/cls_loss." in log.notes


def test_each_evaluation_set_is_judged(tmp_path):
    """The Trainer of transformers, with a dictionary of evaluation data, writes eval/<set>_loss."""
    rows = np.arange(30)
    falling = 0.1 + 2.0 * np.exp(-rows / 5)
    rising = np.where(rows < 10, falling, falling[10] + (rows - 10) / 10)
    events(tmp_path, {"train/loss": falling, "eval/de_loss": falling, "eval/fr_loss": rising})
    said = diagnose(tmp_path)
    assert said.names == ("overfitting",)
    assert said.findings[0].evidence.startswith("eval/fr_loss: The validation loss rose")
    assert "eval/fr_loss is judged beside it." in said.notes[0]


def test_the_run_with_the_named_column_is_read(tmp_path):
    events(tmp_path / "first", {"objective": LOSS, "accuracy": LOSS})
    events(tmp_path / "second", {"other": LOSS})
    np.testing.assert_array_equal(read(tmp_path, Asked(loss="objective")).loss, LOSS)
    events(tmp_path / "third", {"objective": LOSS})
    with pytest.raises(ValueError, match="several runs; pass the folder of one of them: first, th"):
        read(tmp_path, Asked(loss="objective"))


def test_rewards_in_a_folder(tmp_path):
    events(tmp_path, {"rollout/ep_rew_mean": LOSS, "train/loss": 1 / LOSS**4})
    said = diagnose(tmp_path)
    assert not said and any("rewards" in line for line in said.not_judged)
