"""What a search tries next, and what it says: arithmetic on results that a formula makes."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from keras_lr.range_test import transfer_lr
from keras_lr.rate_search.evidence import Noise, contenders, student_t, worse
from keras_lr.rate_search.plan import (
    COARSE,
    Design,
    Job,
    Outcome,
    Plan,
    Setting,
    Start,
)
from keras_lr.rate_search.rounds import Score

pytestmark = pytest.mark.once

BASE = Setting(1.0, batch_size=32)
DESIGN = Design(2, 5, 0.25, 3, 3, False, 0, {}, BASE)


def valley(best, noise=0.0, blow_up=math.inf):
    """A loss of 1 at the rate `best`, e times as large a decade and a bit away from it."""

    def loss(job):
        rate = job.setting.learning_rate
        if rate >= blow_up:
            return math.nan
        draw = np.random.default_rng([job.seed, int(rate * 1e9)]).normal()
        return math.exp(math.log10(rate / best) ** 2 + noise * draw)

    return loss


def run(plan, loss, order=None):
    """Do what a plan asks for until it asks for nothing; the results by their keys."""
    found = {}
    for _ in range(200):
        missing = plan.missing(found)
        if not missing:
            return found
        for job in order(missing) if order else missing:
            value = loss(job)
            ended = "diverged" if math.isnan(value) else "finished"
            found[job.key] = Outcome(job, ended, value)
    raise AssertionError("the plan has no end")


def rates(now):
    return sorted({job.setting.learning_rate for job in now.jobs})


def outcomes(*values, rate=0.1, ended="finished"):
    job = Job("fine", replace(BASE, learning_rate=rate), 0, 1.0, 3)
    return tuple(Outcome(replace(job, seed=i), ended, value) for i, value in enumerate(values))


def test_coarse_round_is_a_rate_a_decade_between_firm_ends():
    plan = Plan(DESIGN, Start(1e-4, 1e-1, 3e-3, firm=True))
    assert rates(plan.rounds({})[0]) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1], rel=1e-9)


def test_firm_ends_are_tried_as_they_were_given():
    found = rates(Plan(DESIGN, Start(1.23e-4, 4.56e-2, 1e-3, firm=True)).rounds({})[0])
    assert found[0] == 1.23e-4 and found[-1] == 4.56e-2
    assert len(found) == 4  # 2.6 decades are three steps


def test_coarse_round_lies_around_the_suggestion_a_decade_apart():
    plan = Plan(DESIGN, Start(2e-5, 5e-2, 2e-3))
    assert rates(plan.rounds({})[0]) == pytest.approx([2e-5, 2e-4, 2e-3, 2e-2])
    assert plan.missing({})[0].setting.learning_rate == 2e-3


def test_coarse_round_has_a_neighbour_on_each_side_at_least():
    plan = Plan(DESIGN, Start(1e-3, 1e-3, 1e-3))
    assert rates(plan.rounds({})[0]) == pytest.approx([1e-4, 1e-3, 1e-2])


def test_fine_rounds_halve_the_spacing_in_ln_around_the_best():
    plan = Plan(DESIGN, Start(1e-5, 1e-1, 1e-3))
    rounds = plan.rounds(run(plan, valley(1e-3)))
    assert [now.name for now in rounds] == ["coarse", "fine 1", "fine 2"]
    # A factor of the square root of 10, then of the fourth root; rates have two digits.
    wanted = [1e-3 * 10 ** (i / 2) for i in (-2, -1, 0, 1, 2)]
    np.testing.assert_allclose(rates(rounds[1]), wanted, rtol=0.03)
    wanted = [1e-3 * 10 ** (i / 4) for i in (-2, -1, 0, 1, 2)]
    np.testing.assert_allclose(rates(rounds[2]), wanted, rtol=0.03)


def test_a_rate_that_only_rounding_sets_apart_from_a_tried_one_is_not_trained_again():
    """0.12 / 10 ** 0.25 is 0.067, and 0.069 was tried; 0.12 * 10 ** 0.25 is 0.21, and 0.22."""
    design = replace(DESIGN, also={"policy": ("constant",)}, fraction=1.0)
    plan = Plan(design, Start(1e-3, 1.0, 0.069, tested=True))
    rounds = plan.rounds(run(plan, valley(0.12)))
    assert rates(rounds[0]) == [0.022, 0.069, 0.22]
    assert {0.069, 0.12, 0.22} <= set(rates(rounds[-1]))
    tried = sorted({rate for each in rounds for rate in rates(each)})
    assert min(high / low for low, high in zip(tried, tried[1:], strict=False)) > 1.06


def test_data_and_seeds_grow_to_the_last_round():
    plan = Plan(DESIGN, Start(1e-5, 1e-1, 1e-3))
    rounds = plan.rounds(run(plan, valley(1e-3)))
    assert [now.fraction for now in rounds] == [0.25, 0.5, 1.0]
    assert [sorted({job.seed for job in now.jobs}) for now in rounds] == [[0], [0], [0, 1, 2]]
    assert {job.epochs for now in rounds for job in now.jobs} == {3}


def test_seeds_count_on_from_the_first():
    plan = Plan(replace(DESIGN, seed=7), Start(1e-5, 1e-1, 1e-3))
    rounds = plan.rounds(run(plan, valley(1e-3)))
    assert [sorted({job.seed for job in now.jobs}) for now in rounds] == [[7], [7], [7, 8, 9]]


def test_without_fine_rounds_the_coarse_one_takes_everything():
    plan = Plan(replace(DESIGN, fine_rounds=0), Start(1e-4, 1e-2, 1e-3))
    now = plan.rounds({})[0]
    assert now.fraction == 1.0 and len(now.jobs) == 3
    (now,) = plan.rounds(run(plan, valley(1e-3)))
    assert {job.seed for job in now.jobs} == {0, 1, 2}


@pytest.mark.parametrize("best", [3e-7, 2e-5, 4e-4, 1e-3, 7e-3, 0.2, 30.0])
def test_finds_the_bottom_of_a_valley_wherever_the_search_begins(best):
    plan = Plan(DESIGN, Start(1e-4, 1e-2, 1e-3))
    answer = plan.answer(run(plan, valley(best)))
    # Within half of the last spacing, and the digits that rates are rounded to.
    assert abs(math.log10(answer.setting.learning_rate / best)) <= 0.125 + 0.03
    assert answer.finished and answer.low <= answer.setting.learning_rate <= answer.high


def test_nothing_goes_beyond_firm_ends_and_the_answer_says_that_it_lies_there():
    plan = Plan(DESIGN, Start(1e-4, 1e-2, 1e-3, firm=True))
    found = run(plan, valley(1.0))
    assert max(outcome.job.setting.learning_rate for outcome in found.values()) == 1e-2
    answer = plan.answer(found)
    assert answer.setting.learning_rate == 1e-2
    assert any("a higher rate may be better" in note for note in answer.warnings)


def test_what_is_said_of_the_ends_is_true_of_all_rates_that_were_tried():
    """The first round tries lower rates than the last one, which the interval reaches."""
    plan = Plan(DESIGN, Start(1e-4, 1e-2, 1e-3))
    found = run(plan, valley(1e-3))
    last = plan.rounds(found)[-1]
    lowest = "The interval includes the lowest rate tried in the fine 2 round; a lower rate may"
    middle = sorted(rates(last))[len(set(rates(last))) // 2]

    def loss(job):
        """The middle is best for two seeds of three: the interval holds all rates."""
        if job.fraction < 1.0:
            return valley(1e-3)(job)
        best = job.setting.learning_rate == middle
        return 2.0 + {0: -0.1, 1: 0.05, 2: -0.1}[job.seed] * best

    found = run(plan, loss)
    answer = plan.answer(found)
    assert any(note.startswith(lowest) for note in answer.warnings)
    assert answer.low == pytest.approx(min(rates(last)) / 10**0.15, rel=1e-9)
    assert min(each.job.setting.learning_rate for each in found.values()) < answer.low


def replace_losses(found, now, loss):
    """The same results, but other losses in one round."""
    return {
        key: replace(each, value=loss(each)) if each.job.round == now.name else each
        for key, each in found.items()
    }


def test_where_everything_diverges_the_search_goes_down():
    plan = Plan(DESIGN, Start(1e-2, 1.0, 0.1))
    answer = plan.answer(run(plan, valley(3e-6, blow_up=1e-5)))
    assert abs(math.log10(answer.setting.learning_rate / 3e-6)) < 0.16


def test_where_nothing_ever_trains_the_plan_ends_without_an_answer():
    plan = Plan(DESIGN, Start(1e-2, 1.0, 0.1))
    found = run(plan, lambda job: math.nan)
    assert plan.answer(found) is None
    assert 3 < len(found) <= 12


def test_a_rate_that_diverges_with_one_seed_is_not_the_answer():
    plan = Plan(DESIGN, Start(1e-5, 1e-1, 1e-3))
    loss = valley(1e-3)

    def shaky(job):
        return math.nan if job.seed == 2 and job.setting.learning_rate > 9e-4 else loss(job)

    answer = plan.answer(run(plan, shaky))
    assert answer.setting.learning_rate < 9e-4


def test_what_fell_behind_is_no_answer_and_worse_than_what_finished():
    finished = Score(BASE, outcomes(5.0), False)
    behind = Score(BASE, outcomes(1.0, ended="behind"), False)
    diverged = Score(BASE, outcomes(math.nan, ended="diverged"), False)
    assert sorted([diverged, behind, finished], key=Score.cost) == [finished, behind, diverged]
    assert worse(behind, finished)


def test_an_objective_that_should_rise_is_the_same_upside_down():
    up = Plan(replace(DESIGN, maximize=True), Start(1e-4, 1e-2, 1e-3))
    down = Plan(DESIGN, Start(1e-4, 1e-2, 1e-3))
    loss = valley(4e-3)
    best = up.answer(run(up, lambda job: -loss(job)))
    same = down.answer(run(down, loss))
    assert best.tried == same.tried and best.mean == pytest.approx(-same.mean)


@pytest.mark.parametrize("workers", [2, 8])
@pytest.mark.parametrize("seed", range(5))
def test_any_number_of_workers_does_the_same_runs_and_finds_the_same(workers, seed):
    """Each worker holds the first free job; any of them ends next."""
    plan = Plan(replace(DESIGN, seed=seed), Start(1e-4, 1e-2, 1e-3))
    loss = valley(5e-3, noise=0.3)
    shuffle = random.Random(seed)
    held = []

    def order(missing):
        taken = {job.key for job in held}
        held.extend([job for job in missing if job.key not in taken][: workers - len(held)])
        return [held.pop(shuffle.randrange(len(held)))]

    first, other = run(plan, loss), run(plan, loss, order)
    assert first.keys() == other.keys()
    assert plan.answer(first) == plan.answer(other)
    assert first.keys() == {job.key for now in plan.rounds(other) for job in now.jobs}


@pytest.mark.parametrize("fraction", [0.25, 1.0])
def test_no_run_is_trained_twice(fraction):
    """A run is known by its setting, seed, rows and epochs, whichever round asks for it."""
    design = replace(DESIGN, also={"batch_size": (16, 32)}, fraction=fraction)
    plan = Plan(design, Start(1e-4, 1e-2, 1e-3))
    trained = []

    def loss(job):
        trained.append((job.setting, job.seed, job.fraction, job.epochs))
        return valley(0.3)(job)

    found = run(plan, loss)
    assert len(trained) == len(set(trained)) == len(found)
    rounds = plan.rounds(found)
    for now in rounds:
        assert now.complete and [each.job for each in now.outcomes] == now.jobs
    # The round of the batch sizes returns to the rate of the coarse one.
    assert sum(len(now.jobs) for now in rounds) > len(found)


def test_a_setting_counts_once_all_of_its_seeds_have_ended():
    plan = Plan(DESIGN, Start(1e-4, 1e-2, 1e-3))
    loss = valley(1e-3)
    found = run(plan, loss)
    last = plan.rounds(found)[-1].jobs
    lucky = next(job for job in last if job.setting.learning_rate != 1e-3)
    for job in last:
        del found[job.key]
    found[lucky.key] = Outcome(lucky, "finished", 0.0)
    assert plan.answer(found).round == "fine 1"


# The race of the last round


def test_the_last_round_races():
    """All rates with the first seed, the best three with the second, the rest by a test."""
    plan = Plan(DESIGN, Start(1e-5, 1e-1, 1e-3))
    found = run(plan, valley(1e-3))
    last = plan.rounds(found)[-1]
    by_seed = [sorted(j.setting.learning_rate for j in last.jobs if j.seed == i) for i in range(3)]
    assert by_seed[0] == pytest.approx([1e-3 * 10 ** (i / 4) for i in range(-2, 3)], rel=0.03)
    assert by_seed[1] == by_seed[0][1:4]
    # Without noise the ratios of the losses are equal for both seeds: all others are worse.
    assert by_seed[2] == [1e-3]
    answer = plan.answer(found)
    assert answer.tried.learning_rate == 1e-3 and answer.finished


def test_noisy_rates_race_to_the_end():
    plan = Plan(DESIGN, Start(1e-5, 1e-1, 1e-3))
    luck = {0: -0.3, 1: 0.3, 2: -0.3}  # of the rates above the best
    loss = valley(1e-3)

    def noisy(job):
        final = job.fraction == 1.0 and job.setting.learning_rate > 1e-3
        return loss(job) * math.exp(luck[job.seed] if final else 0.0)

    last = plan.rounds(run(plan, noisy))[-1]
    seeds = [sum(job.setting.learning_rate == rate for job in last.jobs) for rate in rates(last)]
    # Paired differences of 1.8e-3 to 1e-3: -0.24, 0.36; of 3.2e-3: -0.05, 0.55.
    assert seeds == [1, 1, 3, 3, 3]


def test_a_setting_that_did_not_finish_never_goes_on():
    good = Score(replace(BASE, learning_rate=0.2), outcomes(1.0, 1.1, rate=0.2), False)
    gone = Score(BASE, outcomes(0.5, math.nan, ended="diverged"), False)
    short = Score(replace(BASE, learning_rate=0.3), outcomes(0.1, rate=0.3), False)
    assert contenders([gone, short, good], 2) == [good]
    many = [Score(BASE, outcomes(value, rate=value), False) for value in (5.0, 3.0, 4.0, 2.0)]
    assert [each.mean for each in contenders(many, 1)] == [2.0, 3.0, 4.0]


def test_a_dropped_rate_is_judged_by_the_noise_of_those_that_went_on():
    draw = np.random.default_rng(1)
    base = draw.normal(size=3)
    others = [base + 0.1 + 0.2 * draw.normal(size=3) for _ in range(2)]
    best = Score(BASE, outcomes(*np.exp(base)), False)
    raced = [
        Score(replace(BASE, learning_rate=0.2 + i), outcomes(*np.exp(each)), False)
        for i, each in enumerate(others)
    ]
    noise = Noise.among([best, *raced], best)
    deviation = math.sqrt(np.mean([np.var(each - base, ddof=1) for each in others]))
    assert noise.freedom == 4
    np.testing.assert_allclose(noise.deviation, deviation, rtol=1e-9)
    bound = stats.t.ppf(0.95, 4) * deviation
    for factor, told in ((0.98, False), (1.02, True)):
        dropped = Score(BASE, outcomes(math.exp(base[0] + factor * bound)), False)
        assert worse(dropped, best, noise) == told
        assert worse(dropped, best)  # without noise any difference counts
    assert Noise.among([best], best) is None


def test_a_dropped_rate_is_not_the_best_although_its_seed_was_easy():
    plan = Plan(DESIGN, Start(1e-5, 1e-1, 1e-3))
    loss = valley(1e-3)
    found = run(plan, lambda job: loss(job) * (1.0 if job.seed == 0 else 3.0))
    now = plan.rounds(found)[-1]
    assert len(now.best().values) == 3
    lucky = [s for s in now.scores if len(s.values) == 1 and s.mean < now.best().mean]
    assert lucky  # its mean over the first seed alone is lower


def test_a_seed_counts_once_all_its_runs_have_ended():
    plan = Plan(DESIGN, Start(1e-5, 1e-1, 1e-3))
    found = run(plan, valley(1e-3))
    second = [job for job in plan.rounds(found)[-1].jobs if job.seed == 1]
    for job in plan.rounds(found)[-1].jobs:
        if job.seed == 2 or job == second[0]:
            del found[job.key]
    now = plan.rounds(found)[-1]
    assert plan.missing(found) == [second[0]]
    assert {len(score.values) for score in now.scores} == {1}


# Further dimensions


def test_the_best_two_values_run_with_a_second_seed_before_one_is_chosen():
    """The first seed is lucky with cosine; both together are better with one-cycle."""
    policies = ("constant", "one-cycle", "cosine")
    design = replace(DESIGN, also={"policy": policies})
    plan = Plan(design, Start(1e-4, 1e-2, 1e-3, tested=True))
    levels = {"constant": (3.0, 0.1), "one-cycle": (1.2, 1.2), "cosine": (1.0, 1.5)}

    def loss(job):
        decades = math.log10(job.setting.learning_rate / 2e-3)
        return levels[job.setting.policy][min(job.seed, 1)] * math.exp(decades**2)

    found = run(plan, loss)
    first, second = plan.rounds(found)[:2]
    again = [job for job in first.jobs if job.seed == 1]
    assert [job.setting.policy for job in again] == ["cosine", "one-cycle"]
    rates = [job.setting.learning_rate for job in again]
    np.testing.assert_allclose(rates, 2e-3, rtol=0.1)
    assert {job.setting.policy for job in second.jobs} == {"one-cycle"}
    assert plan.answer(found).setting.policy == "one-cycle"


def test_one_seed_is_enough_if_the_last_round_has_one():
    design = replace(DESIGN, also={"policy": ("constant", "cosine")}, final_seeds=1)
    plan = Plan(design, Start(1e-4, 1e-2, 1e-3, tested=True))
    assert {outcome.job.seed for outcome in run(plan, valley(1e-3)).values()} == {0}


def test_a_round_of_also_has_an_answer_before_its_second_seed():
    design = replace(DESIGN, also={"policy": ("constant", "cosine")})
    plan = Plan(design, Start(1e-4, 1e-2, 1e-3, tested=True))
    job = plan.missing({})[0]
    answer = plan.answer({job.key: Outcome(job, "finished", 0.5)})
    assert answer.round == "policy" and not answer.finished


@pytest.mark.parametrize("rule, scaled", [("linear", 4e-3), ("sqrt", 2e-3)])
def test_the_rate_of_a_batch_size_begins_by_the_rule_of_the_optimizer(rule, scaled):
    design = replace(DESIGN, also={"batch_size": (32, 128)}, batch_rule=rule)
    plan = Plan(design, Start(1e-4, 1e-2, 1e-3))
    now = next(n for n in plan.rounds(run(plan, valley(1e-3))) if n.name == "batch_size")
    tried = {32: [], 128: []}
    for job in now.jobs:
        tried[job.setting.batch_size].append(job.setting.learning_rate)
    root = math.sqrt(10)
    np.testing.assert_allclose(tried[32][:3], [1e-3, 1e-3 * root, 1e-3 / root], rtol=0.03)
    wanted = [scaled, scaled * root, scaled / root]
    np.testing.assert_allclose(tried[128][:3], wanted, rtol=0.03)


def test_the_product_of_rate_and_weight_decay_stays_with_other_rates():
    design = replace(DESIGN, also={"weight_decay": (0.0, 0.1, 0.3)})
    plan = Plan(design, Start(1e-4, 1e-2, 2e-3, tested=True))

    def loss(job):
        """A decay of 0.1 at 0.002 is best; the best rate is twice as high."""
        decay = math.log10((job.setting.rate_decay + 1e-9) / 2e-4)
        return valley(4e-3)(job) * math.exp(decay**2)

    rounds = plan.rounds(run(plan, loss))
    assert {job.setting.rate_decay for job in rounds[0].jobs} == {0.0, 2e-4, 6e-4}
    settings = [job.setting for each in rounds[1:] for job in each.jobs]
    assert {each.rate_decay for each in settings} == {2e-4}
    for each in settings:
        np.testing.assert_allclose(each.weight_decay, 2e-4 / each.learning_rate, rtol=5e-3)
    assert plan.answer(run(plan, loss)).setting.rate_decay == 2e-4


def test_keys_of_settings_without_the_new_fields_are_those_of_earlier_searches():
    job = Job("coarse", Setting(0.1, 0.9, 32, 0.1, "cosine"), 3, 0.5, 4)
    assert job.key == (
        "learning_rate=0.1/momentum=0.9/batch_size=32/warmup=0.1/policy=cosine/seed=3/rows=0.5/"
        "epochs=4"
    )
    new = replace(job, setting=replace(job.setting, beta_2=0.99, rate_decay=1e-4))
    assert "/policy=cosine/beta_2=0.99/rate_decay=0.0001/seed=3" in new.key


@pytest.mark.parametrize("velocity, factor", [(True, 0.05 / 0.1), (False, 1.0)])
def test_momentum_of_sgd_keeps_the_length_of_a_steady_step(velocity, factor):
    design = replace(
        DESIGN,
        also={"momentum": (0.9, 0.95)},
        base=replace(BASE, momentum=0.9),
        velocity=velocity,
    )
    plan = Plan(design, Start(1e-4, 1e-2, 1e-3))
    now = next(n for n in plan.rounds(run(plan, valley(1e-3))) if n.name == "momentum")
    first = next(j.setting.learning_rate for j in now.jobs if j.setting.momentum == 0.95)
    assert first == pytest.approx(1e-3 * factor, rel=0.03)


def test_the_best_variant_is_refined_and_the_others_are_not():
    plan = Plan(replace(DESIGN, also={"policy": ("constant", "cosine")}), Start(1e-4, 1e-2, 1e-3))
    loss = valley(2e-2)

    def better(job):
        return loss(job) * (0.5 if job.setting.policy == "cosine" else 1.0)

    found = run(plan, better)
    answer = plan.answer(found)
    assert answer.setting.policy == "cosine"
    assert abs(math.log10(answer.setting.learning_rate / 2e-2)) < 0.16
    fine = [now for now in plan.rounds(found) if now.name.startswith("fine")]
    assert {job.setting.policy for now in fine for job in now.jobs} == {"cosine"}


def test_one_cycle_warms_up_by_itself():
    also = {"warmup": (0.0, 0.3), "policy": ("constant", "one-cycle")}
    plan = Plan(replace(DESIGN, also=also), Start(1e-4, 1e-2, 1e-3))
    loss = valley(1e-3)
    found = run(plan, lambda job: loss(job) * (0.5 if job.setting.warmup else 1.0))
    now = next(n for n in plan.rounds(found) if n.name == "policy")
    warmups = {job.setting.policy: job.setting.warmup for job in now.jobs}
    assert warmups == {"constant": 0.3, "one-cycle": 0.0}


def test_policies_begin_as_their_bounds_differ():
    policies = ("constant", "one-cycle", "cosine", "wsd")
    start = Start(1e-4, 1e-1, 1e-2, tested=True)
    now = Plan(replace(DESIGN, also={"policy": policies}), start).rounds({})[0]
    assert now.name == "policy" and len(now.jobs) == 12
    firsts = {job.setting.policy: job.setting.learning_rate for job in now.jobs[:4]}
    # benchmarks/horizon: the best constant rate is 0.3 decades below the best peak of one-cycle.
    assert firsts["constant"] == 1e-2
    assert firsts["one-cycle"] == pytest.approx(1e-2 * 10**0.3, rel=0.03)
    assert firsts["constant"] < firsts["wsd"] < firsts["cosine"]


# What it may cost


def test_after_a_range_test_the_rate_alone_begins_around_its_suggestion():
    plan = Plan(replace(DESIGN, fraction=1.0, max_runs=8), Start(1e-5, 1.0, 1e-2, tested=True))
    assert [now.name for now in plan.rounds({})] == ["fine 1"]
    assert rates(plan.rounds({})[0]) == pytest.approx([1e-3, 3.2e-3, 1e-2, 3.2e-2, 0.1])
    found = run(plan, valley(1.5e-2))
    assert len(found) == 7  # five and two between them; the eighth would have no rival
    assert plan.answer(found).finished


@pytest.mark.parametrize("best", [1e-5, 1e-3, 4e-2, 3.0])
@pytest.mark.parametrize("also, most", [((), 8), (("constant", "one-cycle", "cosine", "wsd"), 20)])
@pytest.mark.parametrize("fraction, cost", [(1.0, 0.5), (1.0, 3.7), (0.2, 0.1)])
def test_a_plan_asks_for_no_more_than_max_runs(best, also, most, fraction, cost):
    design = replace(DESIGN, also={"policy": also} if also else {}, max_runs=most)
    start = Start(1e-4, 1e-1, 1e-2, tested=True, cost=cost)
    plan = Plan(replace(design, fraction=fraction), start)
    found = run(plan, valley(best, noise=0.1))
    spent = cost + sum(outcome.job.fraction for outcome in found.values())
    assert spent <= most
    assert plan.answer(found).finished


def test_a_coarse_round_is_not_counted():
    plan = Plan(replace(DESIGN, fraction=1.0, max_runs=6), Start(1e-4, 1e-1, 1e-2))
    found = run(plan, valley(1e-2))
    coarse, *fine = plan.rounds(found)
    known = {job.key for job in coarse.jobs}
    assert len(known) == 4
    assert len({job.key for now in fine for job in now.jobs} - known) == 6


# The answer


def test_all_finished_runs_make_the_answer_and_not_the_luckiest():
    plan = Plan(DESIGN, Start(1e-4, 1e-1, 1e-2))
    found = run(plan, valley(4e-3))
    last = plan.rounds(found)[-1]
    lucky = max(rates(last)[:-1])
    # One rate is better than its neighbours by far more than the curve allows.
    found = replace_losses(
        found,
        last,
        lambda o: 0.9 if o.job.setting.learning_rate == lucky else o.value,
    )
    answer = plan.answer(found)
    assert answer.tried.learning_rate == lucky and answer.mean == pytest.approx(0.9)
    assert abs(math.log10(answer.setting.learning_rate / 4e-3)) < abs(math.log10(lucky / 4e-3))
    assert answer.low <= answer.setting.learning_rate <= answer.high


def test_the_answer_beats_the_best_run_where_runs_are_noisy():
    """Distance from the true best in decades, mean over searches."""
    tried, fitted = [], []
    for trial in range(60):
        plan = Plan(replace(DESIGN, final_seeds=1, seed=10 * trial), Start(1e-4, 1e-1, 1e-2))
        answer = plan.answer(run(plan, valley(4e-3, noise=0.1)))
        tried.append(abs(math.log10(answer.tried.learning_rate / 4e-3)))
        fitted.append(abs(math.log10(answer.setting.learning_rate / 4e-3)))
    assert np.mean(fitted) < 0.8 * np.mean(tried)


# The interval


def test_interval_ends_half_way_to_what_is_worse():
    plan = Plan(replace(DESIGN, final_seeds=1), Start(1e-5, 1e-1, 1e-3))
    answer = plan.answer(run(plan, valley(1e-3)))
    neighbours = 5.6e-4, 1.8e-3
    # and 0.15 decades beyond
    assert answer.low == pytest.approx(math.sqrt(1e-3 * neighbours[0]) / 10**0.15, rel=1e-9)
    assert answer.high == pytest.approx(math.sqrt(1e-3 * neighbours[1]) * 10**0.15, rel=1e-9)


def test_the_interval_has_no_rate_outside_the_ends_that_the_user_gave():
    plan = Plan(replace(DESIGN, final_seeds=1), Start(1e-4, 1.1e-3, 1e-3, firm=True))
    answer = plan.answer(run(plan, valley(3e-3)))
    assert answer.setting.learning_rate == answer.high == 1.1e-3


def test_the_range_test_bounds_the_interval_of_noisy_runs():
    """0.576 decades to each side: 90 % of a normal distribution with 0.35 decades."""
    plan = Plan(replace(DESIGN, final_seeds=1), Start(1e-5, 1.0, 1e-2, tested=True))
    for seed in range(20):
        plan = Plan(replace(plan.design, seed=10 * seed), plan.start)
        answer = plan.answer(run(plan, valley(1e-2, noise=0.5)))
        known = (answer.setting.learning_rate, answer.tried.learning_rate)
        assert min(*known, 1e-2 / 10**0.576) * 0.999 <= answer.low <= min(known)
        assert max(known) <= answer.high <= max(*known, 1e-2 * 10**0.576) * 1.001


def test_an_answer_expects_of_each_policy_what_the_range_test_says_of_it():
    policies = ("constant", "one-cycle")
    start = Start(1e-5, 1.0, 1e-2, tested=True)
    plan = Plan(replace(DESIGN, also={"batch_size": (32, 128), "policy": policies}), start)
    assert plan._expected(Setting(1.0, None, 32)) == 1e-2
    assert plan._expected(Setting(1.0, None, 128)) == pytest.approx(4e-2, rel=1e-9)  # linear
    cycled = plan._expected(Setting(1.0, None, 32, policy="one-cycle"))
    higher = transfer_lr(1e-2, ("constant", None), ("one-cycle", None))
    assert cycled == pytest.approx(higher, rel=1e-9)
    assert Plan(DESIGN, Start(1e-5, 1.0, 1e-2))._expected(Setting(1.0)) is None


def test_without_a_fit_an_answer_of_one_seed_says_that_its_noise_is_unknown():
    design = replace(DESIGN, fine_rounds=0, final_seeds=1)
    plan = Plan(design, Start(1e-4, 1e-2, 1e-3))
    answer = plan.answer(run(plan, valley(1e-3)))  # three rates determine a parabola, no noise
    assert any("ran once" in note for note in answer.warnings)
    plan = Plan(replace(design, fine_rounds=1), Start(1e-4, 1e-2, 1e-3))
    assert not any("ran once" in n for n in plan.answer(run(plan, valley(1e-3))).warnings)


def test_interval_holds_the_true_best_about_as_often_as_it_says():
    inside, searches = 0, 200
    for trial in range(searches):
        plan = Plan(replace(DESIGN, seed=10 * trial), Start(1e-4, 1e-1, 1e-2))
        answer = plan.answer(run(plan, valley(4e-3, noise=0.05)))
        inside += answer.low <= 4e-3 <= answer.high
    assert inside / searches >= 0.9


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_interval_of_a_few_runs_with_one_seed_holds_the_true_best(noise):
    inside, searches = 0, 200
    for trial in range(searches):
        design = replace(DESIGN, fraction=1.0, seed=10 * trial, max_runs=8)
        plan = Plan(design, Start(1e-4, 1e-1, 1e-2, tested=True, cost=0.5))
        answer = plan.answer(run(plan, valley(4e-3, noise=noise)))
        inside += answer.low <= 4e-3 <= answer.high
    assert inside / searches >= 0.9


def test_seeds_tell_what_a_paired_t_test_tells():
    random_state = np.random.default_rng(0)
    told = 0
    for _ in range(300):
        a = random_state.normal(0.3, 1.0, size=4)
        b = random_state.normal(0.0, 1.0, size=4)
        score = Score(BASE, outcomes(*a, rate=0.2), False)
        best = Score(BASE, outcomes(*b), False)
        p = stats.ttest_rel(a, b, alternative="greater").pvalue
        if abs(p - 0.05) < 2e-3:
            continue  # the quantile is an expansion
        assert worse(score, best) == (p < 0.05)
        told += p < 0.05
    assert told > 10


def test_losses_are_compared_by_their_ratios():
    # Twice as large with each seed, at levels a hundred times apart.
    best = Score(BASE, outcomes(1.0, 10.0, 100.0), False)
    assert worse(Score(BASE, outcomes(2.0, 20.1, 199.0), False), best)
    # The same as differences says nothing: their spread is as large as themselves.
    up = Score(BASE, outcomes(-2.0, -20.1, -199.0), True)
    assert not worse(up, Score(BASE, outcomes(-1.0, -10.0, -100.0), True))


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 29])
def test_quantile_of_student_t(freedom):
    assert student_t(freedom) == pytest.approx(stats.t.ppf(0.95, freedom), rel=3e-3)


def test_answer_of_an_unfinished_search_is_that_of_its_furthest_round():
    plan = Plan(DESIGN, Start(1e-4, 1e-2, 1e-3))
    loss = valley(1e-3)
    found = {job.key: Outcome(job, "finished", loss(job)) for job in plan.missing({})}
    answer = plan.answer(found)
    assert (answer.round, answer.setting.learning_rate) == (COARSE, 1e-3)
    assert not answer.finished
    assert any("not finished" in note for note in answer.warnings)
    job = plan.missing(found)[0]
    found[job.key] = Outcome(job, "finished", loss(job))
    assert plan.answer(found).round == "fine 1"


@pytest.mark.parametrize(
    ("also", "most", "left_out"),
    [
        ({"policy": ("constant", "cosine")}, 1.0, ["policy cosine"]),
        ({"policy": ("constant", "cosine")}, 20.0, []),
        ({"warmup": (0.0, 0.1), "policy": ("constant",)}, 1.0, ["warm-up 10 %"]),
        ({"weight_decay": (0.0, 0.001, 0.01)}, 20.0, []),
        ({"weight_decay": (0.0, 0.001, 0.01)}, 2.0, ["weight decay 0.01"]),
    ],
)
def test_an_answer_says_which_values_no_run_has_had(also, most, left_out):
    design = replace(DESIGN, also=also, max_runs=most, fraction=1.0, fine_rounds=1, final_seeds=1)
    plan = Plan(design, Start(1e-5, 1.0, 1e-2, tested=True))
    found = {}
    while missing := plan.missing(found):
        found.update({job.key: Outcome(job, "finished", valley(1e-2)(job)) for job in missing})
    said = [each for each in plan.answer(found).warnings if each.startswith("Not tried")]
    assert [each.partition(": ")[2].rstrip(".").split(", ") for each in said] == (
        [left_out] if left_out else []
    )
