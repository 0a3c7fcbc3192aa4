"""Compare plans of a search, and Optuna's TPE, on tables of losses: minutes instead of hours.

    python benchmarks/search/plans.py --save FOLDER

For each of nine small tasks, six of which are not those of `run.py`, all policies train at 18 rates
from 1e-4 to 1.8, with three seeds on each of six splits into training and validation rows, and with
six seeds on all training rows, judged on test rows: five epochs each, all runs of a task at once
(`jax.vmap`; momentum does not cycle). A range test per split says where a search begins. A plan is
then driven by the tables, interpolated in the logarithms of rate and loss, so that many plans can
be compared on the same runs. TPE draws from 1e-5 to 1 and is repeated with four seeds.

The second table is about the interval of the rate alone: whether it holds the best rate of the test
table. Its last row has the width beyond the runs (`answer.ROWS`) that is the least to hold it in
90 % of the searches on the other data sets, for each data set that is left out.

The regret is 0 at the best setting of the test table and 1 for the untrained model. The tables are
kept in the folder of `--save` and are not trained again. Needs JAX, scikit-learn and Optuna.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
from tasks import EPOCHS, Task, breast, dense, diabetes, digits

from keras_lr.rate_search import answer as answers
from keras_lr.rate_search.data import Data
from keras_lr.rate_search.jobs import POLICIES, Outcome, Setting
from keras_lr.rate_search.plan import Design, Plan, Start
from keras_lr.rate_search.runner import Runner
from keras_lr.rate_search.search_loop import MOST_OF_TEST, _summary
from keras_lr.rate_search.split import held_out
from keras_lr.schedules import OneCycleSchedule, WarmUpStableDecaySchedule

sys.path.append(str(Path(__file__).resolve().parents[1]))

from blocks import block

BATCH = 32
DECADES = np.arange(-4, 0.2501, 0.25)
SPLITS, TEST_SEEDS, TPE_SEEDS = range(6), tuple(range(100, 106)), range(4)
HELD, WIDTHS = 0.9, np.arange(0.0, 0.501, 0.025)
Method = Callable[["Table"], list[tuple[str, float]]]


def wine() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype("float32"), y


def friedman() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(800, 10, noise=1.0, random_state=0)
    return x.astype("float32"), ((y - y.mean()) / y.std()).astype("float32")


def moons() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import make_moons

    x, y = make_moons(1000, noise=0.2, random_state=0)
    return x.astype("float32"), y


def deep(inputs: int, outputs: int) -> keras.Model:
    hidden = [keras.layers.Dense(64, "relu") for _ in range(2)]
    return keras.Sequential([keras.Input((inputs,)), *hidden, keras.layers.Dense(outputs)])


def tanh(inputs: int, outputs: int) -> keras.Model:
    layers = keras.layers
    hidden = [layers.Dense(48, "tanh"), layers.LayerNormalization()]
    return keras.Sequential([keras.Input((inputs,)), *hidden, layers.Dense(outputs)])


def sgd() -> Any:
    return keras.optimizers.SGD(0.01, momentum=0.9)


def nesterov() -> Any:
    return keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)


TASKS = (
    (wine, deep, keras.optimizers.Adam),
    (diabetes, dense, keras.optimizers.Adam),
    (breast, dense, sgd),
    (friedman, deep, nesterov),
    (moons, tanh, keras.optimizers.RMSprop),
    (friedman, tanh, keras.optimizers.Adam),
    (breast, tanh, keras.optimizers.AdamW),
    (moons, deep, sgd),
    (digits, dense, keras.optimizers.Adam),
)


def curve(policy: str, steps: int) -> np.ndarray:
    """The rate of each update, for a largest rate of 1."""
    at = keras.ops.arange(steps)
    if policy == "one-cycle":
        return np.asarray(OneCycleSchedule(max_lr=1.0, total_steps=steps)(at))
    if policy == "cosine":
        return 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps))
    if policy == "wsd":
        last = -(-steps // 5)
        schedule = WarmUpStableDecaySchedule(1.0, steps, decay_steps=last, decay="linear")
        return np.asarray(schedule(at))
    return np.ones(steps)


def order(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of each update of a run, and their weights: 0 fills the last batch of an epoch."""
    rng, places, weights = np.random.default_rng(seed), [], []
    full = -(-rows // BATCH) * BATCH
    for _ in range(EPOCHS):
        places.append(np.concatenate([rng.permutation(rows), np.zeros(full - rows, int)]))
        weights.append(np.arange(full) < rows)
    shape = (-1, BATCH)
    return np.concatenate(places).reshape(shape), np.concatenate(weights).reshape(shape)


def trained(task: Task, training: Any, judged: Any, seeds: tuple[int, ...]) -> np.ndarray:
    """Losses by policy, rate and seed, all trained at once."""
    import jax

    (x, y), model = training, task.new(0)
    optimizer, classes = model.optimizer, np.issubdtype(np.asarray(y).dtype, np.integer)
    optimizer.build(model.trainable_variables)
    rate_at = [v is optimizer._learning_rate for v in optimizer.variables].index(True)
    places, weights = (
        np.stack(each) for each in zip(*(order(s, len(x)) for s in seeds), strict=True)
    )
    curves = np.stack([curve(policy, places.shape[1]) for policy in POLICIES])
    rates = (10 ** DECADES[None, :, None] * curves[:, None]).reshape(-1, places.shape[1])
    rates = rates.astype("float32")
    others = [v.value for v in model.non_trainable_variables]

    def losses(variables: Any, x: Any, y: Any) -> Any:
        outputs, _ = model.stateless_call(variables, others, x)
        if classes:
            return keras.losses.sparse_categorical_crossentropy(y, outputs, from_logits=True)
        return keras.ops.square(outputs[:, 0] - y)

    def mean(variables: Any, x: Any, y: Any, weight: Any) -> Any:
        return keras.ops.sum(losses(variables, x, y) * weight) / keras.ops.sum(weight)

    def update(variables: Any, state: Any, rate: Any, x: Any, y: Any, weight: Any) -> Any:
        gradients = jax.grad(mean)(variables, x, y, weight)
        state = [rate if place == rate_at else each for place, each in enumerate(state)]
        return optimizer.stateless_apply(state, gradients, variables)

    over_rates = jax.vmap(update, (0, 0, 0, None, None, None))
    over_seeds = jax.vmap(over_rates, (0, 0, None, 0, 0, 0))
    x, y = jax.numpy.asarray(x), jax.numpy.asarray(y)

    @jax.jit
    def step(variables: Any, state: Any, rate: Any, places: Any, weight: Any) -> Any:
        return over_seeds(variables, state, rate, x[places], y[places], weight)

    def many(value: Any) -> Any:
        return jax.numpy.broadcast_to(value, (len(seeds), len(rates), *value.shape))

    variables = [many(v.value) for v in model.trainable_variables]
    state = [many(v.value) for v in optimizer.variables]
    for at in range(places.shape[1]):
        weight = weights[:, at].astype("float32")
        variables, state = step(variables, state, rates[:, at], places[:, at], weight)
    each = jax.vmap(jax.vmap(lambda v: losses(v, *map(jax.numpy.asarray, judged)).mean()))
    shape = (len(seeds), len(POLICIES), len(DECADES))
    return np.asarray(jax.jit(each)(variables)).reshape(shape).transpose(1, 2, 0)


def tabled(task: Task) -> dict[str, Any]:
    """The tables of a task and the range tests of its splits."""
    found: dict[str, Any] = {"untrained": task.untrained()}
    found["test"] = trained(task, (task.x, task.y), task.judged, TEST_SEEDS)
    for split in SPLITS:
        kept, held = held_out(task.y, len(task.x), 0.2, split)
        training, judged = (task.x[kept], task.y[kept]), (task.x[held], task.y[held])
        found[f"val{split}"] = trained(task, training, judged, (split, split + 1, split + 2))
        found[f"val_untrained{split}"] = float(task.model.evaluate(*judged, verbose=0))
        steps = EPOCHS * -(-len(kept) // BATCH)
        data = Data(*training, None, judged)
        with Runner.borrow(task.model, data, "val_loss", BATCH, split) as runner:
            test = _summary(runner.range_test(BATCH, split), steps)
        cost = len(test["learning_rates"]) / steps
        suggestion = test["suggestion"] or math.nan
        found[f"rt{split}"] = np.array([test["low"], test["high"], suggestion, cost])
    return found


class Table:
    """The losses of a task in one split."""

    def __init__(self, name: str, found: Any, split: int) -> None:
        self.name, self.split, self.data = name, split, name.partition("-")[0]
        self.untrained = float(found["untrained"])
        self.before = float(found[f"val_untrained{split}"])
        test = np.nan_to_num(found["test"], nan=self.untrained)
        self.test = np.minimum(test, self.untrained).mean(axis=2)
        self.validation, self._range_test = found[f"val{split}"], found[f"rt{split}"]

    @property
    def start(self) -> Start:
        low, high, centre, cost = map(float, self._range_test)
        tested = math.isfinite(centre)
        return Start(
            low, high, centre if tested else 1e-3, tested=tested, cost=min(cost, MOST_OF_TEST)
        )

    def run(self, policy: str, rate: float, seed: int) -> float:
        """The validation loss of a run; NaN if it diverged."""
        return self._between(self.validation[POLICIES.index(policy), :, seed % 3], rate)

    def regret(self, policy: str, rate: float) -> float:
        loss = self._between(self.test[POLICIES.index(policy)], rate)
        best = self.test.min()
        return float((loss - best) / (self.untrained - best))

    def _between(self, losses: np.ndarray, rate: float) -> float:
        u = min(max(math.log10(rate), DECADES[0]), DECADES[-1])
        place = min(int((u - DECADES[0]) / 0.25), len(DECADES) - 2)
        share, pair = (u - DECADES[place]) / 0.25, losses[place : place + 2]
        if not all(each < 3 * self.before for each in pair):
            nearer = float(pair[round(share)])
            return nearer if nearer < 3 * self.before else math.nan
        low, high = np.log(np.maximum(pair, 1e-7))
        return math.exp((1 - share) * low + share * high)


class OneSeed(Plan):
    """The plan that chooses each of `also` by one seed."""

    def _effort(self, name: str) -> tuple[float, int]:
        fraction, seeds = super()._effort(name)
        return fraction, seeds if name == self.names[-1] else 1


def found_by(table: Table, kind: type[Plan], also: dict[str, Any]) -> answers.Answer:
    runs, base = 8 + 12 * len(also), Setting(1.0, None, BATCH)
    plan = kind(Design(2, 5, 1.0, EPOCHS, 3, False, 0, also, base, runs), table.start)
    found: dict[str, Outcome] = {}
    while missing := plan.missing(found):
        for job in missing:
            loss = table.run(job.setting.policy, job.setting.learning_rate, job.seed)
            ended = "diverged" if math.isnan(loss) else "finished"
            found[job.key] = Outcome(job, ended, loss)
    answer = plan.answer(found)
    assert answer is not None
    return answer


def by_plan(table: Table, kind: type[Plan], also: dict[str, Any]) -> list[tuple[str, float]]:
    found = found_by(table, kind, also).setting
    return [(found.policy, found.learning_rate)]


class Ends(NamedTuple):
    """The interval of the rate alone, and whether it holds the best rate of the test table."""

    holds: bool
    width: float
    regrets: tuple[float, float]


@functools.cache
def interval_of(table: Table, beyond: float) -> Ends:
    """The interval with another width beyond the runs, in decades."""
    kept, answers.ROWS = answers.ROWS, beyond
    try:
        found = found_by(table, Plan, {})
    finally:
        answers.ROWS = kept
    best = 10 ** DECADES[table.test[0].argmin()]
    low, high = found.low, found.high
    ends = table.regret("constant", low), table.regret("constant", high)
    return Ends(low <= best <= high, math.log10(high / low), ends)


def intervals(tables: list[Table]) -> list[str]:
    """The table of the intervals."""

    def held(beyond: float, chosen: list[Table]) -> float:
        return statistics.fmean(interval_of(table, beyond).holds for table in chosen)

    lines = [
        "| beyond the runs, decades | holds the best rate | width, decades | regret at its ends |",
        "| --- | --- | --- | --- |",
    ]
    for beyond in (0.0, answers.ROWS):
        ends = [interval_of(table, beyond) for table in tables]
        width = statistics.median(each.width for each in ends)
        costs = [statistics.fmean(each.regrets[side] for each in ends) for side in (0, 1)]
        holds = statistics.fmean(each.holds for each in ends)
        lines.append(
            f"| {beyond:.2f} | {holds:.0%} | {width:.2f} | {costs[0]:.3f}, {costs[1]:.3f} |"
        )
    chosen, held_out_of = [], []
    for data in sorted({table.data for table in tables}):
        others = [table for table in tables if table.data != data]
        enough = [each for each in WIDTHS if held(each, others) >= HELD]
        chosen.append(float(enough[0] if enough else WIDTHS[-1]))
        mine = [table for table in tables if table.data == data]
        held_out_of += [interval_of(table, chosen[-1]).holds for table in mine]
    span = f"{min(chosen):.3f} to {max(chosen):.3f}, without the data set"
    lines.append(f"| {span} | {statistics.fmean(held_out_of):.0%} | | |")
    return lines


def by_tpe(table: Table, trials: int, policies: tuple[str, ...]) -> list[tuple[str, float]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    answers = []
    for seed in TPE_SEEDS:
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))

        def objective(trial: Any) -> float:
            rate = trial.suggest_float("rate", 1e-5, 1.0, log=True)
            loss = table.run(trial.suggest_categorical("policy", policies), rate, 0)
            return 10 * table.before if math.isnan(loss) else loss

        study.optimize(objective, n_trials=trials)
        answers.append((study.best_params["policy"], study.best_params["rate"]))
    return answers


def methods() -> dict[str, Method]:
    policies = {"policy": POLICIES}
    return {
        "policies, two seeds choose": lambda table: by_plan(table, Plan, policies),
        "policies, one seed chooses": lambda table: by_plan(table, OneSeed, policies),
        "TPE, 20 runs": lambda table: by_tpe(table, 20, POLICIES),
        "the rate alone": lambda table: by_plan(table, Plan, {}),
        "TPE, 8 runs of a constant rate": lambda table: by_tpe(table, 8, POLICIES[:1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", type=Path, help="folder of the tables")
    folder = parser.parse_args().save or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    tables = []
    for spec in TASKS:
        name = "-".join(each.__name__.lower() for each in spec)
        path = folder / f"{name}.npz"
        if not path.exists():
            np.savez(path, **tabled(Task(*spec)))
            print(name, file=sys.stderr, flush=True)
        tables += [Table(name, np.load(path), split) for split in SPLITS]
    regrets = {
        name: [statistics.fmean(table.regret(*each) for each in method(table)) for table in tables]
        for name, method in methods().items()
    }
    tpe = regrets["TPE, 20 runs"]
    lines = [
        f"| {len(TASKS)} tasks, {len(SPLITS)} splits each | median | mean | worst | below TPE |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, values in regrets.items():
        spread = statistics.median(values), statistics.fmean(values), max(values)
        figures = " | ".join(f"{value:.3f}".lstrip("0") for value in spread)
        below = sum(value < other for value, other in zip(values, tpe, strict=True))
        lines.append(f"| {name} | {figures} | {below} of {len(tpe)} |")
    print(block("search-plans", lines))
    print(block("search-intervals", intervals(tables)))


if __name__ == "__main__":
    main()
