"""Other tuners by their own code, each trial a plain `fit` of a new model."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import tempfile
from typing import Any

import keras
import numpy as np
from tasks import EPOCHS, Task

import keras_lr
from keras_lr.rate_search.jobs import POLICIES, Setting
from keras_lr.rate_search.policies import has_momentum
from keras_lr.rate_search.split import held_out

RANGE = (1e-5, 1.0)  # of the rates that they draw
SAMPLERS = (
    ("TPE", "none"),
    ("GP", "none"),
    ("random", "none"),
    ("TPE", "median"),
    ("TPE", "Hyperband"),
)


def split(task: Task, seed: int) -> tuple[Any, Any]:
    kept, held = held_out(task.y, len(task.x), 0.2, seed)
    return (task.x[kept], task.y[kept]), (task.x[held], task.y[held])


def fit(task: Task, data: Any, setting: Setting, seed: int, report: Any = None) -> float:
    """A plain `fit` of a new model, as a user of another tuner writes it; its loss."""
    (x, y), held = data
    model = task.new(seed)
    steps = EPOCHS * -(-len(x) // 32)
    callbacks = [keras.callbacks.TerminateOnNaN()]
    if setting.policy == "one-cycle":
        cycles = has_momentum(model.optimizer)
        callbacks.append(keras_lr.OneCycle(setting.learning_rate, cycle_momentum=cycles))
    elif setting.policy == "constant":
        model.optimizer.learning_rate = setting.learning_rate
    else:
        schedule = (
            keras.optimizers.schedules.CosineDecay(setting.learning_rate, steps)
            if setting.policy == "cosine"
            else keras_lr.schedules.WarmUpStableDecaySchedule(
                setting.learning_rate, steps, decay_steps=-(-steps // 5), decay="linear"
            )
        )
        callbacks.append(keras_lr.ScheduleLR(schedule))
    if report is not None:
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=report))
    fitted = model.fit(
        x, y, batch_size=32, epochs=EPOCHS, validation_data=held, verbose=0, callbacks=callbacks
    )
    last = float(fitted.history.get("val_loss", [np.nan])[-1])
    return last if np.isfinite(last) else 10 * task.untrained()


def by_optuna(
    task: Task, seed: int, sampler: str, pruner: str, epochs: int
) -> tuple[Setting, float]:
    """As many trials as the epochs allow, with policies if they are more than 40.

    Returns:
        The setting, and the epochs that were trained.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {
        "TPE": optuna.samplers.TPESampler,
        "GP": optuna.samplers.GPSampler,
        "random": optuna.samplers.RandomSampler,
    }
    pruners = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "Hyperband": lambda: optuna.pruners.HyperbandPruner(max_resource=EPOCHS),
    }
    done, data = 0, split(task, seed)
    study = optuna.create_study(sampler=samplers[sampler](seed=seed), pruner=pruners[pruner]())

    def objective(trial: Any) -> float:
        nonlocal done
        rate = trial.suggest_float("learning_rate", *RANGE, log=True)
        policy = trial.suggest_categorical("policy", POLICIES) if epochs > 40 else "constant"
        setting = Setting(rate, batch_size=32, policy=policy)

        def report(epoch: int, logs: dict[str, float]) -> None:
            nonlocal done
            done += 1
            trial.report(logs["val_loss"], epoch)
            if trial.should_prune() and epoch + 1 < EPOCHS:
                raise optuna.TrialPruned

        return fit(task, data, setting, seed, report)

    while done + EPOCHS <= epochs:
        study.optimize(objective, n_trials=1)
    best = study.best_params
    return _setting(best), done


def by_keras_tuner(task: Task, seed: int, epochs: int) -> tuple[Setting, float]:
    import keras_tuner

    data = split(task, seed)

    class Tuner(keras_tuner.BayesianOptimization):
        def run_trial(self, trial: Any, *_: Any, **__: Any) -> float:
            hp = trial.hyperparameters
            rate = hp.Float("learning_rate", *RANGE, sampling="log")
            policy = hp.Choice("policy", list(POLICIES)) if epochs > 40 else "constant"
            return fit(task, data, Setting(rate, batch_size=32, policy=policy), seed)

    with tempfile.TemporaryDirectory() as folder:
        tuner = Tuner(max_trials=epochs // EPOCHS, seed=seed, directory=folder, overwrite=True)
        with contextlib.redirect_stdout(io.StringIO()):
            tuner.search()
        best = tuner.get_best_hyperparameters()[0].values
    return _setting(best), epochs


def _setting(best: dict[str, Any]) -> Setting:
    return Setting(best["learning_rate"], None, 32, policy=best.get("policy", "constant"))


def usable() -> list[tuple[str, str]]:
    """The samplers and pruners of Optuna whose packages are installed."""
    has = importlib.util.find_spec
    gp = has("scipy") and has("torch")
    return [each for each in SAMPLERS if each[0] != "GP" or gp]
