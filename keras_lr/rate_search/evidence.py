"""What finished runs say: which setting is worse, which go on to the next seed, the best rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from keras_lr.rate_search.jobs import Outcome

if TYPE_CHECKING:
    from keras_lr.rate_search.plan import Score

CONFIDENCE = 0.95  # one-sided, of the test in `worse`
CONTENDERS = 3  # settings that go on after the first seed of a race
WIDTH = 0.5  # decades, the standard deviation of the weights in `fitted_rate`
FURTHEST = 0.35  # decades between the best rate tried and the fitted one


def costs_of(values: Sequence[float], maximize: bool) -> list[float]:
    """Objectives as costs whose differences are comparable; the lowest is best.

    Losses that are all above 0 are compared by their logarithms, because their noise grows with
    their size.

    >>> costs_of([1.0, 100.0], False)[0], costs_of([0.5, 0.75], True)
    (0.0, [-0.5, -0.75])
    """
    if maximize:
        return [-value for value in values]
    return [math.log(value) for value in values] if min(values) > 0 else list(values)


@dataclass(frozen=True)
class Noise:
    """Standard deviation of the difference of two costs with one seed.

    Attributes:
        deviation: The estimate, pooled over the settings.
        freedom: Its degrees of freedom.
    """

    deviation: float
    freedom: int

    @staticmethod
    def among(scores: Iterable[Score], best: Score) -> Noise | None:
        """The noise of the settings that share several seeds with the best; None without any."""
        square, freedom = 0.0, 0
        for score in scores:
            if score.setting == best.setting or score.ended != "finished":
                continue
            differences = _differences(score, best)
            if len(differences) > 1:
                freedom += len(differences) - 1
                square += (len(differences) - 1) * stdev(differences) ** 2
        return Noise(math.sqrt(square / freedom), freedom) if freedom else None


def worse(score: Score, best: Score, noise: Noise | None = None) -> bool:
    """Whether a setting is significantly worse than the best one.

    A paired t-test over the seeds of the costs (`costs_of`), one-sided, at 95 %. A setting that
    shares one seed with the best, because the race dropped it, is judged by the noise of those
    that share more: its difference is one draw of it. Without that any difference counts.
    """
    if score.ended != "finished":
        return True
    differences = _differences(score, best)
    if len(differences) < 2:
        least = student_t(noise.freedom) * noise.deviation if noise else 0.0
        return fmean(differences) > least
    error = stdev(differences) / math.sqrt(len(differences))
    return fmean(differences) > student_t(len(differences) - 1) * error


def contenders(scores: Iterable[Score], seeds: int) -> list[Score]:
    """The settings that go on to the next seed after so many seeds, best first.

    After the first seed these are the best three, because one seed has no noise to test with.
    After a later one they are the best and those that are not significantly worse (`worse`). A
    setting with a run that did not finish never goes on.
    """
    ranked = sorted(
        (each for each in scores if len(each.values) == seeds and each.ended == "finished"),
        key=lambda score: score.cost(),
    )
    if seeds == 1:
        return ranked[:CONTENDERS]
    return [each for each in ranked if each is ranked[0] or not worse(each, ranked[0])]


def _differences(score: Score, best: Score) -> list[float]:
    """How much higher the cost is than that of the best setting, for each seed of both."""
    mine = {outcome.job.seed: outcome.value for outcome in score.outcomes}
    pairs = [(mine[o.job.seed], o.value) for o in best.outcomes if o.job.seed in mine]
    costs = costs_of([value for pair in pairs for value in pair], best.maximize)
    return [cost - theirs for cost, theirs in zip(costs[::2], costs[1::2], strict=True)]


def student_t(freedom: int, confidence: float = CONFIDENCE) -> float:
    """One-sided quantile of Student's t (Abramowitz and Stegun, 26.7.5; exact for 1 and 2).

    >>> round(student_t(1), 3), round(student_t(2), 3), round(student_t(10), 3)
    (6.314, 2.92, 1.812)
    """
    if freedom == 1:
        return math.tan(math.pi * (confidence - 0.5))
    if freedom == 2:
        tail = 2 * confidence - 1
        return tail * math.sqrt(2 / (1 - tail**2))
    z = NormalDist().inv_cdf(confidence)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / freedom**i for i, term in enumerate(terms))


def interval_end(best: Score, outward: Iterable[Score], noise: Noise | None) -> tuple[float, bool]:
    """The end of the interval on one side, and whether all rates on that side are inside it.

    The end is the geometric mean of the last rate that is as good and the first that is worse.
    """
    last = best.setting.learning_rate
    for score in outward:
        rate = score.setting.learning_rate
        if worse(score, best, noise):
            return math.sqrt(last * rate), False
        last = rate
    return last, True


def rival(best: Score, scores: Sequence[Score]) -> Score | None:
    """The best other variant that is not significantly worse than the winner."""
    others = [s for s in scores if s.setting.variant != best.setting.variant and len(s.values) > 1]
    alike = [score for score in others if not worse(score, best)]
    return min(alike, key=lambda score: score.cost(), default=None)


def fitted_rate(runs: Iterable[Outcome], best: float, maximize: bool) -> float:
    """The minimum of a parabola through all finished runs, near the best rate tried.

    The cost of a run (`costs_of`) is modelled as c + b u + a u^2, where u is the decades from
    the best rate. The fit is least squares with the weights exp(-(u / 0.5)^2 / 2). The level c
    is one of its own for each share of the data, number of epochs and seed, so that only runs
    that differ in nothing but the rate are compared.

    Args:
        runs: Runs of one variant. Only those that finished count, at rates at which none
            diverged.
        best: The best rate tried.
        maximize: Whether a higher objective is better.

    Returns:
        The minimum, at most 0.35 decades from `best`, within the rates that count and below the
        first higher one that diverged; `best` if the runs do not determine a parabola that opens
        upwards, or if a loss is exactly 0, which no other rate can improve.
    """
    runs = list(runs)
    unstable = {run.job.setting.learning_rate for run in runs if run.ended == "diverged"}
    finished = [
        run
        for run in runs
        if run.ended == "finished" and run.job.setting.learning_rate not in unstable
    ]
    if not finished or (not maximize and min(abs(run.value) for run in finished) == 0):
        return best
    levels = [(run.job.fraction, run.job.epochs, run.job.seed) for run in finished]
    u = np.log10([run.job.setting.learning_rate / best for run in finished])
    costs = np.array(costs_of([run.value for run in finished], maximize))
    own = np.array([[level == each for each in dict.fromkeys(levels)] for level in levels], float)
    roots = np.exp(-((u / WIDTH) ** 2) / 4)[:, None]
    terms = np.column_stack([own, u, u**2])
    solution, _, rank, _ = np.linalg.lstsq(roots * terms, roots[:, 0] * costs, rcond=1e-6)
    slope, bend = solution[-2:]
    if rank < terms.shape[1] or not bend > 0:
        return best
    cliff = math.log10(min((r for r in unstable if r > best), default=math.inf) / best)
    low, high = max(-FURTHEST, u.min()), min(FURTHEST, u[u < cliff].max())
    return best * 10.0 ** float(np.clip(-slope / (2 * bend), low, high))
