"""One part of run.py for one model, on one backend, in a process of its own.

Prints one line of JSON: figures by name, or for `works` a word for each thing that was tried.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np
from cost import cpu_seconds, resident
from zoo import ENTRIES, Entry, Task

import keras_lr

RATE = 1e-6
RAMP = {"start_lr": RATE / 10, "end_lr": RATE, "stop_factor": None, "verbose": 0}


def contenders(task: Task, entry: Entry, steps: int) -> dict[str, Callable[[], Any]]:
    x, y = task.draw(entry.batch * steps)
    data: dict[str, Any] = {"x": x, "y": y, "batch_size": entry.batch, "shuffle": False}
    fit = task.model.fit
    return {
        "fit": lambda: fit(**data, verbose=0),
        "OneCycle": lambda: fit(**data, verbose=0, callbacks=[keras_lr.OneCycle(RATE)]),
        "lr_find": lambda: keras_lr.lr_find(task.model, **data, **RAMP, steps=steps, budget=steps),
    }


def warm_up() -> None:
    """Load what every training loads, with a model that is not measured."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.zeros((8, 4), "float32"), np.zeros((8, 1), "float32"), verbose=0)


def first(entry: Entry, small: bool, contender: str) -> dict[str, Any]:
    """The first call in this process: processor time, and the peak of memory above the start."""
    warm_up()
    before = resident()
    keras.utils.set_random_seed(0)
    task = entry.make(small)
    steps = 3 if small else entry.steps
    spent = cpu_seconds(contenders(task, entry, steps)[contender])
    model = task.model
    variables = {id(v): v for v in (*model.variables, *model.optimizer.variables)}
    state = sum(_bytes(variable) for variable in variables.values())
    return {"seconds": spent, "peak": resident() - before, "state": state}


def _bytes(variable: Any) -> int:
    size = {"float16": 2, "bfloat16": 2, "float64": 8, "int64": 8, "uint8": 1, "bool": 1}
    return int(np.prod(variable.shape)) * size.get(str(variable.dtype), 4)


def steady(entry: Entry, small: bool, rounds: int) -> dict[str, Any]:
    """Processor time of each contender, by turns, once everything is compiled."""
    keras.utils.set_random_seed(0)
    steps = 3 if small else entry.steady
    running: dict[str, Callable[[], Any]] = {}
    for name in ("fit", "OneCycle", "lr_find"):
        functions = contenders(entry.make(small), entry, steps)
        functions["fit"]()  # a range test of a model that was never fitted removes what it built
        running[name] = functions[name]
    for function in running.values():
        function()
    chance, names = np.random.default_rng(0), list(running)
    spent: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for index in chance.permutation(len(names)):
            spent[names[index]].append(cpu_seconds(running[names[index]]))
    return spent


# --- does everything come through?


def works(entry: Entry, small: bool) -> dict[str, str]:
    """Each thing that a user does with the model, tried once; "yes", or what went wrong."""
    found: dict[str, str] = {}
    for name, check in CHECKS.items():
        keras.utils.set_random_seed(0)
        try:
            check(entry, small)
            found[name] = "yes"
        except Exception as error:
            traceback.print_exc()
            found[name] = f"{type(error).__name__}: {error}"
    return found


def _values(model: Any) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v.value) for v in model.variables if "seed" not in v.name]


def _data(task: Task, entry: Entry, batches: int = 4) -> dict[str, Any]:
    x, y = task.draw(entry.batch * batches)
    return {"x": x, "y": y, "batch_size": entry.batch}


def _finds(entry: Entry, small: bool) -> None:
    task = entry.make(small)
    before = _values(task.model)
    test = keras_lr.lr_find(
        task.model, **_data(task, entry), start_lr=1e-6, end_lr=1e-2, steps=12, verbose=0
    )
    assert np.isfinite(np.asarray(test.losses)[..., :8]).all(), "the losses are not finite"
    after = _values(task.model)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)), "not restored"


def _cycles(entry: Entry, small: bool) -> None:
    task, peak = entry.make(small), 1e-4
    callbacks = [keras_lr.OneCycle(peak), keras_lr.LRLogger()]
    history = task.model.fit(**_data(task, entry), epochs=2, verbose=0, callbacks=callbacks)
    rates = history.history["learning_rate"]
    assert len(rates) == 2 and 0 < rates[-1] < rates[0] < peak, f"the rates were {rates}"


def _waits_for_plateaus(entry: Entry, small: bool) -> None:
    task = entry.make(small)
    plateau = keras_lr.ReduceLROnPlateau(monitor="loss", patience=1, factor=0.5, min_delta=1e9)
    own = float(task.model.optimizer.learning_rate)
    task.model.fit(**_data(task, entry, 2), epochs=4, verbose=0, callbacks=[plateau])
    last = float(task.model.optimizer.learning_rate)
    assert last < own, f"the rate is {last} after four epochs, and was {own}"


def _trains_layer_wise(entry: Entry, small: bool) -> None:
    task = entry.make(small)
    model = task.model
    multipliers = keras_lr.layer_decay(model, 0.5)
    optimizer = keras_lr.optimizers.LayerwiseLR(keras.optimizers.AdamW(1e-3), multipliers)
    model.compile(optimizer, model.loss)
    before = [keras.ops.convert_to_numpy(v.value) for v in model.trainable_variables]
    model.fit(**_data(task, entry, 2), verbose=0)
    after = [keras.ops.convert_to_numpy(v.value) for v in model.trainable_variables]
    moved = [np.abs(a - b).max() > 0 for a, b in zip(after, before, strict=True)]
    assert np.mean(moved) > 0.5, f"{sum(moved)} of {len(moved)} weights moved"


def _searches(entry: Entry, small: bool) -> None:
    task = entry.make(small)
    data = _data(task, entry, 6)
    found = keras_lr.search(
        task.model, data["x"], data["y"], batch_size=data["batch_size"], epochs=1, low=1e-5,
        high=1e-3, fine_rounds=0, points=3, final_seeds=1, verbose=0,
    )  # fmt: skip
    assert 1e-5 <= found.answer.setting.learning_rate <= 1e-3


def _finds_in_a_file(entry: Entry, small: bool) -> None:
    task = entry.make(small)
    data = _data(task, entry)
    with tempfile.TemporaryDirectory() as folder:
        path, arrays = Path(folder) / "model.keras", Path(folder) / "train.npz"
        task.model.save(path)
        np.savez(
            arrays, **{k: v for k, v in {"x": data["x"], "y": data["y"]}.items() if v is not None}
        )
        command = [sys.executable, "-m", "keras_lr_cli", "find", str(path), "--data", str(arrays)]
        command += ["--steps", "10", "--batch-size", str(entry.batch), "--start-lr", "1e-6"]
        command += ["--import", "zoo", "--import", "keras_hub", "--json"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    answered = run.returncode == 0 or "suggestion" in run.stdout
    assert answered, (run.stderr or run.stdout).strip().splitlines()[-1]


CHECKS: dict[str, Callable[[Entry, bool], None]] = {
    "lr_find": _finds,
    "OneCycle": _cycles,
    "ReduceLROnPlateau": _waits_for_plateaus,
    "LayerwiseLR": _trains_layer_wise,
    "search": _searches,
    "keras-lr find": _finds_in_a_file,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("first", "steady", "works"))
    parser.add_argument("--model", required=True, choices=list(ENTRIES))
    parser.add_argument("--contender", default="fit", choices=("fit", "OneCycle", "lr_find"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    entry, answer = ENTRIES[options.model], {}
    if options.part == "first":
        answer = first(entry, options.small, options.contender)
    elif options.part == "steady":
        answer = steady(entry, options.small, options.rounds)
    else:
        answer = works(entry, options.small)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
