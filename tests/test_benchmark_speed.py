"""The tables of speed: their arithmetic, and that every public class is measured."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from contract import public_classes

from keras_lr import optimizers as ours

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "speed"
pytestmark = pytest.mark.once


def test_a_cell_has_the_median_and_the_quartiles_of_the_ratios(script):
    figures = script("figures")
    ratios = np.random.default_rng(0).uniform(0.5, 2.0, 10)
    ordered = np.sort(np.round(ratios, 4))
    made = figures.row("t", "r", 20, ratios, 2 * ratios)
    middle = (ordered[4] + ordered[5]) / 2
    low = ordered[2] + 0.25 * (ordered[3] - ordered[2])
    high = ordered[6] + 0.75 * (ordered[7] - ordered[6])
    assert figures.quartiles(made["cpu"]) == pytest.approx((low, middle, high))
    assert figures.short(made) == f"{middle:.2f}"
    assert figures.full(made).startswith(f"{middle:.2f} ({low:.2f}-{high:.2f}), wall ")
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize(("middle", "told"), [(1.051, "1.05"), (1.056, "**1.06**"), (0.9, "0.90")])
def test_a_missed_mark_is_bold(script, middle, told):
    figures = script("figures")
    made = figures.row("t", "r", "c", [middle - 0.2, middle, middle + 0.5], mark=1.05)
    assert figures.short(made) == told
    unmarked = figures.row("t", "r", "c", [middle - 0.2, middle, middle + 0.5])
    assert figures.short(unmarked) == told.strip("*")


def test_blocks_are_made_of_the_parts_that_were_measured(script, tmp_path):
    run, figures = script("run"), script("figures")
    rows = [
        figures.row("callbacks", "plain fit", "20 variables", text="floor"),
        figures.row("callbacks", "OneCycle", "20 variables", [1.2, 1.1], [1.0, 1.0], mark=1.05),
        figures.row("callbacks", "OneCycle", "traces", text="1 + 1"),
    ]
    told = {"part": "callbacks", "backend": "jax", "rows": rows}
    (tmp_path / "callbacks-jax.json").write_text(json.dumps(told))
    # What is there is not measured again.
    found = run.results(tmp_path, ["callbacks"], ["jax"], quick=False)
    made = run.blocks(run.Figures(found))
    assert made["speed-callbacks"].splitlines() == [
        "| variables | JAX, 20 |",
        "| --- | --- |",
        "| plain fit | floor |",
        "| OneCycle | **1.15** |",
    ]
    assert made["speed-callbacks-full"].splitlines() == [
        "| JAX, callbacks | 20 variables | traces |",
        "| --- | --- | --- |",
        "| plain fit | floor | - |",
        "| OneCycle | **1.15** (1.12-1.18), wall 1.00, mark 1.05 | 1 + 1 |",
    ]
    assert set(made) == {"speed-callbacks", "speed-callbacks-full"}
    # The rounds of a second process count as well.
    rows = [figures.row("callbacks", "OneCycle", "20 variables", [0.9, 1.0], [2.0, 2.0], mark=1.05)]
    (tmp_path / "callbacks-jax-2.json").write_text(json.dumps({**told, "rows": rows}))
    found = run.results(tmp_path, ["callbacks"], ["jax"], quick=False, processes=2)
    assert run.blocks(run.Figures(found))["speed-callbacks-full"].splitlines()[2:] == [
        "| plain fit | floor | - |",
        "| OneCycle | 1.05 (0.97-1.12), wall 1.50, mark 1.05 | 1 + 1 |",
    ]


def test_every_callback_is_measured(script):
    callbacks = script("callbacks")
    size = callbacks.Size(variables=20, steps=4)
    measured = {type(each) for make in callbacks.CONTENDERS.values() for each in make(size)[1]}
    assert public_classes("keras_lr.callbacks", keras.callbacks.Callback) - measured == set()


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="needs Keras 3.15")
def test_every_optimizer_is_measured(script):
    makers = [make for _, make, _ in script("optimizers").CONTENDERS.values()]
    for name in ours.__all__:
        kind = getattr(ours, name)
        assert any(isinstance(make(), kind) for make in makers), name
