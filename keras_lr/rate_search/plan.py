"""Which jobs to run next, and what the results say: a pure function of the results so far.

Every process of a search computes the same plan from the same results, so no coordinator is
needed: each process takes a job of the plan that no other process has begun.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras_lr.range_test import transfer_lr
from keras_lr.rate_search.answer import Answer, Rates, answer_of
from keras_lr.rate_search.evidence import contenders, finalists
from keras_lr.rate_search.jobs import Job, Outcome, Setting
from keras_lr.rate_search.rounds import Round
from keras_lr.rate_search.words import name_of, value_of
from keras_lr.schedules.scaling import scale_lr

DECADE = 10.0
LOWEST, HIGHEST = 1e-10, 1e4  # limits of a round that extends itself
NEARBY = math.log(1.06)  # rates that a round does not tell apart
FURTHER = 8  # times that a round may extend itself
COARSE = "coarse"


@dataclass(frozen=True)
class Start:
    """Where the search begins.

    Attributes:
        low, high: Ends of the first round.
        centre: The rate to try first.
        firm: Whether the user gave the ends; then no rate is outside them.
        tested: Whether the centre is the suggestion of a range test; then there is no coarse
            round.
        cost: What the range test has cost, in runs on all data.
    """

    low: float
    high: float
    centre: float
    firm: bool = False
    tested: bool = False
    cost: float = 0.0

    def coarse(self) -> list[float]:
        """One rate a decade; includes both ends if they are firm."""
        if self.firm:
            count = max(2, round(math.log10(self.high / self.low)) + 1)
            step = (self.high / self.low) ** (1 / (count - 1))
            return [self.low * step**i for i in range(count)]
        below = max(1, math.floor(math.log10(self.centre / self.low) + 0.5))
        above = max(1, math.floor(math.log10(self.high / self.centre) + 0.5))
        return [self.centre * DECADE**i for i in range(-below, above + 1)]


@dataclass(frozen=True)
class Design:
    """The layout of the rounds; `search` documents the fields."""

    fine_rounds: int
    points: int
    fraction: float
    epochs: int
    final_seeds: int
    maximize: bool
    seed: int
    also: Mapping[str, Sequence[Any]]
    base: Setting
    max_runs: float = math.inf  # beside the coarse round, in runs on all data
    velocity: bool = True  # momentum lengthens the steps, as in SGD and not in Adam
    batch_rule: str = "linear"  # of `scale_lr`


class Plan:
    """The rounds of a search.

    The coarse round tries one rate a decade; after a range test it is left out. Then each of
    `also` has a round: for each of its values, three rates around the scaled best one, half a
    decade apart; the best two values run with a second seed (`finalists`). Each fine round tries
    `points` rates around the best, at smaller spacing, on more data. A round whose best rate is at
    its end extends itself beyond that end. The last round uses all data and is a race: all its
    settings run with the first seed, the best three with the second, and with each further seed the
    best and those that are not significantly worse (`contenders`). Runs that would exceed
    `max_runs` are left out.
    """

    def __init__(self, design: Design, start: Start) -> None:
        self.design = design
        self.start = start
        self._fine = [f"fine {i + 1}" for i in range(design.fine_rounds)]
        coarse = [] if start.tested and (design.also or self._fine) else [COARSE]
        self.names = [*coarse, *design.also, *self._fine]

    def rounds(self, found: Mapping[str, Outcome]) -> list[Round]:
        """The rounds so far; the last one may be incomplete."""
        rounds: list[Round] = []
        best: Setting | None = None
        if self.names[0] != COARSE:
            best = self._at(self.design.base, self.start.centre)
        for name in self.names:
            now = self._round(name, best, rounds, found)
            if not now.jobs:
                continue  # beyond `max_runs`
            rounds.append(now)
            if not now.complete:
                break
            winner = now.best()
            if winner is None or winner.ended == "diverged":
                break  # no rate to refine around
            best = winner.setting
        return rounds

    def most_left(self, found: Mapping[str, Outcome]) -> float:
        """The most that is still to train, in runs on all data: what `max_runs` allows.

        The last rounds may need less.
        """
        rounds = self.rounds(found)
        asked = {job.key: job for each in rounds for job in each.jobs}
        waiting = sum(job.fraction for key, job in asked.items() if key not in found)
        if not waiting:
            return 0.0
        counted = self._spent(rounds)
        return waiting + max(0.0, self.design.max_runs - counted)

    def missing(self, found: Mapping[str, Outcome]) -> list[Job]:
        """Jobs without an outcome, in the order in which to begin them."""
        return [job for job in self.rounds(found)[-1].jobs if job.key not in found]

    def answer(self, found: Mapping[str, Outcome], untrained: float = math.nan) -> Answer | None:
        """The best setting of the latest round with one; None if no run has finished.

        Args:
            found: The outcomes so far, by the keys of their jobs.
            untrained: The objective before training; NaN if it is unknown.
        """
        rounds = self.rounds(found)
        for now in reversed(rounds):
            seeds = {job.seed for job in now.jobs}
            last = now.name == self.names[-1] and self.design.final_seeds > 1
            if last and len(seeds) == 1 and not now.complete:
                continue  # the first seed of the race is not over
            best = now.best()
            if best is not None and best.ended == "finished":
                rates = Rates(self._at, *self._limits, self._expected(best.setting))
                answer = answer_of(rounds, now, best, rates, untrained)
                left_out = self._left_out(rounds)
                if left_out:
                    reason = "because low, high or max_runs left no room"
                    said = f"Not tried, {reason}: {', '.join(left_out)}."
                    answer = replace(answer, warnings=(*answer.warnings, said))
                return answer
        return None

    def _left_out(self, rounds: Sequence[Round]) -> list[str]:
        """The values of `also` that no run has had although their round is over, in words."""
        begun = self.names.index(rounds[-1].name)
        left_out = []
        for name, values in self.design.also.items():
            if self.names.index(name) > begun:
                continue
            jobs = [job for each in rounds if each.name == name for job in each.jobs]
            tried = [getattr(job.setting, name) for job in jobs]
            left_out += [
                f"{name_of(name)} {value_of(name, value)}"
                for value in values
                if not any(_same(value, each) for each in tried)
            ]
        return left_out

    def _expected(self, setting: Setting) -> float | None:
        """The rate that the range test suggests for a setting, scaled as the rounds scale it."""
        if not self.start.tested:
            return None
        expected = replace(self.design.base, learning_rate=self.start.centre)
        for name in self.design.also:
            if name != "weight_decay":  # it does not move the rate
                expected = self._scaled(expected, name, getattr(setting, name))
        return expected.learning_rate

    def _round(
        self,
        name: str,
        best: Setting | None,
        before: Sequence[Round],
        found: Mapping[str, Outcome],
    ) -> Round:
        settings, spacing = self._settings(name, best)
        if name in self._fine:
            tried = [job.setting for each in before for job in each.jobs]
            settings = list(dict.fromkeys(_nearby(each, tried) for each in settings))
        fraction, seeds = self._effort(name)
        now = Round(name, fraction, spacing, [], [], self.design.maximize)
        now = self._with(now, [self._job(now, each) for each in settings], before, found)
        for _ in range(FURTHER):
            beyond = self._beyond(now) if now.complete else None
            if beyond is None:
                break
            now = self._with(now, [self._job(now, beyond)], before, found)
        for done in range(1, seeds):
            if not now.complete:
                break
            seed = self.design.seed + done
            last = name == self.names[-1]
            chosen = contenders(now.scores, done) if last else finalists(now.scores)
            rivals = [replace(each.outcomes[0].job, seed=seed) for each in chosen]
            raced = self._with(now, rivals, before, found)
            if len(raced.jobs) - len(now.jobs) < min(2, len(rivals)):
                break  # `max_runs` leaves nothing to compare the best with
            now = raced
        return now

    def _job(self, now: Round, setting: Setting) -> Job:
        return Job(now.name, setting, self.design.seed, now.fraction, self.design.epochs)

    def _with(
        self, now: Round, more: list[Job], before: Sequence[Round], found: Mapping[str, Outcome]
    ) -> Round:
        """The round with more jobs, as far as `max_runs` allows.

        A run that another round has asked for costs nothing, nor do those of the coarse round.
        One run is done in any case.
        """
        asked = {job.key for each in (*before, now) for job in each.jobs}
        spent = self._spent((*before, now))
        jobs = list(now.jobs)
        for job in more:
            if job.key not in asked and now.name != COARSE:
                if (before or jobs) and spent + job.fraction > self.design.max_runs:
                    continue
                spent += job.fraction
            jobs.append(job)
        outcomes = [replace(found[job.key], job=job) for job in jobs if job.key in found]
        return replace(now, jobs=jobs, outcomes=outcomes)

    def _spent(self, rounds: Sequence[Round]) -> float:
        """What counts towards `max_runs`: the range test, and the rounds after the coarse one."""
        asked = {job.key: job.fraction for each in rounds for job in each.jobs}
        coarse = [job for each in rounds if each.name == COARSE for job in each.jobs]
        return self.start.cost + sum(asked.values()) - sum(job.fraction for job in coarse)

    def _settings(self, name: str, best: Setting | None) -> tuple[list[Setting], float]:
        """The settings that a round begins with, closest to the expected best first."""
        if best is None:
            rates = sorted(self.start.coarse(), key=lambda rate: _apart(rate, self.start.centre))
            step = DECADE
            if self.start.firm and len(rates) > 1:
                step = (self.start.high / self.start.low) ** (1 / (len(rates) - 1))
            return [self._at(self.design.base, rate) for rate in rates], step
        if name in self.design.also:
            spacing = math.sqrt(DECADE)
            values = self.design.also[name]
            variants = [self._scaled(best, name, value) for value in values]
            offsets = [0, 1, -1]
        else:
            # A round of `also` has tried rates half a decade apart.
            halvings = max(self._fine.index(name) + 1, 2 if self.design.also else 1)
            spacing = DECADE**0.5**halvings
            variants = [best]
            reach = range(1, self.design.points // 2 + 1)
            offsets = [0, *(sign * i for i in reach for sign in (1, -1))]
        inside: list[Setting] = []
        for offset in offsets:
            for variant in variants:
                setting = self._at(variant, variant.learning_rate * spacing**offset)
                if self._allowed(setting.learning_rate) and setting not in inside:
                    inside.append(setting)
        return inside or [best], spacing

    def _scaled(self, best: Setting, name: str, value: Any) -> Setting:
        """The setting with another value of one dimension, and the rate scaled to match.

        The rate follows the batch size by the rule of the optimizer (`scale_lr`). With SGD's
        momentum it keeps rate / (1 - momentum), the step length in a constant direction. Policies
        differ by the factors of `transfer_lr`. A weight decay is meant at this rate; with other
        rates their product stays.
        """
        rate = best.learning_rate
        if name == "batch_size" and best.batch_size:
            rate = scale_lr(rate, value, best.batch_size, self.design.batch_rule)
        elif name == "momentum" and best.momentum is not None and self.design.velocity:
            rate *= (1 - value) / (1 - best.momentum)
        elif name == "policy":
            rate = transfer_lr(rate, (best.policy, None), (value, None))
        if name == "weight_decay":
            changed = replace(best, rate_decay=float(f"{value * rate:.3g}"))
        else:
            changed = replace(best, **{name: value})
        if changed.policy == "one-cycle":  # it has its own warm-up
            changed = replace(changed, warmup=0.0)
        return replace(changed, learning_rate=rate)

    def _effort(self, name: str) -> tuple[float, int]:
        """Share of the data and number of seeds; both grow towards the last round."""
        if name == self.names[-1]:
            return 1.0, self.design.final_seeds
        if name not in self._fine:
            return self.design.fraction, min(2, self.design.final_seeds) if name != COARSE else 1
        share = (self._fine.index(name) + 1) / len(self._fine)
        return float(f"{self.design.fraction ** (1 - share):.3g}"), 1

    def _beyond(self, now: Round) -> Setting | None:
        """The next rate beyond the end of a round, if its best rate is at that end."""
        best = now.best()
        if best is None:
            return None
        like = [s for s in now.scores if s.setting.variant == best.setting.variant]
        rates = sorted(score.setting.learning_rate for score in like)
        rate = best.setting.learning_rate
        further: float | None = None
        if best.ended == "diverged" or (rate == rates[0] and len(rates) > 1):
            further = rates[0] / now.spacing
        elif rate == rates[-1]:
            further = rate * now.spacing
        if further is None:
            return None
        setting = self._at(best.setting, further)
        known = any(score.setting == setting for score in now.scores)
        return setting if self._allowed(setting.learning_rate) and not known else None

    def _at(self, setting: Setting, rate: float) -> Setting:
        """The setting at a rate rounded to two digits; firm ends are not rounded."""
        short = float(f"{rate:.2g}")
        for end in (self.start.low, self.start.high):
            if self.start.firm and abs(math.log(short / end)) < 0.06:
                short = end
        return replace(setting, learning_rate=short)

    @property
    def _limits(self) -> tuple[float, float]:
        return (self.start.low, self.start.high) if self.start.firm else (LOWEST, HIGHEST)

    def _allowed(self, rate: float) -> bool:
        low, high = self._limits
        return low <= rate <= high


def _nearby(setting: Setting, tried: Sequence[Setting]) -> Setting:
    """The setting, or one with nearly the same rate that was tried: rounding sets them apart."""
    close = [
        each
        for each in tried
        if each.variant == setting.variant
        and _apart(each.learning_rate, setting.learning_rate) < NEARBY
    ]
    return min(
        close, key=lambda each: _apart(each.learning_rate, setting.learning_rate), default=setting
    )


def _same(value: Any, tried: Any) -> bool:
    """Whether a value was tried; a weight decay is kept to three digits."""
    if isinstance(value, float) and isinstance(tried, float):
        return math.isclose(value, tried, rel_tol=0.01)
    return bool(value == tried)


def _apart(rate: float, centre: float) -> float:
    return abs(math.log(rate / centre))
