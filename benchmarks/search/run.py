"""Compare the rate that `search` finds with the suggestion of a range test.

    python benchmarks/search/run.py       # on JAX, unless KERAS_BACKEND is set

Small real tasks. For each: the suggestion of the range test (`lr_find` with its defaults, and with
`confirm=True`), the answer of `search` with its defaults, Keras's default rate, and a grid of four
rates a decade, as an estimate of the best possible. Each rate is then trained again, with new
seeds, on all training rows, and evaluated on test rows that neither the range test nor the search
has seen. Two seeds for each task set the order of the data and the validation split. The regret of
a rate is 0 at the best of all evaluated rates and 1 for the untrained model. The best rate of the
grid is chosen with the same seeds and rows, which favors the grid.

Needs scikit-learn and mnist1d.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import keras_lr
from keras_lr.rate_search.plan import Job, Setting
from keras_lr.rate_search.runner import Data, Runner

sys.path.append(str(Path(__file__).resolve().parents[1]))

from blocks import block

EPOCHS = 5
SEEDS = (100, 101, 102)
GRID = 10 ** np.arange(-5, 0.76, 0.25)


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


def breast() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype("float32"), y


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    return (x * 20).astype("float32"), ((y - y.mean()) / y.std()).astype("float32")


def mnist1d() -> tuple[np.ndarray, np.ndarray]:
    from mnist1d.data import get_dataset_args, make_dataset

    found = make_dataset(get_dataset_args())
    return found["x"].astype("float32"), found["y"]


def dense(inputs: int, outputs: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((inputs,)), layers.Dense(64, activation="relu"), layers.Dense(outputs)]
    )


def conv(inputs: int, outputs: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Reshape((inputs, 1)),
            layers.Conv1D(16, 5, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv1D(16, 5, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(outputs),
        ]
    )


def attention(inputs: int, outputs: int) -> keras.Model:
    layers = keras.layers
    tokens = keras.Input((inputs,))
    x = layers.Dense(16)(layers.Reshape((8, inputs // 8))(tokens))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    return keras.Model(tokens, layers.Dense(outputs)(layers.Flatten()(x)))


def sgd() -> Any:
    return keras.optimizers.SGD(0.01, momentum=0.9)


TASKS: tuple[tuple[Callable, Callable, Callable], ...] = (
    (digits, dense, keras.optimizers.Adam),
    (digits, dense, sgd),
    (digits, attention, keras.optimizers.AdamW),
    (breast, dense, sgd),
    (diabetes, dense, keras.optimizers.Adam),
    (diabetes, dense, keras.optimizers.RMSprop),
    (mnist1d, conv, keras.optimizers.Adam),
    (mnist1d, dense, keras.optimizers.Lion),
)


class Task:
    def __init__(self, data: Callable, net: Callable, optimizer: Callable) -> None:
        self.name = f"{data.__name__}-{net.__name__}-{optimizer.__name__.lower()}"
        x, y = data()
        rows = np.random.default_rng(0).permutation(len(x))
        test = len(x) // 4
        self.x, self.y = x[rows[test:]], y[rows[test:]]
        self.judged = x[rows[:test]], y[rows[:test]]
        classes = y.dtype.kind == "i"
        keras.utils.set_random_seed(0)
        self.model = net(x.shape[1], len(set(y.tolist())) if classes else 1)
        losses = keras.losses
        loss = (
            losses.SparseCategoricalCrossentropy(from_logits=True)
            if classes
            else losses.MeanSquaredError()
        )
        self.model.compile(optimizer(), loss)
        self.default = float(self.model.optimizer.learning_rate)

    def untrained(self) -> float:
        return float(self.model.evaluate(*self.judged, verbose=0))

    def losses(self, rates: Iterable[float]) -> dict[float, float]:
        """Mean test loss after training at each rate, at most the loss of the untrained model."""
        worst, found = self.untrained(), {}
        data = Data(self.x, self.y, None, self.judged, {})
        with Runner.borrow(self.model, data, "val_loss", 32, 0) as runner:
            for rate in rates:
                jobs = [
                    Job("judge", Setting(rate, batch_size=32), seed, 1.0, EPOCHS) for seed in SEEDS
                ]
                outcomes = [runner.run(job) for job in jobs]
                ends = [o.value if o.ended == "finished" else worst for o in outcomes]
                found[rate] = statistics.fmean(min(end, worst) for end in ends)
        return found


def judge(task: Task, seed: int) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    chosen: dict[str, float] = {"Keras's default": task.default}
    cost: dict[str, float] = {"Keras's default": 0}
    batches = -(-len(task.x) // 32)
    for name, confirm in (("range test", False), ("range test, confirmed", True)):
        test = keras_lr.lr_find(task.model, task.x, task.y, confirm=confirm, seed=seed, verbose=0)
        chosen[name] = test.suggest().learning_rate
        cost[name] = test.training_steps / batches
    found = keras_lr.search(task.model, task.x, task.y, epochs=EPOCHS, seed=seed, verbose=0)
    chosen["search"] = found.learning_rate
    cost["search"] = sum(o.epochs * o.job.fraction for o in found.outcomes)
    grid = task.losses(map(float, GRID))
    here = task.losses(chosen.values())
    best, worst = min([*grid.values(), *here.values()]), task.untrained()
    regret = {name: (here[rate] - best) / (worst - best) for name, rate in chosen.items()}
    bottom = min(grid, key=grid.__getitem__)
    inside = found.low <= bottom <= found.high
    return {
        "task": task.name,
        "chosen": chosen,
        "regret": regret,
        "epochs": cost,
        "best of the grid": bottom,
        "interval": [found.low, found.high],
        "holds": bool(inside),
    }


NAMED = {
    "Keras's default": "Keras's default rate",
    "range test": "`lr_find`",
    "range test, confirmed": "`lr_find(confirm=True)`",
    "search": f"`search(epochs={EPOCHS})`",
}


def table(results: list[dict[str, Any]]) -> str:
    """The table of benchmarks/README.md."""
    lines = [
        f"| {keras.backend.backend()} | median | mean | worst | cost in epochs |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, shown in NAMED.items():
        values = [result["regret"][name] for result in results]
        spread = statistics.median(values), statistics.fmean(values), max(values)
        epochs = statistics.median(result["epochs"][name] for result in results)
        figures = " | ".join(f"{value:.3f}".lstrip("0") for value in spread)
        lines.append(f"| {shown} | {figures} | {float(f'{epochs:.2g}'):g} |")
    held = sum(result["holds"] for result in results)
    lines += [
        "",
        f"The interval of the search held the best rate of the grid in {held} of {len(results)}.",
    ]
    return block("search", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", type=Path, help="write the figures as JSON")
    parser.add_argument(
        "--read", type=Path, nargs="+", help="print the tables of files from --save; do not train"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    if options.read:
        print(table([result for path in options.read for result in json.loads(path.read_text())]))
        return
    results = []
    for seed, parts in itertools.product(options.seeds, TASKS):
        began = time.perf_counter()
        result = judge(Task(*parts), seed)
        results.append(result)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in result["regret"].items())
        seconds = time.perf_counter() - began
        print(f"{result['task']:<26} {shown}  ({seconds:.0f} s)", file=sys.stderr, flush=True)
        if options.save:
            options.save.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
