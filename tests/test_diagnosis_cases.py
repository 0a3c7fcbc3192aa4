"""Verdicts on logs of the shapes that real logs have; the numbers are made up."""

import math
from pathlib import Path

import numpy as np
import pytest

from keras_lr.diagnosis import diagnose
from keras_lr.diagnosis.choose import Asked
from keras_lr.diagnosis.readers import read

pytestmark = pytest.mark.once

CASES = Path(__file__).parent / "data" / "diagnose_cases"
EPOCHS = np.arange(30)
LEARNING = 0.1 + 2.0 * np.exp(-EPOCHS / 5)


def case(name, **options):
    return diagnose(CASES / name, **options)


def only(said, name, severity):
    """The only finding of the diagnosis."""
    assert [(each.name, each.severity) for each in said] == [(name, severity)], said
    return said.findings[0]


# Training and validation losses, each on its own rows


def test_nan_after_the_last_evaluation():
    finding = only(case("nan_after_last_eval.json"), "not-a-number", "error")
    assert (finding.first, finding.last) == (2.375, 2.75)
    assert "it was 0.367 in epoch 2.25" in finding.evidence


def test_divergence_after_the_last_evaluation():
    finding = only(case("lightning_diverges_after_last_eval.csv"), "diverged", "error")
    assert "from 0.409 in epoch 8 to 900 in epoch 10" in finding.evidence


def test_a_missing_value_is_not_nan():
    assert not case("single_eval_trainer_state.json")
    late = {"loss": LEARNING, "val_loss": [None] * 20 + [*LEARNING[20:]]}
    assert not diagnose(late)
    lost = {"loss": LEARNING, "val_loss": [None] * 28 + [0.1, math.nan]}
    finding = only(diagnose(lost), "not-a-number", "error")
    assert finding.first == finding.last == 29


def test_a_validation_loss_beats_a_test_loss():
    assert not case("lightning_test_loss_first.csv")
    log = read(CASES / "lightning_test_loss_first.csv").evaluated
    np.testing.assert_array_equal(
        log.val_loss, [0.5, 0.375, 0.2812, 0.2109, 0.1582, 0.1187, 0.089, 0.0667]
    )
    assert read({"loss": [2.0, 1.0], "test_loss": [3.0, 2.0]}).val_loss is not None


def test_validation_losses_keep_their_own_positions():
    rows = [{"epoch": 1 + step / 4, "loss": 1.0 / (step + 1)} for step in range(40)]
    rows += [{"epoch": 3 + 4 * each, "eval_loss": 1.0 - each / 4} for each in range(3)]
    log = read(sorted(rows, key=lambda row: row["epoch"]))
    assert len(log) == 40 and log.val_loss is None
    np.testing.assert_array_equal(log.evaluated.positions, [3, 7, 11])
    np.testing.assert_array_equal(log.evaluated.val_loss, [1.0, 0.75, 0.5])


def test_each_run_of_one_log_is_judged():
    first = [2.0, 1.0, 0.5, 0.4, 0.9, 3.0, 20.0, 300.0]
    log = {"epoch": [*range(8), *range(30)], "loss": [*first, *LEARNING]}
    said = diagnose(log)
    assert said.names == ("appended-runs",) and said.verdict == "error"
    (earlier,) = said.earlier
    assert earlier == diagnose({"loss": first})
    assert (said.rows, said.first, said.last, said.best_at) == (30, 0, 29, 29)
    text = str(said)
    assert text.startswith("Run 1 of 2, epoch 0 to 7\n\nError          diverged\n")
    assert "\n\nRun 2 of 2, epoch 0 to 29\n\nHint           appended-runs\n" in text
    assert [run["verdict"] for run in said.to_dict()["earlier"]] == ["error"]
    assert said.without(["diverged"]).verdict == "hint"
    assert not diagnose({"loss": LEARNING}).earlier


def test_a_run_that_goes_on_is_not_an_appended_one():
    """`fit` twice with the same weights: the epochs count anew, and the loss does not."""
    log = {"epoch": [*range(20), *range(10)], "loss": LEARNING, "val_loss": LEARNING}
    assert not diagnose(log).earlier and not diagnose(log)
    other = {**log, "loss": [*LEARNING[:20], *(LEARNING[:10] / 1.8)]}  # better from the start
    assert len(diagnose(other).earlier) == 1


def test_validation_losses_of_each_run():
    """An evaluation every four epochs belongs to the run that it was made in."""
    rows = []
    for run in range(3):
        for epoch in range(24):
            rows.append({"epoch": epoch, "loss": LEARNING[epoch]})
            if epoch % 4 == 3:
                value = LEARNING[epoch] if run != 1 else 1.0 + abs(epoch - 7) / 10
                rows.append({"epoch": epoch, "val_loss": value})
    said = diagnose(rows)
    assert [run.names for run in said.earlier] == [(), ("overfitting",)]
    assert [run.best_at for run in said.earlier] == [23, 7]


def test_a_long_log_keeps_the_rows_of_an_error():
    loss = [*(1.0 / np.arange(1, 1000)), math.nan]
    finding = only(diagnose({"loss": loss}), "not-a-number", "error")
    assert finding.first == finding.last == 999


# The validation loss by itself


def test_jumps_of_the_validation_loss():
    finding = only(case("bumpyval.csv"), "validation-jumps", "warning")
    assert "from 0.33 to 0.92 in epoch 4" in finding.evidence
    assert "BatchNormalization" in finding.advice and "rate" in finding.advice
    finding = only(case("valspike.csv"), "validation-jumps", "warning")
    assert "jumps to 25 in epoch 8" in finding.evidence
    calm = LEARNING * np.exp(0.05 * np.where(EPOCHS % 2, 1.0, -1.0))
    assert not diagnose({"loss": LEARNING, "val_loss": calm})


def test_overfitting_under_noise_and_as_a_gap():
    only(case("overfit_noisy.csv"), "overfitting", "warning")
    finding = only(case("gap.csv"), "overfitting", "hint")
    assert "not improved on 2.6 since epoch 17" in finding.evidence


def test_no_overfitting_where_the_run_has_converged_or_its_accuracy_stays():
    assert not case("converged.csv")
    held_out = np.where(EPOCHS < 15, LEARNING + 0.3, 0.4 + 0.005 * (EPOCHS - 15))
    rising = {"loss": LEARNING, "val_loss": held_out * 1.0}
    rising["val_loss"][20:] *= 1.1
    assert diagnose(rising).names == ("overfitting",)
    steady = {**rising, "val_accuracy": np.minimum(0.9, 0.5 + EPOCHS / 30)}
    assert "overfitting" not in diagnose(steady).names


def test_overfitting_from_few_rows_that_all_rise():
    few = {"loss": [1.0, 0.8, 0.6, 0.4], "val_loss": [1.0, 0.9, 1.2, 1.5]}
    finding = only(diagnose(few), "overfitting", "warning")
    assert (finding.first, finding.last) == (1, 3)
    assert not diagnose({**few, "val_loss": [1.0, 0.9, 0.95, 0.93]})


# Short logs, and the headline


def test_a_short_log_is_not_called_healthy():
    said = case("short.csv")
    assert (said.verdict, said.judged, said.names) == ("not judged", False, ())
    assert str(said).startswith("Too short to judge: 2 epochs; at least 6 are needed.")
    assert said.to_dict()["verdict"] == "not judged"
    assert diagnose({"loss": [1.0, 0.5, math.nan]}).verdict == "error"


def test_the_headline_has_the_best_epoch():
    log = {"epoch": [*range(1, 9)], "loss": [9, 5, 3, 2, 1.5, 1.2, 1.0, 0.9]}
    log["val_loss"] = [9, 6, 4, 3, 2.5, 2.25, 2.3, 2.31]
    said = diagnose(log)
    assert said.verdict == "healthy"
    assert (said.best_of, said.best, said.best_at) == ("val_loss", 2.25, 6)
    assert "Best val_loss: 2.25 in epoch 6." in str(said)
    del log["val_loss"]
    assert (diagnose(log).best_of, diagnose(log).best) == ("loss", 0.9)


# Advice


def test_no_higher_rate_while_the_validation_loss_is_past_its_best():
    finding = only(case("rate_advice_while_overfitting.csv"), "overfitting", "warning")
    assert finding.first == 5 and "after epoch 5" in finding.advice


def test_noise_of_the_batches_is_not_a_rate_that_is_too_high():
    assert not case("noisy.csv")
    loss = np.loadtxt(CASES / "noisy.csv", delimiter=",", skiprows=1)[:, 1]
    assert diagnose({"loss": loss}).names == ("rate-too-high",)


def test_a_loss_that_halves_in_ten_epochs_needs_more_epochs():
    assert case("text.log").verdict == "healthy"
    bent = 0.9 ** np.arange(9.0)  # to 0.43 of its first value
    assert not diagnose({"loss": bent})
    assert diagnose({"loss": 0.97 ** np.arange(30.0)}).names == ("rate-too-low",)


def test_an_explosion_is_an_error():
    finding = only(case("blown.csv"), "diverged", "error")
    assert "3.9e+06 in epoch 0" in finding.evidence


def test_a_perfect_start_is_a_hint_at_leakage():
    finding = only(case("fast.csv"), "perfect-from-start", "hint")
    assert "leakage" in finding.advice


def test_losses_that_do_not_measure_progress_are_no_divergence():
    assert not case("rl.csv")
    assert any("replay buffer" in line for line in case("rl.csv").not_judged)
    assert not case("evalonly.csv")
    table = np.loadtxt(CASES / "evalonly.csv", delimiter=",", skiprows=1)
    assert diagnose({"loss": table[:, 1]}).names == ("diverged",)


def test_a_long_run_that_learned_at_first_has_learned():
    """The fall takes 8 of 1,000 epochs, less than two of the averaged rows."""
    rng = np.random.default_rng(0)
    epochs = np.arange(1000)
    loss = 0.315 + 0.65 * np.exp(-epochs / 2) + 0.002 * rng.normal(size=1000)
    finding = only(diagnose({"loss": loss}), "plateau", "hint")
    assert "never started" not in finding.advice
    flat = diagnose({"loss": loss[20:]})
    assert "never started" in flat.findings[0].advice


# Formats


def test_parts_of_a_loss_are_added():
    said = case("ultralytics_results.csv")
    assert not said
    log = read(CASES / "ultralytics_results.csv")
    np.testing.assert_allclose(log.loss[[0, -1]], [1.5 + 2.5 + 1.2, 0.566 + 0.3377 + 0.9914])
    np.testing.assert_allclose(log.val_loss[0], 1.3 + 3.0 + 1.1)
    np.testing.assert_array_equal(log.learning_rate[:2], [0.001, 0.00095])
    assert any("sum of train/box_loss, train/cls_loss" in note for note in said.notes)


def test_columns_can_be_named():
    log = {"a": [2.0, 1.0], "b": [1.0, 1.0], "held": [4.0, 3.0], "eta": [0.1, 0.2]}
    found = read(log, Asked("a+b", "held", "eta"))
    np.testing.assert_array_equal(found.loss, [3.0, 2.0])
    np.testing.assert_array_equal(found.val_loss, [4.0, 3.0])
    np.testing.assert_array_equal(found.learning_rate, [0.1, 0.2])
    other = read({**log, "loss": [9.0, 8.0]}, Asked("a"))
    np.testing.assert_array_equal(other.loss, [2.0, 1.0])
    with pytest.raises(ValueError, match="no column 'c' for loss; its columns are: a, b, held"):
        diagnose(log, loss="a+c")
    with pytest.raises(TypeError, match="val_loss must be the name of a column; got int"):
        diagnose(log, val_loss=3)


def test_a_loss_of_each_evaluation_set():
    said = case("named_eval_trainer_state.json")
    finding = only(said, "overfitting", "warning")
    assert "rose from 1.1 in epoch 1 to 2.53 in epoch 12" in finding.evidence
    assert "eval_de_loss: The validation loss rose from 1.6 in epoch 1 to 3.8" in finding.evidence
    assert "The validation loss is eval_en_loss; eval_de_loss is judged beside it." in said.notes
    other = case("named_eval_trainer_state.json", val_loss="eval_de_loss")
    assert "eval_" not in other.findings[0].evidence
    assert "from 1.6 in epoch 1 to 3.8" in other.findings[0].evidence


def test_an_evaluation_set_that_is_not_the_first_is_judged_too():
    rising = np.where(EPOCHS < 10, LEARNING, LEARNING[10] + (EPOCHS - 10) / 10)
    log = {"loss": LEARNING, "eval_a_loss": LEARNING, "eval_b_loss": rising}
    finding = only(diagnose(log), "overfitting", "warning")
    assert finding.evidence.startswith("eval_b_loss: The validation loss rose from 0.3707")
    assert (finding.first, finding.last) == (10, 29)
    assert "overfitting" not in diagnose({**log, "val_loss": LEARNING}).names
    loaders = {"loss": LEARNING, "val_loss/dataloader_idx_0": LEARNING}
    loaders["val_loss/dataloader_idx_1"] = rising
    assert diagnose(loaders).names == ("overfitting",)
    sparse = [{"epoch": epoch, "loss": value} for epoch, value in enumerate(LEARNING)]
    sparse += [{"epoch": epoch, "eval_a_loss": LEARNING[epoch]} for epoch in range(0, 30, 3)]
    sparse += [{"epoch": epoch, "eval_b_loss": rising[epoch]} for epoch in range(0, 30, 3)]
    finding = only(diagnose(sorted(sparse, key=lambda row: row["epoch"])), "overfitting", "warning")
    assert "from 0.3707 in epoch" not in finding.evidence and finding.first == 9


def test_rows_without_their_last_empty_cells():
    log = read(CASES / "ragged.csv")
    np.testing.assert_array_equal(log.loss[[0, 8, 9]], [1.1, 0.33, 1.0])
    assert log.restarts == (9,)
    said = case("ragged.csv")
    assert [each.severity for each in said] == ["hint"] and said.names == ("appended-runs",)
    assert not said.judged and not said.earlier[0] and said.earlier[0].judged


def test_lines_of_text_that_name_an_epoch(tmp_path):
    log = read(CASES / "text.log")
    np.testing.assert_array_equal(log.positions, np.arange(1, 16))
    np.testing.assert_array_equal(log.loss[[0, 14]], [0.09, 0.036])
    np.testing.assert_array_equal(log.val_loss[[0, 14]], [0.1, 0.0383])
    path = tmp_path / "output.txt"
    path.write_text(
        "Loading data\nEpoch 1/2\n"
        " 1/3 ---- 1s 9ms/step - accuracy: 0.1000 - loss: 9.0000\x08\x08\r"
        "3/3 ---- 1s 9ms/step - accuracy: 0.5000 - loss: 2.0000 - val_loss: 2.5000\n"
        "Epoch 2/2\n3/3 ---- 1s - accuracy: 0.7000 - loss: 1.0e-01 - val_loss: nan\n"
    )
    log = read(path)
    np.testing.assert_array_equal(log.positions, [1, 2])
    np.testing.assert_array_equal(log.loss, [2.0, 0.1])
    np.testing.assert_array_equal(log.val_loss, [2.5, math.nan])
    np.testing.assert_array_equal(log.metric, [0.5, 0.7])


# Noise that says nothing of the rate


def noisy(count, spread, seed):
    rng = np.random.default_rng(seed)
    curve = 0.3 + 2.0 * np.exp(-np.arange(count) / (0.2 * count))
    return curve * np.exp(spread * rng.standard_normal(count))


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_single_batches_is_no_rate_that_is_too_high(seed):
    """Rows of Lightning and of the Trainer of transformers hold the loss of a few batches."""
    loss = noisy(200, 0.3, seed)
    said = diagnose({"epoch": np.arange(200) // 20, "step": 50 * np.arange(200), "loss": loss})
    assert not said
    assert any("the rows are of steps with few batches" in line for line in said.not_judged)
    assert not diagnose({"epoch": np.arange(1, 201) / 20, "loss": loss})
    assert diagnose({"epoch": np.arange(200), "loss": loss}).names == ("rate-too-high",)


@pytest.mark.parametrize("seed", range(5))
def test_noise_around_a_constant_is_no_divergence(seed):
    loss = 1.0 + 0.3 * np.random.default_rng(seed).standard_normal(30)
    assert "diverged" not in diagnose({"loss": np.abs(loss)}).names


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_a_negative_loss_is_a_share_of_its_fall(seed):
    rng = np.random.default_rng(seed)
    loss, held_out = (
        80 * np.exp(-EPOCHS / 5) - 100 + spread * rng.standard_normal(30) for spread in (0.5, 0.8)
    )
    assert not diagnose({"loss": loss, "val_loss": held_out})


def test_a_rise_beside_an_accuracy_that_stays_is_a_hint():
    accuracy = 0.9 - 0.2 * np.exp(-EPOCHS / 3)
    for last, severity in ((0.7, "hint"), (1.2, "warning")):
        rising = np.where(EPOCHS < 8, 0.35, 0.35 + (last - 0.35) * (EPOCHS - 8) / 21)
        log = {"loss": LEARNING, "val_loss": rising, "val_accuracy": accuracy}
        only(diagnose(log), "overfitting", severity)
