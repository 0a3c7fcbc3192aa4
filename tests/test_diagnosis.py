"""Findings on curves made by hand, on real logs, and on runs made to fail here."""

import doctest
import importlib
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_lr
from keras_lr.diagnosis import NAMES, Diagnosis, Finding, diagnose
from keras_lr.diagnosis.result import SEVERITIES

pytestmark = pytest.mark.long_elsewhere(
    "whole runs, of parts that other tests check on each backend"
)

LOGS = Path(__file__).parent / "data" / "training_logs.json"
# Real runs of benchmarks/diagnosis, each with its problem.
REAL = json.loads(LOGS.read_text()) if LOGS.exists() else []
once = pytest.mark.once

EPOCHS = np.arange(30)
LEARNING = 0.1 + 2.0 * np.exp(-EPOCHS / 5)  # an exponential fall to 0.1
WOBBLE = np.where(EPOCHS % 2, 1.0, -1.0)  # standard deviation 1, the worst case of noise


def found(log, name, **options):
    """The finding of that name; there must be no other."""
    said = diagnose(log, **options)
    assert said.names == (name,), said
    return said.findings[0]


def silent(log, **options):
    said = diagnose(log, **options)
    assert not said, said


# Real logs


@once
@pytest.mark.parametrize("run", REAL, ids=lambda run: f"{run['way']}-{run['data']}-{run['setup']}")
def test_real_runs_are_judged_correctly(run):
    said = diagnose(run["log"], **run["options"])
    if run["way"] == "healthy":
        assert not said, said
    else:
        assert run["way"] in said.names, said


@once
def test_the_real_runs_fail_in_each_way_on_several_data_sets():
    ways = {}
    for run in REAL:
        ways.setdefault(run["way"], set()).add(run["data"])
    assert set(ways) == {*NAMES, "healthy"}
    # A regression has no accuracy that is perfect.
    assert {way for way, names in ways.items() if len(names) < 2} <= {"perfect-from-start"}
    assert LOGS.stat().st_size < 150_000


@once
@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_the_unit_of_the_loss_does_not_matter(factor):
    for run in REAL:
        log = dict(run["log"])
        said = diagnose(log, **run["options"]).names
        for name in ("loss", "val_loss"):
            log[name] = [None if value is None else value * factor for value in log[name]]
        assert diagnose(log, **run["options"]).names == said, run["setup"]


# Curves by hand, rule by rule: findings with their numbers, and near misses


@once
def test_a_healthy_curve_gives_no_finding():
    silent({"loss": LEARNING, "val_loss": LEARNING + 0.05})
    silent({"loss": LEARNING - 1.0, "val_loss": LEARNING - 0.9})  # a loss may be negative
    assert str(diagnose({"loss": LEARNING})).startswith("No problems found in 30 epochs.\n")


@once
def test_not_a_number():
    loss = [2.0, 1.0, 0.5, math.nan, math.nan]
    finding = found({"loss": loss}, "not-a-number")
    assert finding.severity == "error"
    assert (finding.first, finding.last) == (3, 4)
    assert finding.evidence == "The loss is NaN from epoch 3 to epoch 4; it was 0.5 in epoch 2."
    assert "Look for NaN in the data" in finding.advice
    rising = found({"loss": [2.0, 9.0, 80.0, math.inf]}, "not-a-number")
    assert "infinite in epoch 3;" in rising.evidence
    assert rising.advice.startswith("Lower the learning rate.")
    held_out = found({"loss": [3.0, 2.0, 1.0], "val_loss": [3.0, math.nan, 2.0]}, "not-a-number")
    assert held_out.evidence == "The validation loss is NaN in epoch 1; it was 3 in epoch 0."
    assert held_out.advice == "Look for NaN or infinity in the validation data."


@once
def test_diverged():
    rate = [0.1] * 4 + [0.2, 0.4, 0.8, 1.6]
    log = {"loss": [2.0, 1.0, 0.5, 0.4, 0.9, 3.0, 20.0, 300.0], "learning_rate": rate}
    finding = found(log, "diverged")
    assert finding.severity == "error"
    assert (finding.first, finding.last) == (3, 7)
    assert "from 0.4 in epoch 3 to 300 in epoch 7; it was 2 in epoch 0." in finding.evidence
    assert "rose from 0.1 to 1.6" in finding.evidence
    assert "Limit the rate to about 0.1." in finding.advice
    found({"loss": [1.0, 3.0, 9.0]}, "diverged")
    found({"loss": [1.0, 0.8, 0.5, 0.6, 80.0]}, "diverged")  # one very large loss is enough
    found({"loss": [2.0, 1.0, 0.5, 0.2, 0.1, 0.4, 0.9, 1.4, 1.7]}, "diverged")
    found({"loss": [-1.0, -2.0, -3.0, 4.0, 60.0, 900.0]}, "diverged")
    silent({"loss": [1.0, 0.8, 0.6, 0.7, 0.65]})


@once
def test_rate_too_high_with_oscillations():
    wild = LEARNING * np.exp(0.3 * WOBBLE)
    finding = found({"loss": wild, "learning_rate": [0.3] * 30}, "rate-too-high")
    assert finding.severity == "warning"
    assert "The loss oscillates by" in finding.evidence
    assert "a third of the rate, 0.1," in finding.advice
    silent({"loss": LEARNING * np.exp(0.02 * WOBBLE), "val_loss": LEARNING})
    falling = np.exp(-EPOCHS / 22) * np.exp(0.06 * WOBBLE)  # the fall exceeds the noise
    silent({"loss": falling})
    assert found({"loss": 0.5 + 0.1 * falling / falling[0] + 0.2 * WOBBLE}, "rate-too-high")
    rate = np.where(EPOCHS < 20, 0.3, 0.01)  # a schedule removes the noise
    loss = np.where(EPOCHS < 20, wild, 0.04 * LEARNING[20] / LEARNING)
    assert "rate-too-high" not in diagnose({"loss": loss, "learning_rate": rate}).names


@once
def test_rate_too_high_with_a_constant_loss():
    dead = [14.0, 14.4] + [14.5] * 12
    finding = found({"loss": dead}, "rate-too-high")
    assert (finding.first, finding.last) == (2, 13)
    assert "constant at 14.5 (to five digits) from epoch 2 on" in finding.evidence
    done = [1.0, 0.5, 0.2] + [0.1] * 12  # has learned before it is constant
    assert "rate-too-high" not in diagnose({"loss": done}).names


@once
def test_rate_too_high_at_the_first_updates():
    loss = [900.0, 1.0, *LEARNING[10:]]
    assert (
        "900 in the first epoch and 1 in the second"
        in found({"loss": loss}, "rate-too-high").evidence
    )
    known = {"loss": [9.0, *LEARNING[1:]]}
    silent(known)
    assert (
        "it was 2.3 before training" in found(known, "rate-too-high", untrained_loss=2.3).evidence
    )


@once
def test_rate_too_low():
    straight = 2.0 - 0.01 * EPOCHS
    finding = found({"loss": straight, "learning_rate": [1e-5] * 30}, "rate-too-low")
    assert finding.severity == "warning"
    assert "from 2 in epoch 0 to 1.71 in epoch 29" in finding.evidence
    assert "by 0.01 per epoch at the start and 0.01 at the end" in finding.evidence
    assert "ten times the rate, 0.0001." in finding.advice
    ramp = np.linspace(0.0, 1e-3, 30)  # a warm-up over the whole run
    silent({"loss": straight, "learning_rate": ramp, "val_loss": straight})
    half = 2.0 * 0.5 ** (EPOCHS / 8)  # the same fall, but exponential
    silent({"loss": half, "val_loss": half})


@once
def test_plateau():
    loss = 1.0 + np.exp(-EPOCHS / 2) + 0.03 * WOBBLE
    finding = found({"loss": loss}, "plateau")
    assert finding.severity == "warning"
    assert "plateaus near 1." in finding.evidence and finding.last == 29
    assert 3 <= finding.first <= 12
    assert "keras_lr.ReduceLROnPlateau" in finding.advice
    never = found({"loss": 2.3 + 0.001 * WOBBLE}, "plateau")
    assert never.first == 0 and "keras-lr find" in never.advice
    silent({"loss": 0.02 * loss, "metric": loss, "accuracy": [0.99] * 30})  # converged
    short = np.concatenate([LEARNING[:20], LEARNING[19] + 0.01 * WOBBLE[:5]])
    silent({"loss": short})  # as early stopping ends a run


@once
def test_overfitting():
    loss = 2.0 * np.exp(-EPOCHS / 5)
    held_out = np.where(EPOCHS < 10, 2.0 - 0.1 * EPOCHS, 1.0 + 0.05 * (EPOCHS - 10))
    finding = found({"loss": loss, "val_loss": held_out}, "overfitting")
    assert (finding.first, finding.last) == (10, 29)
    assert "rose from 1 in epoch 10 to 1.95 in epoch 29" in finding.evidence
    assert "after epoch 10" in finding.advice
    silent({"loss": loss, "val_loss": np.maximum(held_out[:1], 0.0) * np.exp(-EPOCHS / 9)})
    noisy = 1.0 + np.exp(-EPOCHS / 5) + 0.15 * WOBBLE
    silent({"loss": loss, "val_loss": noisy})


@once
def test_underfitting():
    loss = 1.0 + np.exp(-EPOCHS / 2)
    log = {"loss": loss, "val_loss": loss + 0.05, "accuracy": [0.6] * 30}
    finding = found(log, "underfitting")
    assert finding.severity == "hint"
    assert "near 1 and the validation loss near 1.05, with no gap" in finding.evidence
    assert "accuracy ends at 0.6" in finding.evidence
    for other in (
        {"accuracy": [0.95] * 30},
        {"val_loss": loss + 0.4},
        {"learning_rate": np.where(EPOCHS < 5, 0.1, 0.001)},  # plateaus because of its rate
    ):
        assert "underfitting" not in diagnose({**log, **other}).names
    assert "underfitting" not in diagnose({"loss": loss}).names  # cannot be judged


@once
def test_spikes_after_restart():
    loss = np.concatenate([LEARNING[:20], 0.5 + LEARNING[20:]])
    finding = found({"loss": loss}, "spikes-after-restart", restarts=[20])
    assert "restarted in epoch 20" in finding.evidence
    assert "does not recover" in finding.evidence
    assert "BackupAndRestore" in finding.advice
    assert (finding.first, finding.last) == (19, 21)
    silent({"loss": LEARNING, "val_loss": LEARNING}, restarts=[20])
    small = 3.0 + LEARNING + np.where(EPOCHS < 20, 0.0, 0.4)  # a ninth more
    assert "spikes-after-restart" not in diagnose({"loss": small}, restarts=[20]).names
    twice = {"epoch": [*range(15), *range(15)], "loss": [*LEARNING[:15]] * 2}
    again = found(twice, "appended-runs")  # not a fault of training: fit counts from 0 again
    assert (again.severity, again.first, again.last) == ("hint", 0, 14)
    assert "holds 2 runs. The last one begins with epoch 0 of run 2" in again.evidence
    lost = {"epoch": range(30), "loss": twice["loss"]}  # it was resumed, without its weights
    again = found(lost, "spikes-after-restart", restarts=[15])
    assert "the weights were new" in again.advice


@once
def test_spikes_after_restarts_of_the_rate():
    rate = np.tile(0.1 * (1 + np.cos(np.pi * np.arange(10) / 10)), 3)
    loss = np.concatenate([LEARNING[:10], 1.5 + 0 * EPOCHS[:10], 1.5 + 0 * EPOCHS[:10]])
    said = diagnose({"loss": loss, "learning_rate": rate})
    assert "spikes-after-restart" in said.names
    finding = said.findings[said.names.index("spikes-after-restart")]
    assert "jumps from 0.00489 to 0.2 in epoch 10" in finding.evidence
    silent({"loss": LEARNING, "val_loss": LEARNING, "learning_rate": rate})


@once
def test_schedule_ended_early():
    rate = np.where(EPOCHS < 10, 0.1, 0.0)
    loss = np.minimum(LEARNING, LEARNING[:1] + 5)
    loss = np.where(EPOCHS < 10, LEARNING, LEARNING[10])
    finding = found({"loss": loss, "learning_rate": rate}, "schedule-ended-early")
    assert (finding.first, finding.last) == (10, 29)
    assert "from 0.1 to 0 by epoch 10. In the last 20 epochs, 67% of the run" in finding.evidence
    steps = 0.1 ** (1.0 + (EPOCHS >= 15) + 2.0 * (EPOCHS >= 23))  # the last quarter at 0.1 %
    silent({"loss": LEARNING, "val_loss": LEARNING, "learning_rate": steps})
    still = np.where(EPOCHS < 20, LEARNING, LEARNING[20])
    silent({"loss": still, "val_loss": still, "learning_rate": steps})
    cut = {"loss": loss, "learning_rate": np.select([EPOCHS < 5, EPOCHS < 10], [1, 0.1], 0.001)}
    by_callback = found(cut, "schedule-ended-early")
    assert (by_callback.severity, by_callback.advice[:8]) == ("hint", "Stop the")
    cosine = 0.05 * (1 + np.cos(np.pi * EPOCHS / 30))
    silent({"loss": LEARNING, "val_loss": LEARNING, "learning_rate": cosine})


@once
def test_never_decayed():
    slow = 0.05 * (1 + np.cos(np.pi * EPOCHS / 300))
    log = {"loss": LEARNING, "val_loss": LEARNING, "learning_rate": slow}
    finding = found(log, "never-decayed")
    assert "only to 98%: from 0.1 in epoch 0 to 0.0977 in epoch 29" in finding.evidence
    silent(log, total_epochs=300)  # it was stopped
    silent({**log, "learning_rate": [0.1] * 30})  # a constant rate that works
    silent({**log, "learning_rate": np.where(EPOCHS < 20, 0.1, 0.05)})  # one reduction
    flat = {"loss": 1.0 + np.exp(-EPOCHS / 2) + 0.03 * WOBBLE, "learning_rate": [0.1] * 30}
    assert "The rate stays at 0.1" in found(flat, "never-decayed").evidence
    warm = np.minimum(0.1, 0.02 * (EPOCHS + 1))
    silent({**log, "learning_rate": warm})


@once
def test_no_warm_up():
    loss = np.concatenate([[2.0, 3.5, 3.0], LEARNING])
    log = {"loss": loss, "learning_rate": [0.8] * 33}
    finding = found(log, "no-warm-up", batch_size=1024)
    assert "The batch size is 1024, the rate starts at 0.8 of at most 0.8," in finding.evidence
    assert "rises from 2 to 3.5 after epoch 0" in finding.evidence
    assert "keras_lr.WarmUp" in finding.advice
    silent(log, batch_size=32)
    silent(log)
    silent({"loss": LEARNING, "learning_rate": [0.8] * 30}, batch_size=1024)
    warm = {**log, "learning_rate": np.minimum(0.8, 0.1 * np.arange(1, 34))}
    assert "no-warm-up" not in diagnose(warm, batch_size=1024).names


@once
def test_batch_size_changed():
    log = {"loss": LEARNING, "learning_rate": [0.1] * 30}
    finding = found(log, "batch-size-changed", batch_size={0: 32, 12: 128})
    assert (
        "changed from 32 to 128 in epoch 12, and the rate went from 0.1 to 0.1" in finding.evidence
    )
    assert f"to {keras_lr.scale_lr(0.1, 128, 32):g} with SGD" in finding.advice
    assert f"to {keras_lr.scale_lr(0.1, 128, 32, 'sqrt'):g} with Adam" in finding.advice
    column = {**log, "batch_size": [32] * 12 + [128] * 18}
    assert found(column, "batch-size-changed") == finding
    grown = np.where(EPOCHS < 12, 0.1, 0.2)
    silent({**column, "learning_rate": grown})  # square-root scaling, as for Adam
    silent({**log, "batch_size": [32] * 30})
    assert found({**column, "learning_rate": [None] * 30}, "batch-size-changed").severity == "hint"


@once
def test_batch_size_shows_in_the_updates():
    steps = np.cumsum([40] * 10 + [10] * 20)
    log = {"epoch": EPOCHS, "step": steps, "loss": LEARNING, "learning_rate": [0.1] * 30}
    evidence = found(log, "batch-size-changed").evidence
    assert "From epoch 10 on, an epoch has 0.25 times as many updates" in evidence
    cut_short = np.cumsum([40] * 10 + [80] + [40] * 19)  # an epoch that was trained twice
    silent({**log, "step": cut_short})


@once
def test_rules_look_at_the_last_run_only():
    """A run that restarted with new weights in the same file is judged alone."""
    log = {"epoch": [*range(30), *range(30)], "loss": [*LEARNING, *(2.1 - 0.01 * EPOCHS)]}
    said = diagnose(log)
    assert set(said.names) == {"appended-runs", "rate-too-low"}
    assert (said.rows, [run.names for run in said.earlier]) == (30, [()])
    lost = {"epoch": [*range(5), *range(30)], "loss": [1.0, math.nan, math.nan, math.nan, math.nan]}
    said = diagnose({**lost, "loss": [*lost["loss"], *LEARNING]})
    assert (said.names, said.earlier[0].names) == (("appended-runs",), ("not-a-number",))


# The result


@once
def test_missing_columns_are_listed_as_not_judged():
    said = diagnose({"loss": [2.0, 1.0, 0.5]})
    told = "\n".join(said.not_judged)
    for words in ("3 epochs; at least 6", "no validation loss", "no learning rate", "batch size"):
        assert words in told
    whole = {"loss": LEARNING, "val_loss": LEARNING, "learning_rate": [0.1] * 30}
    assert diagnose(whole, batch_size=32).not_judged == ()


@once
def test_findings_are_sorted_and_complete_as_text_and_dictionary():
    log = {
        "loss": [2.0, 1.0, 0.5, 0.4, 0.9, 3.0, 20.0, 300.0],
        "learning_rate": [0.1] * 8,
        "batch_size": [32] * 4 + [8] * 4,
    }
    said = diagnose(log)
    assert isinstance(said, Diagnosis) and isinstance(said.findings[0], Finding)
    assert said.names == ("diverged", "batch-size-changed")
    ranks = [SEVERITIES.index(finding.severity) for finding in said]
    assert ranks == sorted(ranks)
    assert said and len(said) == 2
    for width in (40, 80):
        text = said.to_text(width=width)
        assert max(map(len, text.splitlines())) <= width
    flowing = " ".join(str(said).split())
    for finding in said:
        for part in (finding.name, finding.evidence, finding.advice):
            assert part in flowing
    content = json.loads(json.dumps(said.to_dict(), allow_nan=False))
    assert content["findings"][0]["name"] == "diverged"
    assert content["rows"] == 8 and content["unit"] == "epoch"


@once
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1; got 0."),
        ({"batch_size": "32"}, TypeError, "batch_size must be"),
        ({"batch_size": {}}, ValueError, "at least one size"),
        ({"batch_size": {0: 32, 5: 1.5}}, ValueError, "got 1.5"),
        ({"restarts": [30]}, ValueError, "which ends with epoch 29; got 30."),
        ({"restarts": [-1]}, ValueError, "at least 0"),
        ({"total_epochs": 0}, ValueError, "total_epochs must be"),
        ({"untrained_loss": math.nan}, ValueError, "untrained_loss must be a finite number"),
    ],
)
def test_options_out_of_range_are_refused(options, error, words):
    with pytest.raises(error, match=words.replace(".", r"\.")):
        diagnose({"loss": LEARNING}, **options)


@once
def test_strange_curves_raise_no_error():
    rng = np.random.default_rng(0)
    curves = [
        np.zeros(20),
        np.ones(1),
        np.ones(2),
        -np.ones(9),
        np.full(9, 1e-300),
        [1e308, -1e308],
    ]
    curves += [
        np.full(12, math.nan),
        [1, math.nan, 1],
        np.full(7, math.inf),
        [0.0] * 5 + [1e300] * 5,
    ]
    curves += [rng.normal(size=count) * 10 ** rng.uniform(-9, 9) for count in range(1, 40)]
    for loss in curves:
        for rate in (None, 0.0, 0.1, math.nan):
            log = {"loss": loss, "val_loss": loss, "accuracy": np.zeros(len(loss))}
            if rate is not None:
                log["learning_rate"] = np.full(len(loss), rate)
            said = diagnose(log, batch_size=512, restarts=[len(loss) // 2], untrained_loss=1.0)
            assert said.to_text()
            json.dumps(said.to_dict(), allow_nan=False)


@once
def test_the_examples_run():
    for name in ("columns", "judge"):
        module = importlib.import_module(f"keras_lr.diagnosis.{name}")
        assert doctest.testmod(module).failed == 0


# Runs made to fail here, read from the files of Keras


def task():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 8)).astype("float32")
    y = (x[:, :4].sum(axis=1) > 0).astype("float32")
    return x, y


def trained(rate, epochs, callbacks=(), loss="mse", seed=0):
    keras.utils.set_random_seed(seed)
    x, y = task()
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(rate), loss)
    return model.fit(
        x[:64], y[:64], batch_size=32, epochs=epochs, verbose=0, callbacks=[*callbacks],
        validation_data=(x[64:], y[64:]),
    )  # fmt: skip


def test_a_run_that_overflows_is_found_in_its_csv_file(tmp_path):
    path = tmp_path / "log.csv"
    trained(1e10, 8, [keras.callbacks.CSVLogger(path)])
    before = path.read_bytes()
    said = diagnose(path)
    assert said.names[0] == "not-a-number" and said.findings[0].severity == "error"
    assert path.read_bytes() == before


def test_a_rate_that_is_too_low_is_found_in_the_history():
    assert diagnose(trained(1e-4, 12)).names == ("rate-too-low",)
    assert "rate-too-low" not in diagnose(trained(0.1, 12)).names


def test_a_schedule_that_ends_early_is_found_in_the_folder_of_tensorboard(tmp_path):
    decay = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=8)  # of 24 updates
    trained(decay, 12, [keras.callbacks.TensorBoard(tmp_path, write_graph=False)])
    finding = found(tmp_path, "schedule-ended-early")
    assert (finding.first, finding.last) == (3, 11)
