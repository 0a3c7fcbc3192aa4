"""The benchmark of planned runs: policies, networks, the reference plan, and the truth."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax")
import jax
import jax.numpy as jnp
import keras

FOLDER = str(Path(__file__).resolve().parents[1] / "benchmarks" / "horizon")
sys.path.insert(0, FOLDER)
import data_sets  # noqa: E402
import plan  # noqa: E402
import policies  # noqa: E402
import trainer  # noqa: E402
import truth  # noqa: E402

sys.path.remove(FOLDER)

pytestmark = pytest.mark.once


# Policies


def test_each_policy_has_its_peak_at_one_and_ends_as_it_says():
    for name, policy in policies.POLICIES.items():
        shape = policy(100)
        assert shape.shape == (100,) and shape.max() == 1, name
    one_cycle, cosine, wsd = (policies.POLICIES[n](100) for n in ("one-cycle", "cosine", "wsd"))
    np.testing.assert_allclose(one_cycle[[0, 15, 30, 99]], [1 / 25, 0.52, 1, 1 / 25e4])
    np.testing.assert_allclose(cosine[[0, 4, 5]], [0.2, 1, 1])
    np.testing.assert_allclose(cosine[50], (1 + np.cos(np.pi * 45 / 95)) / 2)
    np.testing.assert_allclose(wsd[[0, 4, 40, 80, 90, 99]], [0.2, 1, 1, 1, 0.5, 0.05])


# Networks and optimizers, against Keras


def test_the_lstm_is_that_of_keras():
    init, apply = trainer.lstm(features=3, units=4, tokens=7)
    p = init(jax.random.key(1))
    np.testing.assert_array_equal(p["x"]["b"], [0] * 4 + [1] * 4 + [0] * 8)
    tokens = np.random.default_rng(0).integers(0, 7, (2, 5))
    layer = keras.layers.LSTM(4, return_sequences=True)
    inputs = np.asarray(p["embedding"])[tokens]
    layer.build(inputs.shape)
    layer.set_weights([np.asarray(a) for a in (p["x"]["w"], p["h"], p["x"]["b"])])
    states = keras.ops.convert_to_numpy(layer(inputs))
    expected = states @ np.asarray(p["out"]["w"]) + np.asarray(p["out"]["b"])
    np.testing.assert_allclose(apply(p, tokens), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4,), (2, 3, 2)])
def test_muon_is_that_of_keras(shape):
    rng = np.random.default_rng(1)
    start = rng.normal(size=shape).astype("float32")
    variable = keras.Variable(start)
    optimizer = keras.optimizers.Muon(learning_rate=0.03)
    optimizer.build([variable])
    p, m, v = jnp.asarray(start), jnp.zeros(shape), jnp.zeros(shape)
    for t in range(1, 4):
        g = rng.normal(size=shape).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(g)], [variable])
        p, m, v = trainer.muon(p, g, m, v, float(t), 0.03)
    expected = keras.ops.convert_to_numpy(variable.value)
    np.testing.assert_allclose(p, expected, rtol=1e-4, atol=1e-6)


# The trainer


@dataclass(frozen=True)
class Line(trainer.Task):
    """y = x w with w from 0, squared error."""

    def parts(self):
        return (
            lambda key: jnp.zeros((2, 1)),
            lambda p, x: x @ p,
            lambda outputs, y: jnp.mean((outputs - y) ** 2),
        )


def test_runs_side_by_side_are_those_of_a_plain_loop(monkeypatch):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 2)).astype("float32")
    y = x @ np.array([[1.0], [-2.0]], "float32")
    parts = data_sets.Data((x[:40], y[:40]), (x[40:50], y[40:50]), (x[50:], y[50:]))
    monkeypatch.setattr(trainer, "data", lambda name: parts)
    made = trainer.Trainer(Line("line", "line", "sgd", 8), longest=64)
    rates, shape = np.array([0.01, 0.1, 0.03, 0.2]), policies.wsd(60)
    batch, held, final, sample = made.train(rates, shape)
    assert batch.shape == (4, 3, 200) and np.isnan(batch[:, :, 60:]).all()
    for r, rate in enumerate(rates):
        for seed in trainer.SEEDS:
            order = np.random.default_rng(1000 * seed)
            rows = np.concatenate([order.permutation(40) for _ in range(13)]).reshape(-1, 8)
            w = np.zeros((2, 1))
            for i in range(60):
                a, b = x[rows[i]], y[rows[i]]
                np.testing.assert_allclose(
                    batch[r, seed, i], np.mean((a @ w - b) ** 2), rtol=1e-2, atol=1e-6
                )
                w = w - rate * shape[i] * 2 * a.T @ (a @ w - b) / 8
                if i == 24:
                    looked = np.mean((x[40:50] @ w - y[40:50]) ** 2)
            np.testing.assert_allclose(held[r, seed, 0], looked, rtol=1e-2, atol=1e-6)
            expected = np.mean((x[50:] @ w - y[50:]) ** 2)
            np.testing.assert_allclose(final[r, seed], expected, rtol=1e-2, atol=1e-6)


def test_whole_faces_are_held_out():
    face = np.repeat(np.arange(12), 50)
    x = np.arange(600.0)[:, None]
    parts = data_sets.by_face(x, face, face)
    assert set(parts.train[1]) == set(range(12)) - {0, 6}
    assert set(parts.sample[1]) | set(parts.final[1]) == {0, 6}


# The reference plan


def bowl(best, width=1.0, cut_above=np.inf):
    """Held-out losses of a made-up task; runs above a rate are cut off after ten updates."""

    def run(x, updates):
        calls.append((x, updates))
        return (np.inf, 10) if x > cut_above else (1 + ((x - best) / width) ** 2, updates)

    calls = []
    return run, calls


def test_two_probes_are_the_prior_and_a_gap_above_it_and_the_better_one_answers():
    run, calls = bowl(-2.25)
    found = plan.reference_plan(run, start=2.0, centre=-2.25, plan=plan.PLANS[100])
    assert calls == [(-2.25, 50), (-1.5, 50)] and found.cost == 100
    np.testing.assert_allclose(found.rate, -2.25 - 0.125)


def test_the_search_goes_beyond_an_edge_and_then_between():
    run, calls = bowl(-3.1)
    plan.reference_plan(run, 20.0, -2.0, plan.Plan(600, 100, 0.75))
    # Up, then down past the winner at the edge, a gap wider the second time, then between.
    assert [x for x, _ in calls] == [-2.0, -1.25, -2.75, -3.75, -3.25, -3.0]
    seen = {-2.25: 1.2, -2.0: 1.0, -1.75: 1.1}
    assert plan.next_rate(seen, -2.0, 0.75) is None  # a quarter decade apart is close enough


def test_the_best_two_go_on_and_the_budget_holds():
    run, calls = bowl(-2.0)
    found = plan.reference_plan(run, 5.0, -2.0, plan.PLANS[500])
    assert calls == [(-2.0, 100), (-1.5, 100), (-2.5, 100), (-2.0, 200), (-1.5, 200)]
    assert found.cost == 500 and set(found.losses) == {-2.0, -1.5}


def test_runs_cut_off_cost_what_they_took_and_lead_down():
    run, calls = bowl(-4.0, cut_above=-3.0)
    found = plan.reference_plan(run, 2.0, -1.0, plan.PLANS[300])
    assert [x for x, _ in calls[:3]] == [-1.0, -1.75, -3.25]
    assert found.cost <= 300 and np.isfinite(found.rate)


def test_rates_that_lose_little_share_the_answer():
    # The fall is 1, so a rate that loses .025 weighs half and one that loses .05 nothing.
    found = plan.near_mean({-3.0: 1.0, -2.0: 1.025, -1.0: 1.05, 0.0: np.inf}, start=2.0)
    np.testing.assert_allclose(found, -3.0 * 2 / 3 - 2.0 / 3)
    assert np.isnan(plan.near_mean({-1.0: np.inf}, start=2.0))


def test_the_correction_is_that_of_the_issue():
    np.testing.assert_allclose(plan.correction("constant", 500), -0.15)
    np.testing.assert_allclose(plan.correction("one-cycle", 8000), 0.15 - 0.2)


# The truth


@pytest.fixture
def made(tmp_path):
    found = truth.Truth(trainer.TASKS[0], tmp_path)
    found.kept["untrained"] = [3.0, 3.0, 3.0]
    return found


def parabola(made, key, best, rates):
    for x in rates:
        made.add(key, x, [1 + (x - best) ** 2] * 3)


def test_the_best_rate_is_the_vertex_of_the_parabola(made):
    parabola(made, ("constant", 500), -1.1, [-2.0, -1.5, -1.25, -1.0, -0.75])
    np.testing.assert_allclose(made.best(("constant", 500)), -1.1)
    parabola(made, ("wsd", 500), -3.0, [-2.0, -1.5, -1.0])
    assert made.best(("wsd", 500)) == -2.0  # the edge: nothing beyond it was trained


def test_regret_is_linear_between_rates_and_goes_on_beyond_them(made):
    key = ("constant", 500)
    for x, loss in ((-3.0, 2.0), (-2.0, 1.0), (-1.0, 1.5), (0.0, np.nan)):
        made.add(key, x, [loss] * 3)
    np.testing.assert_allclose(made.curve(key)[1], [0.5, 0, 0.25, 1])
    np.testing.assert_allclose([made.regret(key, x) for x in (-2.5, -1.5)], [0.25, 0.125])
    np.testing.assert_allclose([made.regret(key, x) for x in (-3.5, -9.0, 2.0)], [0.75, 1, 1])
    assert made.regret(key, None) == made.regret(key, float("nan")) == 1


def test_rates_are_wanted_around_the_best_until_the_ladder_is_whole(made):
    key = ("constant", 500)
    assert made.wanted(key, -1.0) == [-1.0, -1.5, -0.5]
    parabola(made, key, -1.5, [-1.0, -1.5, -0.5])
    assert made.wanted(key, -1.0) == [-2.0, -1.75, -1.25]
    parabola(made, key, -1.5, [-2.0, -1.75, -1.25])
    assert made.wanted(key, -1.0) == [-2.5]
    parabola(made, key, -1.5, [-2.5])
    assert made.wanted(key, -1.0) == []


def test_what_is_kept_is_read_again(made, tmp_path):
    made.add(("wsd", 2000), -1.25, [1.0, 2.0, float("nan")])
    made.keep()
    again = truth.Truth(made.task, tmp_path)
    np.testing.assert_equal(again.losses(("wsd", 2000)), {-1.25: [1.0, 2.0, float("nan")]})
    assert again.untrained == 3.0
