"""The schedules beside those of torch and optax, and beside the equations of papers."""

import math

import jax
import keras
import numpy as np
import optax
import pytest
import torch
from torch.optim import lr_scheduler

from keras_lr.schedules import (
    CyclicSchedule,
    ExponentialRampSchedule,
    FlatCosineSchedule,
    InverseSqrtSchedule,
    LinearRampSchedule,
    OneCycleSchedule,
    SequentialSchedule,
    SlantedTriangularSchedule,
    StepDecaySchedule,
    WarmUpSchedule,
    WarmUpStableDecaySchedule,
    scale_lr,
)
from keras_lr.schedules.base import evaluate

pytestmark = pytest.mark.long_elsewhere(
    "test_schedules.py computes the same curves on each backend"
)


def assert_same(schedule, expected, steps=None):
    steps = np.arange(len(expected)) if steps is None else steps
    np.testing.assert_allclose(evaluate(schedule, steps), expected, rtol=1e-5, atol=0)


def with_torch(steps, make, lr=0.1):
    """Rates and momenta that a torch scheduler gives the updates 0, 1, ..., steps - 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.5)
    scheduler = make(optimizer)
    rates, momenta = [], []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        if len(rates) < steps:
            scheduler.step()
    return np.array(rates), np.array(momenta)


def with_optax(steps, make):
    """Rates of an optax schedule in float64, whatever backend runs."""
    with jax.enable_x64(True):
        schedule = make()
        return np.array([float(schedule(step)) for step in range(steps)])


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize(
    "total_steps, pct_start", [(10, 0.3), (33, 0.29), (57, 0.41), (100, 0.5), (15, 0.1), (4, 0.5)]
)
def test_one_cycle_is_that_of_torch_with_its_momentum(total_steps, pct_start, anneal, three_phase):
    rates, momenta = with_torch(
        total_steps,
        lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer,
            0.3,
            total_steps,
            pct_start=pct_start,
            anneal_strategy=anneal,
            div_factor=20.0,
            final_div_factor=1e6,
            three_phase=three_phase,
        ),
    )
    ours = OneCycleSchedule(0.3, total_steps, pct_start, anneal, 20.0, 1e6, three_phase)
    assert_same(ours, rates)
    assert_same(ours.momentum(0.85, 0.95), momenta)


def test_one_cycle_that_only_climbs_is_that_of_torch():
    rates, momenta = with_torch(
        20, lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.3, 20, pct_start=1.0)
    )
    ours = OneCycleSchedule(0.3, 20, pct_start=1.0)
    assert_same(ours, rates)
    assert_same(ours.momentum(0.85, 0.95), momenta)


@pytest.mark.parametrize("steps, share", [(40, 0.3), (57, 0.41), (10, 0.5)])
def test_one_cycle_is_that_of_optax_for_one_step_more(steps, share):
    theirs = with_optax(
        steps + 3, lambda: optax.cosine_onecycle_schedule(steps, 0.3, share, 25.0, 1e4)
    )
    pct_start = (int(share * steps) + 1) / (steps + 1)
    assert_same(OneCycleSchedule(0.3, steps + 1, pct_start), theirs)


def test_one_cycle_keeps_its_precision_through_a_million_steps():
    total, last = 1_000_000, 0.3 / 25 / 1e9
    schedule = OneCycleSchedule(0.3, total, 0.3000001, final_div_factor=1e9)
    peak = 0.3000001 * total - 1
    steps = np.array([0, 1, 2, 1000, 299_998, 300_000, 500_000, 999_000, 999_998, 999_999])
    rise = np.sin(np.pi / 2 * np.minimum(steps / peak, 1)) ** 2  # 1 + cos cancels in float64, too
    fall = np.sin(np.pi / 2 * np.minimum((total - 1 - steps) / (total - 1 - peak), 1)) ** 2
    expected = np.where(
        steps <= peak, 0.3 / 25 + (0.3 - 0.3 / 25) * rise, last + (0.3 - last) * fall
    )
    assert_same(schedule, expected, steps)


def test_one_cycle_keeps_its_precision_where_a_phase_ends_between_two_steps():
    peak = 0.3000001 * 1_000_000 - 1
    schedule = OneCycleSchedule(
        1.0, 1_000_000, 0.3000001, "linear", div_factor=1e6, three_phase=True
    )
    steps = np.array([599_990, 599_997, 599_998])
    assert_same(schedule, 1e-6 + (1 - 1e-6) * (2 * peak - steps) / peak, steps)


MODES = {
    "triangular": {},
    "triangular2": {"mode": "triangular2"},
    "exp_range": {"mode": "exp_range", "gamma": 0.997},
}


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
@pytest.mark.parametrize("up, down", [(5, None), (4, 9), (7, 1), (1, 1)])
def test_cycles_are_those_of_torch_with_their_momentum(options, up, down):
    rates, momenta = with_torch(
        120, lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.3, up, down, **options)
    )
    ours = CyclicSchedule(0.01, 0.3, up, down, **options)
    assert_same(ours, rates)
    assert_same(ours.momentum(0.8, 0.9), momenta)


def test_cycles_with_scale_fn_are_those_of_torch():
    def rule(cycle):
        return 1.0 / cycle

    rates, momenta = with_torch(
        60, lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.01, 0.3, 4, 2, scale_fn=rule)
    )
    ours = CyclicSchedule(0.01, 0.3, 4, 2, scale_fn=rule)
    assert_same(ours, rates)
    assert_same(ours.momentum(0.8, 0.9), momenta)


def test_cycles_keep_their_precision_through_a_million_steps():
    steps = 1_000_000 + np.arange(-4000, 4000)
    x = np.abs(steps / 2000 - 2 * np.floor(1 + steps / 4000) + 1)  # equations of section 3.1
    assert_same(CyclicSchedule(0.01, 0.3, 2000), 0.01 + 0.29 * (1 - x), steps)
    shrunk = 0.01 + 0.29 * (1 - x) * 0.99999**steps
    assert_same(CyclicSchedule(0.01, 0.3, 2000, mode="exp_range", gamma=0.99999), shrunk, steps)


@pytest.mark.parametrize("up, down, mult", [(2, 2, 2.0), (3, 5, 1.5), (5, 5, 1.1), (1, 1, 3.0)])
@pytest.mark.parametrize("mode", ["triangular", "triangular2"])
def test_growing_cycles_follow_a_loop_over_cycles(up, down, mult, mode):
    expected, begin, size, cycle = [], 0.0, 1.0, 0
    for step in range(3000):
        while step >= begin + (up + down) * size - 1e-9:
            begin, size, cycle = begin + (up + down) * size, size * mult, cycle + 1
        since = max(step - begin, 0.0)
        height = min(since / (up * size), ((up + down) * size - since) / (down * size))
        expected.append(0.01 + 0.29 * height * (0.5**cycle if mode == "triangular2" else 1.0))
    schedule = CyclicSchedule(0.01, 0.3, up, down, mode=mode, cycle_mult=mult)
    assert_same(schedule, expected)


@pytest.mark.parametrize("mult", [1.5, 2.0, 1.01])
def test_cycles_keep_their_precision_up_to_the_last_step_that_counts(mult):
    steps = np.array([10**5, 10**6, 10**7, 2**24 - 1]) + np.array([[0], [-1], [-1000]])
    cycle = np.floor(np.log1p(steps * (mult - 1) / 20) / np.log(mult))
    begin = 20 * (mult**cycle - 1) / (mult - 1)
    height = np.minimum(
        (steps - begin) / (10 * mult**cycle), 2 - (steps - begin) / (10 * mult**cycle)
    )
    assert_same(CyclicSchedule(0.01, 0.3, 10, cycle_mult=mult), 0.01 + 0.29 * height, steps)


@pytest.mark.parametrize("mult", [2.0, 1.5, 1.01])
def test_cycles_keep_their_precision_around_every_boundary(mult):
    cycle = np.ceil(np.log(np.geomspace(10, 8000, 2000)) / np.log(mult))  # halves of 100 and up
    cycle = np.unique(cycle[20 * mult**cycle < (2**24 - 100) * (mult - 1)])[:, None]
    begin, half = 20 * (mult**cycle - 1) / (mult - 1), 10 * mult**cycle
    steps = np.ceil(begin) + np.array([-20, -3, -2, 2, 3, 20])
    since = steps - begin
    height = np.where(since < 0, -since / (half / mult), since / half)
    assert_same(CyclicSchedule(0.01, 0.3, 10, cycle_mult=mult), 0.01 + 0.29 * height, steps)


def test_step_decay_is_that_of_torch():
    rates, _ = with_torch(40, lambda optimizer: lr_scheduler.StepLR(optimizer, 7, 0.3))
    assert_same(StepDecaySchedule(0.1, 7, 0.3), rates)


def test_step_decay_of_single_steps_is_the_exponential_decay_of_torch():
    rates, _ = with_torch(500, lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.97))
    assert_same(StepDecaySchedule(0.1, 1, 0.97), rates)


def test_warm_ups_are_those_of_torch():
    linear, _ = with_torch(12, lambda optimizer: lr_scheduler.LinearLR(optimizer, 0.2, 1.0, 7))
    assert_same(WarmUpSchedule(0.1, 7, 0.2), linear)
    constant, _ = with_torch(12, lambda optimizer: lr_scheduler.ConstantLR(optimizer, 0.2, 7))
    assert_same(WarmUpSchedule(0.1, 7, 0.2, "constant"), constant)


def test_a_warm_up_over_a_schedule_is_a_chain_of_torch():
    def chain(optimizer):
        parts = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 9), lr_scheduler.StepLR(optimizer, 4)
        return lr_scheduler.ChainedScheduler(parts)

    rates, _ = with_torch(30, chain)
    assert_same(WarmUpSchedule(StepDecaySchedule(0.1, 4), 9, 0.1), rates)


def test_an_exponential_warm_up_has_equal_ratios():
    factors = np.minimum(0.01 ** (1 - np.arange(14) / 9), 1)
    assert_same(WarmUpSchedule(0.1, 9, 0.01, "exponential"), 0.1 * factors)


def test_a_sequence_is_that_of_torch():
    def sequence(optimizer):
        parts = [
            lr_scheduler.ConstantLR(optimizer, 0.5, 100),
            lr_scheduler.StepLR(optimizer, 3),
            lr_scheduler.LinearLR(optimizer, 0.2, 1.0, 5),
        ]
        return lr_scheduler.SequentialLR(optimizer, parts, [4, 15])

    rates, _ = with_torch(30, sequence)
    parts = [0.05, StepDecaySchedule(0.1, 3), WarmUpSchedule(0.1, 5, 0.2)]
    assert_same(SequentialSchedule(parts, [4, 15]), rates)


def test_a_sequence_is_that_of_optax():
    theirs = with_optax(
        30,
        lambda: optax.join_schedules(
            [
                optax.linear_schedule(0.1, 0.3, 6),
                optax.exponential_decay(0.3, 1, 0.8),
                optax.constant_schedule(0.05),
            ],
            [6, 20],
        ),
    )
    parts = [LinearRampSchedule(0.1, 0.3, 7), StepDecaySchedule(0.3, 1, 0.8), 0.05]
    assert_same(SequentialSchedule(parts, [6, 20]), theirs)


def test_a_ramp_and_the_cosine_of_keras_are_the_warm_up_and_cosine_of_optax():
    theirs = with_optax(
        50, lambda: optax.warmup_cosine_decay_schedule(0.01, 0.3, 8, 40, end_value=0.03)
    )
    cosine = keras.optimizers.schedules.CosineDecay(0.3, 32, alpha=0.1)
    assert_same(SequentialSchedule([LinearRampSchedule(0.01, 0.3, 9), cosine], [8]), theirs)


def test_warm_restarts_are_those_of_optax():
    cycles = [
        {"init_value": 0.01, "peak_value": peak, "warmup_steps": 3, "decay_steps": steps}
        for peak, steps in ((0.3, 10), (0.2, 20), (0.1, 40))
    ]
    theirs = with_optax(
        80, lambda: optax.sgdr_schedule([{**cycle, "end_value": 0.02} for cycle in cycles])
    )
    parts = []
    for cycle in cycles:
        peak, steps = cycle["peak_value"], cycle["decay_steps"] - 3
        cosine = keras.optimizers.schedules.CosineDecay(peak, steps, alpha=0.02 / peak)
        parts += [LinearRampSchedule(0.01, peak, 4), cosine]
    assert_same(SequentialSchedule(parts, [3, 10, 13, 30, 33]), theirs)


def wsd(step, max_lr, warmup, stable, decay_steps, shape, min_ratio):
    """`get_wsd_schedule` of transformers: the factor of one step, in Python's float64."""
    if step < warmup:
        return max_lr * (step / warmup * (1 - min_ratio) + min_ratio)
    if step < warmup + stable:
        return max_lr
    if step >= warmup + stable + decay_steps:
        return max_lr * min_ratio
    progress = (step - warmup - stable) / decay_steps
    factor = {
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "1-sqrt": 1 - math.sqrt(progress),
    }[shape]
    return max_lr * (factor * (1 - min_ratio) + min_ratio)


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize("warmup, stable, decay", [(10, 30, 20), (0, 5, 45), (7, 0, 3)])
@pytest.mark.parametrize("min_ratio", [0.0, 0.1])
def test_warm_up_stable_decay_is_that_of_transformers(warmup, stable, decay, shape, min_ratio):
    total = warmup + stable + decay
    ours = WarmUpStableDecaySchedule(
        0.3, total, warmup, decay, shape, start_lr=0.3 * min_ratio, min_lr=0.3 * min_ratio
    )
    steps = range(total + 4)
    assert_same(ours, [wsd(i, 0.3, warmup, stable, decay, shape, min_ratio) for i in steps])


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
def test_warm_up_stable_decay_keeps_its_precision_through_a_million_steps(shape):
    steps = np.array([1, 999, 100_000, 100_001, 100_002, 500_000, 999_990, 999_999])
    p = np.maximum(steps - 100_000, 0) / 900_000
    left = (1_000_000 - steps) / 900_000
    decays = {
        "linear": left,
        "cosine": np.sin(np.pi / 2 * left) ** 2,
        "1-sqrt": left / (1 + np.sqrt(p)),
    }
    expected = 0.3 * np.where(steps < 1000, steps / 1000, np.where(p > 0, decays[shape], 1.0))
    assert_same(WarmUpStableDecaySchedule(0.3, 10**6, 1000, 900_000, shape), expected, steps)


def ulmfit(step, max_lr, total, cut_frac, ratio):
    """Equation 3 of Howard & Ruder (2018)."""
    cut = math.floor(total * cut_frac)
    p = step / cut if step < cut else 1 - (step - cut) / (cut * (1 / cut_frac - 1))
    return max_lr * (1 + p * (ratio - 1)) / ratio


@pytest.mark.parametrize("total, cut_frac, ratio", [(100, 0.1, 32), (40, 0.25, 10), (12, 0.5, 4)])
def test_slanted_triangle_is_that_of_the_paper(total, cut_frac, ratio):
    expected = [ulmfit(step, 0.01, total, cut_frac, ratio) for step in range(total)]
    assert_same(SlantedTriangularSchedule(0.01, total, cut_frac, ratio), expected)


def test_slanted_triangle_peaks_at_the_right_step_despite_rounding():
    assert 0.29 * 100 < 29
    assert evaluate(SlantedTriangularSchedule(0.5, 100, 0.29), 29) == 0.5


def test_slanted_triangle_stays_above_its_smallest_rate_where_the_paper_falls_below_zero():
    assert ulmfit(18, 0.01, 19, 0.1, 32) < 0
    rates = evaluate(SlantedTriangularSchedule(0.01, 19, 0.1, 32), np.arange(25))
    np.testing.assert_allclose(
        rates[[0, 1, 18]], [0.01 / 32, 0.01, 0.01 * (1 + 31 / 18) / 32], 1e-5
    )
    np.testing.assert_allclose(rates[19:], 0.01 / 32, 1e-5)


def test_inverse_sqrt_is_the_schedule_of_the_transformer():
    steps = np.arange(1, 30_000, 97)
    noam = 512**-0.5 * np.minimum(steps**-0.5, steps * 4000**-1.5)
    assert_same(InverseSqrtSchedule((512 * 4000) ** -0.5, 4000), noam, steps)


@pytest.mark.parametrize("warmup, timescale", [(100, 30), (30, 100), (0, 50)])
def test_inverse_sqrt_is_that_of_transformers(warmup, timescale):
    expected = [
        0.3 * (i / warmup if i < warmup else ((i + timescale - warmup) / timescale) ** -0.5)
        for i in range(400)
    ]
    assert_same(InverseSqrtSchedule(0.3, warmup, timescale), expected)


@pytest.mark.parametrize("total, pct_start", [(40, 0.75), (33, 0.72), (10, 0.0)])
def test_flat_cosine_is_that_of_fastai(total, pct_start):
    def combined(share):
        p = (share - pct_start) / (1 - pct_start)
        low = 0.3 / 1e5
        return 0.3 if share < pct_start else low + (0.3 - low) * (1 + math.cos(math.pi * p)) / 2

    assert_same(
        FlatCosineSchedule(0.3, total, pct_start), [combined(i / total) for i in range(total)]
    )


@pytest.mark.parametrize("start, end, steps", [(1e-7, 10.0, 100), (1.0, 1e-6, 1_000_000)])
def test_ramps_are_those_of_numpy(start, end, steps):
    at = np.unique(np.geomspace(1, steps, 50).astype(int) - 1)
    at = np.unique([*at, *(steps - 1 - at)])
    assert_same(LinearRampSchedule(start, end, steps), np.linspace(start, end, steps)[at], at)
    assert_same(ExponentialRampSchedule(start, end, steps), np.geomspace(start, end, steps)[at], at)


@pytest.mark.once
def test_scaling_by_batch_is_that_of_goyal_and_of_the_square_root():
    assert scale_lr(0.1, 8192) == pytest.approx(3.2, rel=1e-12)
    assert scale_lr(3e-4, 64, 256, "sqrt") == pytest.approx(1.5e-4, rel=1e-12)
