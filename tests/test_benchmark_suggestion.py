"""The benchmark of the suggestions: regrets, intervals, and the input of the peers."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

FOLDER = str(Path(__file__).resolve().parents[1] / "benchmarks" / "suggestion")
sys.path.insert(0, FOLDER)
import peers  # noqa: E402
import run  # noqa: E402
import runs  # noqa: E402
import scores  # noqa: E402

sys.path.remove(FOLDER)

pytestmark = pytest.mark.once


def falling(steps=60):
    """A loss that falls by one from step 20 to step 40, fastest at step 30."""
    rates = np.geomspace(1e-6, 1, steps)
    return rates, 3.0 - 1.0 / (1 + np.exp(30 - np.arange(steps, dtype=float)))


# Regrets


def test_regret_is_0_at_the_best_rate_and_1_where_nothing_was_learnt():
    losses = np.array([2.0, 1.5, 1.0, np.nan, 9.0])
    np.testing.assert_allclose(scores.regrets(losses, untrained=2.0), [1, 0.5, 0, 1, 1])


def test_a_rate_is_judged_between_its_neighbours_in_ln_lr_and_no_answer_is_charged_1():
    table = np.zeros((2, len(scores.GRID)))
    table[0, 5], table[1] = 0.4, 0.2
    between = np.sqrt(scores.GRID[5] * scores.GRID[6])
    np.testing.assert_allclose(scores.judged(table, between), [0.2, 0.2])
    np.testing.assert_allclose(scores.judged(table, 1e9), [0, 0.2])
    np.testing.assert_array_equal(scores.judged(table, None), [1, 1])


def test_the_interval_is_that_of_tasks_not_of_seeds():
    tasks = np.random.default_rng(5).normal(size=40)
    many = np.repeat(tasks[:, None], 50, axis=1)  # fifty seeds that say the same
    found = scores.over_tasks(many)
    half = 1.645 * tasks.std() / np.sqrt(40)
    np.testing.assert_allclose(found.value, tasks.mean())
    np.testing.assert_allclose([found.low, found.high], tasks.mean() + [-half, half], atol=0.05)
    assert found == scores.over_tasks(many)  # and the same one each time
    low, high = scores.over_tasks(np.array([[0.0], [1.0]]), np.median)[1:]
    assert (low, high) == (0.0, 1.0)


# Short runs


def test_a_short_run_ends_where_five_losses_stay_high_or_one_is_not_finite():
    losses = np.ones(20)
    assert runs.cut_off(losses, 2.0) is None
    losses[3] = 9.0  # a single peak
    assert runs.cut_off(losses, 2.0) is None
    losses[10:] = 9.0
    assert runs.cut_off(losses, 2.0) == 13  # three of the last five
    losses[7:] = np.nan
    assert runs.cut_off(losses, 2.0) == 8


class Recorded:
    """A runner whose batch losses rise in proportion to the rate."""

    class task:
        data = "wine"

    def train(self, seed, order, rates):
        return 1.0 + rates * np.arange(len(rates)), None, 0.0, 0.25 * len(rates)


def test_a_short_run_that_goes_on_costs_the_further_updates_only():
    trainer = runs.Trainer(Recorded(), 0)
    first = trainer.train(0.01, 50, 3.0)
    assert first[:2] == (12.5, 50)
    assert trainer.train(0.01, 25, 3.0, first.state)[:2] == (18.75, 25)
    # The loss 3 is passed after 201 updates; the median of five shows it two later.
    cut = trainer.train(0.01, 400, 3.0, first.state)
    assert cut[:2] == (float("inf"), 204 - 50)
    assert cut.state is None


def test_an_answer_for_each_policy_is_scored_at_its_own_rate():
    table = np.zeros((2, len(scores.GRID)))
    table[0, 3], table[1, 3], table[1, 9] = 0.5, 0.25, 0.75
    answer = run.Planned((scores.GRID[3], scores.GRID[9]), 100)
    np.testing.assert_allclose(run.regret_of(table, answer), [0.5, 0.75])
    np.testing.assert_allclose(run.regret_of(table, peers.Answer(scores.GRID[3], 0)), [0.5, 0.25])
    np.testing.assert_allclose(answer.rate, scores.GRID[6])


def test_an_interval_holds_the_best_rate_of_its_own_policy():
    table = np.ones((2, len(scores.GRID)))
    table[0, 3] = table[1, 9] = 0.0
    around = (scores.GRID[2], scores.GRID[4])
    answer = run.Planned((1.0, 1.0), 100, (around, around))
    assert run.holds_best(table, answer) == [True, False]


# Peers


def test_torch_lr_finder_and_ignite_are_shown_their_average_and_find_its_steepest_fall():
    rates, losses = falling()
    seen = [losses[0]]
    for loss in losses[1:]:
        seen.append(0.05 * loss + 0.95 * seen[-1])
    steepest = rates[10:-5][np.gradient(np.array(seen)[10:-5]).argmin()]
    for peer in (peers.torch_lr_finder, peers.ignite):
        found = peer(rates, losses)
        np.testing.assert_allclose(found.rate, steepest, rtol=1e-6)
        assert found.steps == len(rates)


def test_lightning_is_shown_its_average_and_reads_the_slope_in_lr():
    rates, losses = falling()
    losses += np.random.default_rng(0).normal(0, 0.1, len(losses))
    found = []
    for ahead in (0, 1):  # its count is one step ahead
        total, seen = 0.0, []
        for i, loss in enumerate(losses, start=1):
            total = 0.98 * total + 0.02 * loss
            seen.append(total / (1 - 0.98 ** (i + ahead)))
        slope = np.gradient(np.array(seen)[10:-1], rates[10:-1])
        found.append(rates[10:-1][slope.argmin()])
    assert found[0] < found[1] / 10
    np.testing.assert_allclose(peers.lightning(rates, losses).rate, found[1], rtol=1e-6)


@pytest.mark.parametrize("name", ["torch_lr_finder", "ignite"])
def test_a_peer_stops_where_its_own_rule_says(name):
    rates, losses = falling()
    losses[50:] = 1000.0
    average, best = losses[0], losses[0]
    for steps, loss in enumerate(losses[1:], start=2):  # noqa: B007
        average = 0.05 * loss + 0.95 * average
        best = min(best, average)
        if average > 5 * best:
            break
    assert getattr(peers, name)(rates, losses).steps == steps == 51


@pytest.mark.parametrize("name", ["torch_lr_finder", "ignite", "lightning"])
def test_a_peer_without_an_answer_has_none(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = getattr(peers, name)(np.geomspace(1e-6, 1, 20)[:3], np.ones(3))
    assert found == peers.Answer(None, 3)


def test_what_a_peers_file_defines_is_run_and_nothing_else_of_it():
    text = (
        "import nothing_of_this_name\n\n"
        "@mark\ndef twice(x): return factor * x\n\n"
        "class Other: raise RuntimeError\n"
    )
    code = peers.defined(text, ["twice"], {"factor": 2, "mark": lambda function: function})
    assert code.twice(21) == 42
    with pytest.raises(ImportError, match="thrice"):
        peers.defined(text, ["thrice"], {})
