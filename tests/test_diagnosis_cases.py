"""Verdicts on logs of the shapes that real logs have; the numbers are made up."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from keras_lr.diagnosis import diagnose
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


def test_earlier_runs_of_one_log_are_judged_too():
    first = [2.0, 1.0, 0.5, 0.4, 0.9, 3.0, 20.0, 300.0]
    log = {"epoch": [*range(8), *range(30)], "loss": [*first, *LEARNING]}
    said = diagnose(log)
    note = "An earlier run in this log, from epoch 0 to epoch 7: diverged."
    assert note in said.notes
    assert not diagnose({"loss": LEARNING}).notes


def test_a_long_log_keeps_the_rows_of_an_error():
    loss = [*(1.0 / np.arange(1, 1000)), math.nan]
    finding = only(diagnose({"loss": loss}), "not-a-number", "error")
    assert finding.first == finding.last == 999
