"""How the record of a search writes jobs and outcomes, now and in earlier versions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from keras_lr.rate_search.jobs import POLICIES, Job, Outcome, Setting
from keras_lr.rate_search.words import ENDINGS

FORMAT = 4  # 4: the key of a job has no round; 3: `final_seeds`, which was `repeats`


def attributes_of(job: Job) -> dict[str, Any]:
    """What the trial of a job says of it, beside its key."""
    return {
        "round": job.round,
        "seed": job.seed,
        "fraction": job.fraction,
        "epochs": job.epochs,
        "setting": asdict(job.setting),
    }


def parameters_of(job: Job) -> dict[str, Any]:
    """The parameters of the trial of a job, for the tools of Optuna."""
    return {k: v for k, v in asdict(job.setting).items() if v is not None}


def outcome_of(trial: Any) -> Outcome:
    """The outcome that a finished trial of a job records."""
    attributes = trial.user_attrs
    job = Job(
        attributes["round"],
        Setting(**attributes["setting"]),
        attributes["seed"],
        attributes["fraction"],
        attributes["epochs"],
    )
    ended = {each: each for each in ENDINGS}[attributes["ended"]]
    value = math.nan if ended == "diverged" or trial.value is None else float(trial.value)
    history = {
        name: [float(each) for each in values]
        for name, values in attributes.get("history", {}).items()
    }
    seconds = float(attributes.get("seconds", 0.0))
    worker = attributes.get("worker", "")
    return Outcome(job, ended, value, history, seconds, trial.number, worker)


def distributions_of(optuna: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    floats, whole = optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution
    known = {
        "learning_rate": floats(1e-300, 1e300, log=True),
        "momentum": floats(0.0, 1.0),
        "batch_size": whole(1, 2**31 - 1),
        "warmup": floats(0.0, 1.0),
        "policy": optuna.distributions.CategoricalDistribution(POLICIES),
        "beta_2": floats(0.0, 1.0),
        "rate_decay": floats(0.0, 1e300),
    }
    return {name: known[name] for name in params}


def upgraded(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity of format 2, where `final_seeds` was `repeats`, or 3, in the present format."""
    if identity.get("format") not in (2, 3) or not isinstance(identity.get("settings", {}), dict):
        return identity
    settings = dict(identity.get("settings", {}))
    if "repeats" in settings:
        settings["final_seeds"] = settings.pop("repeats")
    if settings:
        settings.setdefault("max_runs", None)
    return {**identity, "format": FORMAT, **({"settings": settings} if settings else {})}


def key_of(trial: Any) -> str | None:
    """The key of the job of a trial; that of formats 2 and 3 is written as the present one.

    It was `ROUND/SETTING/seed=SEED`.
    """
    attributes = trial.user_attrs
    key: str | None = attributes.get("job")
    old = f"{attributes.get('round')}/"
    if key is None or not key.startswith(old):
        return key
    return f"{key[len(old) :]}/rows={attributes.get('fraction')}/epochs={attributes.get('epochs')}"
