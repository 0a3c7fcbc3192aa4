"""What a search prints while it runs: the runs of all its processes, and the time left."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from keras_lr.rate_search.jobs import Outcome
from keras_lr.rate_search.plan import Plan
from keras_lr.rate_search.words import describe_job, describe_outcome, describe_seconds


class Progress:
    """Prints a line for each run that ends, in this process or another one.

    Args:
        say: Prints a line.
        plan: The plan.
        objective: The name of the objective.
        worker: The name of this process.
        known: The outcomes that were there when this process began, which are not printed.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        plan: Plan,
        objective: str,
        worker: str,
        known: Mapping[str, Outcome],
    ) -> None:
        self._say = say
        self._plan = plan
        self._objective = objective
        self._worker = worker
        self._said = set(known)

    def show(self, found: Mapping[str, Outcome], processes: Callable[[], int]) -> None:
        """Print the runs that have ended since the last call, in the order of the record.

        Args:
            found: The outcomes of all processes, by the keys of their jobs.
            processes: Counts the processes that train.
        """
        new = [each for key, each in found.items() if key not in self._said]
        if not new:
            return
        self._said.update(found)
        left = seconds_left(self._plan, found, processes())
        new.sort(key=lambda each: each.number)
        for outcome in new:
            line = f"{describe_job(outcome.job)}  {describe_outcome(outcome, self._objective)}"
            if outcome.worker != self._worker:
                line += f"  by {outcome.worker}"
            if outcome is new[-1] and left:
                line += f"; at most {describe_seconds(left)} left"
            self._say(line)


def seconds_left(plan: Plan, found: Mapping[str, Outcome], processes: int) -> float | None:
    """The most that the search still takes, if all processes train at the speed so far.

    Returns:
        Seconds; None if no run has ended, or if the number of runs has no bound.
    """
    runs = sum(
        each.job.fraction * each.epochs / each.job.epochs for each in found.values() if each.epochs
    )
    left = plan.most_left(found)
    if not runs or math.isinf(left):
        return None
    return sum(each.seconds for each in found.values()) / runs * left / max(1, processes)
