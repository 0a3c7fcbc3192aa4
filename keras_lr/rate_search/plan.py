"""What to try next, and what the tries say: a pure function of the results so far.

Every process that works on a search computes the same plan from the same results, so nobody has
to hand out the work: what the plan asks for and nobody has begun is what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import NormalDist, fmean, stdev
from typing import Any

from keras_lr.schedules.scaling import scale_lr

DECADE = 10.0
LOWEST, HIGHEST = 1e-10, 1e4  # how far the ends of a round may move by themselves
FURTHER = 8  # times that one round may move its end
POLICIES = ("constant", "one-cycle", "cosine")
DIMENSIONS = ("momentum", "batch_size", "warmup", "policy")
COARSE = "coarse"
CONFIDENCE = 0.95  # one-sided, of "worse than the best"


@dataclass(frozen=True)
class Setting:
    """What is searched for.

    Attributes:
        learning_rate: The rate, or the largest one of a policy that changes it.
        momentum: `SGD.momentum`, `Adam.beta_1`, ...; None leaves what the model was compiled with.
        batch_size: Rows of a batch; None where the data set brings its own.
        warmup: Share of the run that warms up, from 0 to 1.
        policy: "constant", "one-cycle" or "cosine".
    """

    learning_rate: float
    momentum: float | None = None
    batch_size: int | None = None
    warmup: float = 0.0
    policy: str = "constant"

    @property
    def variant(self) -> Setting:
        """What it is apart from its rate: the same at a rate of 1."""
        return replace(self, learning_rate=1.0)


@dataclass(frozen=True)
class Job:
    """One run: a setting, and on how much it is tried."""

    round: str
    setting: Setting
    seed: int
    fraction: float
    epochs: int

    @property
    def key(self) -> str:
        """The same for the same job in every process."""
        parts = asdict(self.setting)
        text = "/".join(f"{name}={value}" for name, value in parts.items())
        return f"{self.round}/{text}/seed={self.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: What was run.
        ended: "finished"; "behind" if it was stopped because others were better at that point;
            "diverged".
        value: The objective after the last epoch; what it was when it fell behind; NaN if it
            diverged.
        history: The logs of each epoch, by name.
        seconds: How long it took.
        number: The number of its trial in the study.
    """

    job: Job
    ended: str
    value: float
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    number: int = -1

    @property
    def epochs(self) -> int:
        """Epochs that were trained to their end."""
        return max((len(values) for values in self.history.values()), default=0)


@dataclass(frozen=True)
class Start:
    """Where the search begins.

    Attributes:
        low, high: Ends of the first round.
        centre: The rate that is tried first.
        firm: Whether the user gave the ends, which nothing goes beyond then.
    """

    low: float
    high: float
    centre: float
    firm: bool = False

    def coarse(self) -> list[float]:
        """One rate a decade, both ends among them if they are firm."""
        if self.firm:
            count = max(2, round(math.log10(self.high / self.low)) + 1)
            step = (self.high / self.low) ** (1 / (count - 1))
            return [self.low * step**i for i in range(count)]
        below = max(1, math.floor(math.log10(self.centre / self.low) + 0.5))
        above = max(1, math.floor(math.log10(self.high / self.centre) + 0.5))
        return [self.centre * DECADE**i for i in range(-below, above + 1)]


@dataclass(frozen=True)
class Design:
    """How the rounds are laid out; `search` says what each one means."""

    fine_rounds: int
    points: int
    fraction: float
    epochs: int
    repeats: int
    maximize: bool
    seed: int
    also: Mapping[str, Sequence[Any]]
    base: Setting
    velocity: bool = True  # the momentum lengthens the steps, as in SGD; in Adam it does not


@dataclass(frozen=True)
class Score:
    """What the runs of one setting in one round say together; smaller is better."""

    setting: Setting
    outcomes: tuple[Outcome, ...]
    maximize: bool

    @property
    def values(self) -> list[float]:
        return [outcome.value for outcome in self.outcomes]

    @property
    def ended(self) -> str:
        """The worst end of its runs: one seed in three that diverges is no rate to train with."""
        ends = {outcome.ended for outcome in self.outcomes}
        return next(end for end in ("diverged", "behind", "finished") if end in ends)

    @property
    def mean(self) -> float:
        """Mean of the objective; NaN if a run diverged."""
        return math.nan if self.ended == "diverged" else fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; NaN for less than two."""
        enough = len(self.values) > 1 and self.ended != "diverged"
        return stdev(self.values) if enough else math.nan

    def cost(self) -> tuple[int, float, float]:
        """Sorts from the best to the worst: finished, behind, diverged, then by value.

        Of rates that all diverge the lowest is the nearest to one that does not.
        """
        rank = ("finished", "behind", "diverged").index(self.ended)
        if rank == 2:
            return rank, self.setting.learning_rate, 0.0
        return rank, -self.mean if self.maximize else self.mean, self.setting.learning_rate


@dataclass
class Round:
    """A round as far as it is known: what it tries, and what it has found."""

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
    def scores(self) -> list[Score]:
        """The settings whose runs have all ended, in the order in which they were tried."""
        runs: dict[Setting, list[Outcome]] = {}
        wanted: dict[Setting, int] = {}
        for job in self.jobs:
            wanted[job.setting] = wanted.get(job.setting, 0) + 1
        for outcome in self.outcomes:
            runs.setdefault(outcome.job.setting, []).append(outcome)
        return [
            Score(setting, tuple(sorted(found, key=lambda each: each.job.seed)), self.maximize)
            for setting, found in runs.items()
            if len(found) == wanted[setting]
        ]

    def best(self) -> Score | None:
        return min(self.scores, key=Score.cost, default=None)


@dataclass(frozen=True)
class Answer:
    """What a search found.

    Attributes:
        setting: The best one tried.
        low, high: The rates between which the seeds cannot tell a difference from the best.
        mean, spread: The objective there, and its standard deviation over seeds.
        round: The round that says so.
        finished: Whether that is the last round, and it is complete.
        warnings: What makes the answer less sure.
    """

    setting: Setting
    low: float
    high: float
    mean: float
    spread: float
    round: str
    finished: bool
    warnings: tuple[str, ...] = ()


class Plan:
    """The rounds of a search.

    The coarse round tries a rate a decade. Then each of `also` has a round: three rates around
    the one that the best so far would scale to, for each of its values. The fine rounds try
    `points` rates around the best, each at the square root of the spacing before, on more data;
    the last one on all of it, with every seed. Where the best rate of a round lies at its end,
    the round goes on beyond it.
    """

    def __init__(self, design: Design, start: Start) -> None:
        self.design = design
        self.start = start
        self.names = [COARSE, *design.also, *(f"fine {i + 1}" for i in range(design.fine_rounds))]

    def rounds(self, found: Mapping[str, Outcome]) -> list[Round]:
        """The rounds that the results so far call for, the last one perhaps incomplete."""
        rounds: list[Round] = []
        best: Setting | None = None
        for name in self.names:
            now = self._round(name, best, found)
            rounds.append(now)
            if not now.complete:
                break
            winner = now.best()
            if winner is None or winner.ended == "diverged":
                break  # nothing to go on from
            best = winner.setting
        return rounds

    def missing(self, found: Mapping[str, Outcome]) -> list[Job]:
        """Jobs without an outcome, in the order in which they are best begun."""
        return [job for job in self.rounds(found)[-1].jobs if job.key not in found]

    def answer(self, found: Mapping[str, Outcome]) -> Answer | None:
        """The best setting of the furthest round that has one; None if no run has finished."""
        rounds = self.rounds(found)
        for now in reversed(rounds):
            best = now.best()
            if best is not None and best.ended == "finished":
                done = now is rounds[-1] and now.complete and now.name == self.names[-1]
                return self._answer(now, best, done)
        return None

    def _round(self, name: str, best: Setting | None, found: Mapping[str, Outcome]) -> Round:
        settings, spacing = self._settings(name, best)
        now = self._filled(name, settings, spacing, found)
        for _ in range(FURTHER):
            more = self._beyond(now) if now.complete else None
            if more is None:
                break
            settings.append(more)
            now = self._filled(name, settings, spacing, found)
        return now

    def _settings(self, name: str, best: Setting | None) -> tuple[list[Setting], float]:
        """What a round begins with, nearest to what is thought best first."""
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
            spacing = DECADE ** (0.5 ** (self.names.index(name) - len(self.design.also)))
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
        """Another value of one dimension, with the rate that usually goes with it.

        The batch size scales it in proportion; the momentum of SGD so that rate / (1 - momentum),
        the length of a step in a steady direction, stays.
        """
        rate = best.learning_rate
        if name == "batch_size" and best.batch_size:
            rate = scale_lr(rate, value, best.batch_size)
        elif name == "momentum" and best.momentum is not None and self.design.velocity:
            rate *= (1 - value) / (1 - best.momentum)
        changed = replace(best, **{name: value})
        if changed.policy == "one-cycle":  # which warms up by itself
            changed = replace(changed, warmup=0.0)
        return replace(changed, learning_rate=rate)

    def _filled(
        self, name: str, settings: Sequence[Setting], spacing: float, found: Mapping[str, Outcome]
    ) -> Round:
        fraction, seeds = self._effort(name)
        jobs = [
            Job(name, setting, self.design.seed + i, fraction, self.design.epochs)
            for i in range(seeds)
            for setting in settings
        ]
        outcomes = [found[job.key] for job in jobs if job.key in found]
        return Round(name, fraction, spacing, jobs, outcomes, self.design.maximize)

    def _effort(self, name: str) -> tuple[float, int]:
        """Share of the data and number of seeds: both grow to the last round."""
        last = self.design.fine_rounds
        index = self.names.index(name) - len(self.design.also)
        if name == self.names[-1]:
            return 1.0, self.design.repeats
        if name == COARSE or name in self.design.also:
            return self.design.fraction, 1
        return float(f"{self.design.fraction ** (1 - index / last):.3g}"), 1

    def _beyond(self, now: Round) -> Setting | None:
        """The next rate past the end of a round, where its best lies at that end."""
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
        """The setting at a rate of two digits, which people can read; firm ends stay as given."""
        short = float(f"{rate:.2g}")
        for end in (self.start.low, self.start.high):
            if self.start.firm and abs(math.log(short / end)) < 0.06:
                short = end
        return replace(setting, learning_rate=short)

    def _allowed(self, rate: float) -> bool:
        low, high = (self.start.low, self.start.high) if self.start.firm else (LOWEST, HIGHEST)
        return low <= rate <= high

    def _answer(self, now: Round, best: Score, done: bool) -> Answer:
        like = [s for s in now.scores if s.setting.variant == best.setting.variant]
        like.sort(key=lambda score: score.setting.learning_rate)
        place = like.index(best)
        high, open_above = _edge(best, like[place + 1 :])
        low, open_below = _edge(best, like[:place][::-1])
        notes = []
        if not done:
            notes.append(f"The search is not finished: this is the best of its {now.name} round.")
        if len(best.values) < 2:
            notes.append(
                "Every rate ran once in this round, so how much of the difference is chance is "
                "unknown; the interval reaches half way to the neighbours."
            )
        tried = f"the {now.name} round tried"
        if len(like) < len(now.scores):
            tried += " with this setting"
        for end, is_open, word in ((low, open_below, "lower"), (high, open_above, "higher")):
            if is_open and best.setting.learning_rate == end:
                notes.append(
                    f"The best rate is the {word[:-2]}est that {tried}; a {word} one may be better."
                )
            elif is_open:
                notes.append(
                    f"The interval reaches the {word[:-2]}est rate that {tried}; a {word} one may "
                    "do as well."
                )
        rival = _rival(best, now.scores)
        if rival is not None:
            notes.append(f"{_told(rival, best.setting)} did as well within the noise of the seeds.")
        return Answer(best.setting, low, high, best.mean, best.spread, now.name, done, tuple(notes))


def worse(score: Score, best: Score) -> bool:
    """Whether the seeds can tell a setting from the best one.

    Paired by seed: the mean difference is larger than its standard error times Student's t, at
    95 %, one-sided. Losses, which are above 0 and vary the more the larger they are, are compared
    by the logarithm of their ratio. With one seed any difference counts.
    """
    if score.ended != "finished":
        return True
    mine = {outcome.job.seed: outcome.value for outcome in score.outcomes}
    pairs = [(mine[o.job.seed], o.value) for o in best.outcomes if o.job.seed in mine]
    if best.maximize:
        differences = [theirs - value for value, theirs in pairs]
    elif min(map(min, pairs)) > 0:
        differences = [math.log(value / theirs) for value, theirs in pairs]
    else:
        differences = [value - theirs for value, theirs in pairs]
    if len(differences) < 2:
        return fmean(differences) > 0
    error = stdev(differences) / math.sqrt(len(differences))
    return fmean(differences) > student_t(len(differences) - 1) * error


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


def _edge(best: Score, outward: Iterable[Score]) -> tuple[float, bool]:
    """How far the rates cannot be told from the best, and whether that is where they end.

    Between the last that cannot and the first that can lies the border; their geometric mean
    stands for it.
    """
    last = best.setting.learning_rate
    for score in outward:
        rate = score.setting.learning_rate
        if worse(score, best):
            return math.sqrt(last * rate), False
        last = rate
    return last, True


def _rival(best: Score, scores: Sequence[Score]) -> Score | None:
    """The best of what differs in more than the rate and cannot be told from the winner."""
    others = [s for s in scores if s.setting.variant != best.setting.variant and len(s.values) > 1]
    alike = [score for score in others if not worse(score, best)]
    return min(alike, key=Score.cost, default=None)


def _told(score: Score, best: Setting) -> str:
    parts = asdict(score.setting)
    return ", ".join(
        f"{name} {value}" for name, value in parts.items() if value != asdict(best)[name]
    )


def _apart(rate: float, centre: float) -> float:
    return abs(math.log(rate / centre))
