"""What finished runs say: which setting is worse, and which go on to the next seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_lr.rate_search.jobs import Setting
    from keras_lr.rate_search.rounds import Score

CONFIDENCE = 0.95  # one-sided, of the test in `worse`
CONTENDERS = 3  # settings that go on after the first seed of a race
FINALISTS = 2  # variants that run with a second seed before one of them is chosen


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


def finalists(scores: Iterable[Score]) -> list[Score]:
    """The best setting of each of the best two variants, after the first seed of a round.

    The variant that all later rounds keep is chosen among them by two seeds: the luck of one is
    often larger than the difference between two policies.
    """
    best: dict[Setting, Score] = {}
    for score in sorted(scores, key=lambda score: score.cost()):
        if score.ended == "finished":
            best.setdefault(score.setting.variant, score)
    return list(best.values())[:FINALISTS]


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
