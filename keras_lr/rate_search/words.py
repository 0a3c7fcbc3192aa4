"""The words for settings, rounds and runs, for progress lines, tables, plots and reports."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from keras_lr._util.terminal import visible
from keras_lr.rate_search.jobs import DIMENSIONS, Job, Outcome, Setting

if TYPE_CHECKING:
    from keras_lr.rate_search.answer import Answer
    from keras_lr.rate_search.result import Search
    from keras_lr.rate_search.rounds import Round

ENDINGS = {"finished": "finished", "behind": "stopped early", "diverged": "diverged"}
_NAMES = {"batch_size": "batch size", "warmup": "warm-up", "weight_decay": "weight decay"}


def name_of(field_or_round: str) -> str:
    """The name of a field of a setting, or of a round, as people write it.

    >>> name_of("batch_size"), name_of("fine 1")
    ('batch size', 'fine 1')
    """
    return _NAMES.get(field_or_round, field_or_round)


def value_of(field: str, value: Any) -> str:
    """The value of a field of a setting.

    >>> value_of("momentum", 0.9), value_of("warmup", 0.05), value_of("batch_size", None)
    ('0.9', '5 %', '–')
    """
    if value is None:
        return "–"
    if field == "warmup":
        return f"{100 * value:g} %"
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe_setting(setting: Setting, fields: Iterable[str]) -> str:
    """These fields of a setting in a phrase.

    >>> describe_setting(Setting(0.1, 0.9, warmup=0.05), ["momentum", "warmup", "policy"])
    'momentum 0.9, warm-up 5 %, policy constant'
    """
    return ", ".join(_phrase(setting, field) for field in fields)


def _phrase(setting: Setting, field: str) -> str:
    value = getattr(setting, field)
    if field == "warmup" and not value:
        return "no warm-up"
    if value is None:
        kept = f"{name_of(field)} as compiled"
        return "batch size of the data" if field == "batch_size" else kept
    return f"{name_of(field)} {value_of(field, value)}"


def describe_difference(setting: Setting, other: Setting) -> str:
    """What distinguishes a setting from another one, with its rate.

    >>> describe_difference(Setting(0.1, policy="cosine"), Setting(0.02))
    'policy cosine at the learning rate 0.1'
    """
    differences = describe_setting(setting, varied([setting, other]))
    return f"{differences} at the learning rate {setting.learning_rate:g}"


def varied(settings: Iterable[Setting]) -> list[str]:
    """The fields besides the rate in which settings differ."""
    different = list(settings)
    return [name for name in DIMENSIONS if len({getattr(each, name) for each in different}) > 1]


def varied_in(search: Search) -> list[str]:
    """The fields besides the rate for which a search has tried more than one value."""
    jobs = (job for each in search.rounds for job in each.jobs)
    return varied([search.setting, *(job.setting for job in jobs)])


def describe_round(each: Round) -> str:
    """The name of a round and its share of the data.

    >>> from keras_lr.rate_search.rounds import Round
    >>> describe_round(Round("fine 1", 0.5, 10.0, [], [], False))
    'fine 1 (50 % of data)'
    """
    return f"{name_of(each.name)} ({describe_share(each.fraction)})"


def describe_share(fraction: float) -> str:
    return "all data" if fraction >= 1 else f"{100 * fraction:.2g} % of data"


def describe_excess(pair: tuple[float, float], low: str, high: str) -> str:
    """How much worse the objective is at two rates; "" if it is unknown.

    >>> describe_excess((0.0123, math.inf), "a third of the rate", "3 times the rate")
    '0.012 worse at a third of the rate, diverged at 3 times the rate'
    >>> describe_excess((math.nan, math.nan), "", "")
    ''
    """
    if any(math.isnan(each) for each in pair):
        return ""
    said = ["diverged" if math.isinf(each) else f"{each:.2g} worse" for each in pair]
    return f"{said[0]} at {low}, {said[1]} at {high}"


def describe_sensitivity(answer: Answer) -> str:
    """What a rate costs that is wrong by a factor of 3, and in the mean; "" if it is unknown."""
    said = describe_excess(answer.sensitivity, "a third of the rate", "3 times the rate")
    if said and not math.isnan(answer.lr_sensitivity):
        said += f", {answer.lr_sensitivity:.2g} worse in the mean over three decades"
    return said


def describe_regret(answer: Answer) -> str:
    """What the ends of the interval cost; "" if it is unknown."""
    return describe_excess(answer.regret, "its lower end", "its upper end")


def objective_label(search: Search) -> str:
    """The objective as the label of an axis; it says if higher is better."""
    name = visible(search.objective)
    kind = "Validation" if name.startswith("val_") else "Training"
    label = f"{kind} {name.removeprefix('val_').replace('_', ' ')}"
    return label + "\n(higher is better)" * search.maximize


def describe_job(job: Job) -> str:
    """A run as the progress lines name it.

    >>> describe_job(Job("coarse", Setting(0.01, 0.9), 3, 1.0, 1))
    'coarse     lr 0.01      momentum 0.9  seed 3'
    """
    setting = job.setting
    usual, shown = Setting(1.0), [name for name in DIMENSIONS if name != "batch_size"]
    fields = [name for name in shown if getattr(setting, name) != getattr(usual, name)]
    beside = f"  {describe_setting(setting, fields)}" if fields else ""
    return f"{job.round:<10} lr {setting.learning_rate:<8.2g}{beside}  seed {job.seed}"


def describe_seconds(seconds: float) -> str:
    """A duration.

    >>> describe_seconds(1.234), describe_seconds(75), describe_seconds(7260)
    ('1.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def describe_outcome(outcome: Outcome, objective: str) -> str:
    """How a run ended, as the progress lines say it."""
    value = f"{objective} {outcome.value:.4g}"
    ending = ENDINGS[outcome.ended]
    ends = {
        "finished": value,
        "behind": f"{value}, {ending} in epoch {outcome.epochs}",
        "diverged": ending,
    }
    return f"{ends[outcome.ended]}  ({outcome.seconds:.1f} s)"
