"""The answer of a search: the best setting, the interval of its rate, and what other rates cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keras_lr.rate_search.evidence import Noise, interval_end, rival
from keras_lr.rate_search.jobs import Setting
from keras_lr.rate_search.rounds import Round, Score
from keras_lr.rate_search.valley import EXPECTED, Valley
from keras_lr.rate_search.words import describe_difference, describe_share

ROWS = 0.15  # decades by which other held-out rows move the best rate
WITHIN = 1.645 * EXPECTED  # decades: 90 % of the answers of range tests are as close


@dataclass(frozen=True)
class Answer:
    """The answer of a search.

    Attributes:
        setting: The best setting. Its rate is the minimum of a parabola through all finished
            runs, drawn towards the answer of the range test if the runs leave it uncertain
            (`Valley`). So a rate that was not itself trained is possible.
        low, high: Ends of the interval: the rates that the seeds cannot distinguish from the best
            one tried, and the 95 % interval of the parabola's minimum, both 0.15 decades wider,
            as other held-out rows would move the best rate; but no rate that is more than 0.58
            decades from the answer of the range test and not between it and the best.
        mean, spread: The objective of the best setting that was trained, and its standard
            deviation over seeds.
        round: The round that the answer comes from.
        finished: Whether that is the last round and it is complete.
        warnings: Reasons to trust the answer less.
        tried: The best setting that was trained; by default `setting`.
        regret: How much worse the objective is at `low` and at `high` than at `setting`, by the
            parabola, in units of the objective; NaN if there is none. A lower rate costs at most
            what no training costs.
        sensitivity: The same at a third of the rate and at three times the rate; infinite if a
            rate diverged that is not higher.
        lr_sensitivity: The mean of the same over three decades around `setting`, in which a rate
            costs at most what no training costs; NaN if there is no parabola.
    """

    setting: Setting
    low: float
    high: float
    mean: float
    spread: float
    round: str
    finished: bool
    warnings: tuple[str, ...] = ()
    tried: Setting | None = None
    regret: tuple[float, float] = (math.nan, math.nan)
    sensitivity: tuple[float, float] = (math.nan, math.nan)
    lr_sensitivity: float = math.nan

    def __post_init__(self) -> None:
        if self.tried is None:
            object.__setattr__(self, "tried", self.setting)


@dataclass(frozen=True)
class Rates:
    """The rates that an answer may have.

    Args:
        at: The setting at another rate, rounded as the search does.
        low, high: The lowest and the highest rate allowed.
        expected: The rate that the range test suggests for the best setting; None without one.
    """

    at: Callable[[Setting, float], Setting]
    low: float
    high: float
    expected: float | None = None


def answer_of(
    rounds: Sequence[Round], now: Round, best: Score, rates: Rates, untrained: float = math.nan
) -> Answer:
    """The answer that the best setting of a round gives.

    Args:
        rounds: All rounds.
        now: The round.
        best: Its best setting.
        rates: The rates that the answer may have.
        untrained: The objective before training; NaN if it is unknown.
    """
    done = now is rounds[-1] and now.complete
    like = [s for s in now.scores if s.setting.variant == best.setting.variant]
    like.sort(key=lambda score: score.setting.learning_rate)
    place = like.index(best)
    noise = Noise.among(like, best)
    above = interval_end(best, like[place + 1 :], noise)
    below = interval_end(best, like[:place][::-1], noise)
    valley = _valley(rounds, best.setting, now.maximize, rates.expected)
    around = valley.interval() if valley else None
    notes = []
    if not rounds[-1].usable:
        notes.append(
            f"All {len(rounds[-1].jobs)} runs of the {rounds[-1].name} round diverged, on "
            f"{describe_share(rounds[-1].fraction)}: this is the best rate of the {now.name} "
            f"round, on {describe_share(now.fraction)}."
        )
    elif not done:
        notes.append(f"The search is not finished: this is the best rate of the {now.name} round.")
    if (best.mean < untrained) if now.maximize else (best.mean > untrained):
        notes.append(
            f"The objective was {untrained:.4g} before training, which is better than "
            f"{best.mean:.4g} at the best rate. Search with more epochs, or keep the weights as "
            "they are."
        )
    if len(best.values) < 2 and around is None:
        notes.append(
            "The best rate ran once in this round, so the noise between runs is unknown; the "
            "interval ends half way to the neighbouring rates."
        )
    notes += _edges(now, best, below, above, alone=len(like) == len(now.scores))
    other_variant = rival(best, now.scores)
    if other_variant is not None:
        other = describe_difference(other_variant.setting, best.setting)
        notes.append(f"Another setting is as good, within the noise of the seeds: {other}.")
    setting = rates.at(best.setting, valley.rate) if valley else best.setting
    rate = setting.learning_rate
    low, high = _interval([below[0], above[0], rate, *(around or ())], rate, best, rates)
    unknown = (math.nan, math.nan)
    return Answer(
        setting,
        *(low, high, best.mean, best.spread),
        *(now.name, done, tuple(notes), best.setting),
        regret=_excess(valley, best, low, high, untrained) if valley else unknown,
        sensitivity=_excess(valley, best, rate / 3, rate * 3, untrained) if valley else unknown,
        lr_sensitivity=valley.mean_excess(best.mean, untrained) if valley else math.nan,
    )


def _edges(
    now: Round, best: Score, below: tuple[float, bool], above: tuple[float, bool], alone: bool
) -> list[str]:
    """Warnings of an interval that reaches the lowest or the highest rate that was tried.

    Args:
        now: The round.
        best: Its best setting.
        below, above: Each end of the interval, and whether all rates on that side are inside.
        alone: Whether the round tried no other variant of the setting.
    """
    tried = f"tried in the {now.name} round" + ("" if alone else " with this setting")
    notes = []
    for (end, is_open), word in ((below, "lower"), (above, "higher")):
        if is_open and best.setting.learning_rate == end:
            notes.append(
                f"The best rate is the {word[:-2]}est {tried}; a {word} rate may be better."
            )
        elif is_open:
            notes.append(
                f"The interval includes the {word[:-2]}est rate {tried}; a {word} rate may be "
                "as good."
            )
    return notes


def _interval(
    inside: Sequence[float], rate: float, best: Score, rates: Rates
) -> tuple[float, float]:
    """The interval around the rates `inside`, as `Answer` describes it."""
    low = max(min(inside) / 10**ROWS, rates.low)
    high = min(max(inside) * 10**ROWS, rates.high)
    if rates.expected is not None:
        known = (rate, best.setting.learning_rate)
        low = max(low, min(*known, rates.expected / 10**WITHIN))
        high = min(high, max(*known, rates.expected * 10**WITHIN))
    return low, high


def _valley(
    rounds: Sequence[Round], best: Setting, maximize: bool, expected: float | None
) -> Valley | None:
    """The parabola through all runs of the variant of a setting, each of them once."""
    runs = {o.job.key: o for each in rounds for o in each.outcomes}
    like = [run for run in runs.values() if run.job.setting.variant == best.variant]
    return Valley.through(like, best.learning_rate, maximize, expected)


def _excess(
    valley: Valley, best: Score, low: float, high: float, untrained: float
) -> tuple[float, float]:
    """What two rates cost, of which the lower one costs at most what no training costs.

    The lower a rate, the less it changes the model; the parabola rises without end.
    """
    below, above = valley.excess(low, best.mean), valley.excess(high, best.mean)
    if math.isfinite(untrained):
        most = best.mean - untrained if best.maximize else untrained - best.mean
        below = min(below, max(0.0, most)) if not math.isnan(below) else below
    return below, above
