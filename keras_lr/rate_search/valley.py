"""The cost of a rate near the best one: a parabola through all runs of one variant."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from keras_lr.rate_search.evidence import costs_of, student_t
from keras_lr.rate_search.jobs import Outcome

WIDTH = 0.5  # decades, the standard deviation of the weights of the runs
FURTHEST = 0.35  # decades between the best rate tried and the minimum of the parabola
EXPECTED = 0.35  # decades, the standard deviation of a range test's answer from the best rate
CONFIDENCE = 0.95  # of the interval
STEPS = 2001  # rates at which the slope is tested
DECADES = 3.0  # around the minimum, over which the mean excess is


@dataclass(frozen=True)
class Valley:
    """A parabola c + b u + a u^2 of the cost, where u is the decades from the best rate tried.

    Attributes:
        best: The best rate tried.
        slope, bend: The coefficients b and a.
        low, high: Ends of the rates that count, in decades from `best`: the lowest rate that
            finished, and the highest below the first one that diverged.
        cliff: The first rate above `best` that diverged with any seed, in decades; infinite if
            none did.
        variances: Variance of b, of a, and their covariance; None without a degree of freedom.
        freedom: Degrees of freedom of the noise.
        ratio: Whether the costs are logarithms, so that their differences are ratios.
        maximize: Whether a higher objective is better.
        expected: What the range test suggests, in decades from `best`; None without one.
    """

    best: float
    slope: float
    bend: float
    low: float
    high: float
    cliff: float
    variances: tuple[float, float, float] | None
    freedom: int
    ratio: bool
    maximize: bool
    expected: float | None = None

    @staticmethod
    def through(
        runs: Iterable[Outcome], best: float, maximize: bool, expected: float | None = None
    ) -> Valley | None:
        """The least-squares parabola of the costs (`costs_of`) of all finished runs.

        The weights are exp(-(u / 0.5)^2 / 2). The level c is one of its own for each share of the
        data, number of epochs and seed, so that only runs that differ in nothing but the rate
        are compared.

        Args:
            runs: Runs of one variant. Only those that finished count, at rates at which none
                diverged.
            best: The best rate tried.
            maximize: Whether a higher objective is better.
            expected: The rate that the range test suggests for this variant; None without one.

        Returns:
            The parabola; None if the runs do not determine one, or if a loss is exactly 0, which
            no other rate can improve.
        """
        runs = list(runs)
        unstable = {run.job.setting.learning_rate for run in runs if run.ended == "diverged"}
        finished = [
            run
            for run in runs
            if run.ended == "finished" and run.job.setting.learning_rate not in unstable
        ]
        values = [run.value for run in finished]
        if not finished or (not maximize and 0.0 in values):
            return None
        levels = [(run.job.fraction, run.job.epochs, run.job.seed) for run in finished]
        u = np.log10([run.job.setting.learning_rate / best for run in finished])
        costs = np.array(costs_of(values, maximize))
        own = np.array([[level == each for each in dict.fromkeys(levels)] for level in levels])
        roots = np.exp(-((u / WIDTH) ** 2) / 4)[:, None]
        terms = roots * np.column_stack([own.astype(float), u, u**2])
        solution, _, rank, _ = np.linalg.lstsq(terms, roots[:, 0] * costs, rcond=1e-6)
        slope, bend = map(float, solution[-2:])
        if rank < terms.shape[1]:
            return None
        freedom = len(finished) - rank
        variances = None
        if freedom:
            residuals = roots[:, 0] * costs - terms @ solution
            noise = float(residuals @ residuals) / freedom
            covariance = noise * np.linalg.inv(terms.T @ terms)
            (b, both), (_, a) = covariance[-2:, -2:].tolist()
            variances = (b, a, both)
        cliff = math.log10(min((r for r in unstable if r > best), default=math.inf) / best)
        return Valley(
            *(best, slope, bend, float(u.min()), float(u[u < cliff].max()), cliff),
            *(variances, int(freedom), not maximize and bool(min(values) > 0), maximize),
            None if expected is None else math.log10(expected / best),
        )

    @property
    def bottom(self) -> float:
        """The best rate, in decades from the best one tried, within the rates that count.

        That is the minimum of the parabola, moved by at most 0.35; 0 if it opens downwards. If a
        range test suggests a rate as well, it is the mean of both, weighted by the inverses of
        their variances: those of the minimum by the delta method, and 0.35^2 for the range test,
        whose error was measured on planned runs of other data sets (`benchmarks/horizon`). A
        parabola that opens downwards does not say where the minimum is: then it is the suggestion
        of the range test, at most 0.35 away, and so away from a rate at the edge of divergence.
        """
        low, high = max(-FURTHEST, self.low), min(FURTHEST, self.high)
        if not self.bend > 0:
            return min(max(self.expected or 0.0, low), high)
        minimum = -self.slope / (2 * self.bend)
        fitted = min(max(minimum, low), high)
        if self.expected is None or self.variances is None:
            return fitted
        b, a, both = self.variances
        variance = (b + 4 * minimum * both + 4 * minimum**2 * a) / (2 * self.bend) ** 2
        share = variance / (variance + EXPECTED**2)
        return min(max(fitted + share * (self.expected - fitted), self.low), self.high)

    @property
    def rate(self) -> float:
        """The best rate."""
        return float(self.best * 10.0**self.bottom)

    def interval(self) -> tuple[float, float] | None:
        """The rates at which the slope is not significantly different from 0, at 95 %.

        This is Fieller's confidence set for the minimum of a parabola: no sampling, and exact
        for normal noise however flat the parabola is. The noise is that of the runs around the
        parabola, which includes what a parabola cannot describe. The set is cut off at the ends of
        the rates that count; if it has two parts, the gap counts too.

        Returns:
            The lowest and the highest rate; None if there are no more runs than coefficients.

        Source: Fieller, "Some problems in interval estimation", JRSS B 16, 1954.
        """
        if self.variances is None:
            return None
        u = np.linspace(self.low, self.high, STEPS)
        b, a, both = self.variances
        error = np.sqrt(np.maximum(b + 4 * u * both + 4 * u**2 * a, 0.0))
        limit = student_t(self.freedom, (1 + CONFIDENCE) / 2) * error
        inside = u[np.abs(self.slope + 2 * self.bend * u) <= limit]
        ends = [self.bottom, *inside.tolist()]
        return float(self.best * 10.0 ** min(ends)), float(self.best * 10.0 ** max(ends))

    def excess(self, rate: float, value: float) -> float:
        """How much worse the objective is at a rate than at the minimum.

        Args:
            rate: The rate.
            value: The objective at the minimum.

        Returns:
            The difference in units of the objective, at least 0; infinite from the first rate that
            diverged on; NaN if the parabola opens downwards.
        """
        if not self.bend > 0:
            return math.nan
        u = math.log10(rate / self.best)
        if u >= self.cliff:
            return math.inf

        def cost(at: float) -> float:
            return self.slope * at + self.bend * at**2

        more = max(0.0, cost(u) - cost(self.bottom))
        return value * math.expm1(more) if self.ratio else more

    def mean_excess(self, value: float, untrained: float) -> float:
        """The learning-rate sensitivity: the mean of `excess` over three decades.

        The decades are evenly around the minimum. A rate costs at most what no training costs.
        This is an estimate: where no run was trained the parabola is extended, and far from a
        flat minimum the loss often rises faster.

        Args:
            value: The objective at the minimum.
            untrained: The objective before training.

        Returns:
            The mean in units of the objective; NaN if `untrained` is, or if the parabola opens
            downwards.

        Source: Wortsman et al., "Small-scale proxies for large-scale Transformer training
        instabilities", 2023 (arXiv 2309.14322), section 2.2.
        """
        most = max(0.0, untrained - value if not self.maximize else value - untrained)
        if math.isnan(untrained):
            return math.nan
        u = self.bottom + np.linspace(-DECADES / 2, DECADES / 2, STEPS)
        costs = [min(self.excess(self.best * 10.0**each, value), most) for each in u.tolist()]
        return float(np.mean(costs))
