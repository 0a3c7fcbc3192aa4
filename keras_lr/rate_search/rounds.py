"""Rounds of a search: their jobs, and the scores of the settings that were tried."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev

from keras_lr.rate_search.jobs import Job, Outcome, Setting


@dataclass(frozen=True)
class Score:
    """The result of one setting in one round, over its seeds."""

    setting: Setting
    outcomes: tuple[Outcome, ...]
    maximize: bool

    @property
    def values(self) -> list[float]:
        return [outcome.value for outcome in self.outcomes]

    @property
    def ended(self) -> str:
        """The worst ending of its runs: a rate that diverges with one seed is unusable."""
        ends = {outcome.ended for outcome in self.outcomes}
        return next(end for end in ("diverged", "behind", "finished") if end in ends)

    @property
    def mean(self) -> float:
        """Mean of the objective; NaN if a run diverged."""
        return math.nan if self.ended == "diverged" else fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; NaN for a single seed."""
        enough = len(self.values) > 1 and self.ended != "diverged"
        return stdev(self.values) if enough else math.nan

    def cost(self) -> tuple[int, float, float]:
        """Sort key, best first: finished, behind, diverged; then by value.

        Diverged settings sort by their rate, because the lowest is closest to a stable one.
        """
        rank = ("finished", "behind", "diverged").index(self.ended)
        if rank == 2:
            return rank, self.setting.learning_rate, 0.0
        return rank, -self.mean if self.maximize else self.mean, self.setting.learning_rate


@dataclass
class Round:
    """A round: its jobs, and the outcomes so far."""

    name: str
    fraction: float
    spacing: float
    jobs: list[Job]
    outcomes: list[Outcome]
    maximize: bool

    @property
    def complete(self) -> bool:
        return len(self.outcomes) == len(self.jobs)

    @property
    def usable(self) -> bool:
        """Whether a run has finished or may still do: False if all of them diverged."""
        return not self.complete or any(each.ended != "diverged" for each in self.outcomes)

    @property
    def scores(self) -> list[Score]:
        """The settings that were tried, in the order of their jobs.

        A seed after the first counts once all its jobs have ended, so that settings are compared
        over the same seeds.
        """
        ended = {outcome.job for outcome in self.outcomes}
        waiting = {job.seed for job in self.jobs[1:] if job not in ended}
        runs: dict[Setting, list[Outcome]] = {}
        for outcome in self.outcomes:
            if outcome.job.seed == self.jobs[0].seed or outcome.job.seed not in waiting:
                runs.setdefault(outcome.job.setting, []).append(outcome)
        return [
            Score(setting, tuple(sorted(found, key=lambda each: each.job.seed)), self.maximize)
            for setting, found in runs.items()
        ]

    def best(self) -> Score | None:
        """The best of the settings that finished with the most seeds."""

        def order(score: Score) -> tuple[bool, int, tuple[int, float, float]]:
            done = score.ended == "finished"
            return not done, -len(score.values) if done else 0, score.cost()

        return min(self.scores, key=order, default=None)
