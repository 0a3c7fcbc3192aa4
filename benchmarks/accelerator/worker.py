"""One part of run.py, on one backend, in its own process; prints one line of JSON for each figure.

A row has its table, its place there, and `values` (such as the ratios of the rounds) with the
target for the median, or a `text`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path += [str(FOLDER.parent), str(FOLDER.parent / "speed")]

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tasks  # noqa: E402
from cost import seconds  # noqa: E402
from turns import Contender  # noqa: E402

import keras_lr  # noqa: E402

BACKEND = keras.backend.backend()
RATE = 1e-6
RAMP = {"start_lr": RATE / 10, "end_lr": RATE, "stop_factor": None, "verbose": 0}
ONE_CYCLE = "OneCycle, rate and momentum"


class Nothing(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        pass


PLAIN, EMPTY = "plain fit", "fit, empty on_train_batch_end"
CALLBACKS: dict[str, Callable[[], list[Any]]] = {
    PLAIN: list,
    EMPTY: lambda: [Nothing()],
    ONE_CYCLE: lambda: [keras_lr.OneCycle(RATE)],
    "ReduceLROnPlateau": lambda: [keras_lr.ReduceLROnPlateau(monitor="loss", patience=10**6)],
    "WarmUp": lambda: [keras_lr.WarmUp(steps=10)],
    "HalveOnDivergence": lambda: [keras_lr.HalveOnDivergence()],
    "LRLogger": lambda: [keras_lr.LRLogger()],
}
MARKS = {ONE_CYCLE: 1.02}


def tell(
    table: str,
    row: str,
    column: str,
    values: Iterable[float] = (),
    mark: float | None = None,
    text: str = "",
) -> None:
    figures = [float(f"{value:.5g}") for value in values]
    answer = {"table": table, "backend": BACKEND, "row": row, "column": column}
    answer |= {"values": figures, "mark": mark, "text": text}
    print(json.dumps(answer), flush=True)


# --- what the device holds


def gpu() -> Any:
    """JAX's device, or torch's module for it; None on a CPU."""
    if BACKEND == "jax":
        import jax

        return jax.devices()[0] if jax.default_backend() != "cpu" else None
    import torch

    return torch.cuda if torch.cuda.is_available() else None


def device_memory() -> dict[str, int] | None:
    """Bytes in use on the device now, and the peak so far; None on a CPU."""
    device = gpu()
    if device is None:
        return None
    gc.collect()
    if BACKEND == "jax":
        stats = device.memory_stats()
        return {"now": stats["bytes_in_use"], "peak": stats["peak_bytes_in_use"]}
    device.synchronize()
    return {"now": device.memory_allocated(), "peak": device.max_memory_allocated()}


# --- time


def speed(name: str, toy: bool) -> None:
    """Callbacks alternating with a plain `fit`, an epoch each; then `lr_find` with a `fit`."""
    callbacks(name, toy)
    gc.collect()
    range_test(name, toy)


def callbacks(name: str, toy: bool) -> None:
    size = tasks.size(name, toy)
    # A large model takes long to compile, and the more there are the less each is a part of it.
    names = list(CALLBACKS) if name == "MLP" and not toy else [PLAIN, EMPTY, ONE_CYCLE]
    epochs = 2 + size.rounds  # to compile, and to warm up

    def start(contender: str) -> Contender:
        model = tasks.compiled(name, toy)
        options = tasks.data(name, model, size.batch, size.epoch)
        options |= {"epochs": epochs, "verbose": 0}
        extra = CALLBACKS[contender]()
        return Contender(lambda turns: model.fit(**options, callbacks=[turns, *extra]))

    running = {each: start(each) for each in names}
    for _ in range(2):
        for contender in running.values():
            contender.epoch()
    gc.collect()
    gc.freeze()
    rng, spent = np.random.default_rng(0), {each: [] for each in names}  # type: ignore[var-annotated]
    for _ in range(size.rounds):
        for index in rng.permutation(len(names)):
            spent[names[index]].append(running[names[index]].epoch()[1])
    for contender in running.values():
        contender.finish()
    gc.unfreeze()
    plain = np.array(spent[PLAIN])
    tell("speed", "ms a step, plain fit", name, 1e3 * plain / size.epoch)
    for each in names[1:]:
        tell("speed", f"{each} / plain fit", name, spent[each] / plain, MARKS.get(each))
    for each in names[2:]:
        tell("speed", f"{each} / {EMPTY}", name, np.divide(spent[each], spent[EMPTY]))


def range_test(name: str, toy: bool) -> None:
    size = tasks.size(name, toy)
    fitted, found = tasks.compiled(name, toy), tasks.compiled(name, toy)
    options = tasks.data(name, fitted, size.batch, size.ramp)
    contenders = {
        "fit": lambda: fitted.fit(**options, verbose=0),
        "lr_find": lambda: keras_lr.lr_find(
            found, **options, **RAMP, steps=size.ramp, budget=size.ramp
        ),
    }
    found.fit(**tasks.data(name, found, size.batch, 1), verbose=0)  # builds the optimizer for good
    for function in contenders.values():
        function()
    rounds = []
    for _ in range(size.rounds):
        rounds.append({each: seconds(function) for each, function in contenders.items()})
    ratios = [each["lr_find"] / each["fit"] for each in rounds]
    tell("speed", f"lr_find / plain fit, {size.ramp} steps", name, ratios)
    if name != "ResNet50":  # each program compiles for a minute
        short_runs(name, size, fitted, found)


def short_runs(name: str, size: tasks.Size, fitted: Any, found: Any) -> None:
    """A test without a ramp, by short runs at several rates, over as many steps of `fit`."""
    budget = max(100, 2 * size.ramp)
    options = tasks.data(name, fitted, size.batch, budget)
    keras_lr.lr_find(found, **options, budget=budget, verbose=0)
    ratios = []
    for _ in range(size.rounds):
        plain = seconds(lambda: fitted.fit(**options, verbose=0)) / budget
        begin = time.perf_counter()
        test = keras_lr.lr_find(found, **options, budget=budget, verbose=0)
        ratios.append((time.perf_counter() - begin) / test.training_steps / plain)
    tell("speed", f"lr_find, budget of {budget} steps / plain fit", name, ratios)


def once(name: str, toy: bool, contender: str, timed: str) -> None:
    """One first call in a new process: its time, and the peak of device memory."""
    size = tasks.size(name, toy)
    warm = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    warm.compile("sgd", "mse")
    warm.fit(np.zeros((8, 4), "float32"), np.zeros((8, 1), "float32"), verbose=0)  # the libraries
    model = tasks.compiled(name, toy)
    steps = min(10, size.ramp)
    options = tasks.data(name, model, size.batch, steps)
    calls = {
        "fit": lambda: model.fit(**options, verbose=0),
        "OneCycle": lambda: model.fit(**options, verbose=0, callbacks=[keras_lr.OneCycle(RATE)]),
        "lr_find": lambda: keras_lr.lr_find(model, **options, **RAMP, steps=steps, budget=steps),
    }
    before, spent, after = device_memory(), seconds(calls[contender]), device_memory()
    tell(timed, contender, name, [spent])
    if before and after and timed != "first call, s":
        state = sum(v.value.nbytes for v in [*model.variables, *model.optimizer.variables])
        tell("peak, MB", contender, name, [after["peak"] / 1e6])
        tell("state, MB", contender, name, [state / 1e6])


# --- transfers


class Transfers:
    """Counts reads of the device by the host while it is entered."""

    how = ""

    def __enter__(self) -> Transfers:
        self.count = 0
        (self._enter_jax if BACKEND == "jax" else self._enter_torch)()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit()

    def _enter_jax(self) -> None:
        """First reads of the value of an array: JAX keeps the value."""
        from jax._src.array import ArrayImpl

        self.how = "first reads of the values of arrays"
        original, lock = ArrayImpl._value, threading.Lock()

        def value(array: Any) -> Any:
            if array._npy_value is None:
                with lock:
                    self.count += 1
            return original.fget(array)

        ArrayImpl._value = property(value)

        def put_back() -> None:
            ArrayImpl._value = original

        self._exit = put_back

    def _enter_torch(self) -> None:
        """Warnings of torch's debug mode; on a CPU, where nothing waits, there are none."""
        import torch

        self.how = "warnings of torch.cuda.set_sync_debug_mode"
        caught = warnings.catch_warnings(record=True)
        found = caught.__enter__()
        warnings.simplefilter("always")
        on = torch.cuda.is_available()
        if on:
            torch.cuda.set_sync_debug_mode("warn")

        def put_back() -> None:
            if on:
                torch.cuda.set_sync_debug_mode("default")
            self.count = sum("synchroniz" in str(each.message) for each in found or ())
            caught.__exit__(None, None, None)

        self._exit = put_back


class GuardLog:
    """What JAX's transfer guard logs about reads of the device; nothing on a CPU."""

    def __enter__(self) -> GuardLog:
        import jax

        self._file = tempfile.TemporaryFile()
        sys.stderr.flush()
        self._stderr = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        jax.config.update("jax_transfer_guard_device_to_host", "log_explicit")
        return self

    def __exit__(self, *_: object) -> None:
        import jax

        jax.config.update("jax_transfer_guard_device_to_host", "allow")
        sys.stderr.flush()
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        self._file.seek(0)
        self.count = len(re.findall(rb"device-to-host transfer", self._file.read()))


def transfers(toy: bool) -> None:
    """Per step: the difference between a run of 60 steps and one of 20 steps, over 40."""
    counters: dict[str, Callable[[], Any]] = {"": Transfers}
    if BACKEND == "jax" and gpu() is not None:
        counters["by JAX's guard"] = GuardLog
    short, long = (3, 6) if toy else (20, 60)

    def counted(make: Callable[[], Any], run: Callable[[int], Any]) -> float:
        counts = []
        for steps in (short, long):
            with make() as counter:
                run(steps)
            counts.append(counter.count)
        return (counts[1] - counts[0]) / (long - short)

    def fit(contender: str, steps: int) -> None:
        model = tasks.compiled("MLP", toy)
        options = tasks.data("MLP", model, 4, steps)
        model.fit(**options, verbose=0, callbacks=CALLBACKS[contender]())

    def find(steps: int) -> None:
        model = tasks.compiled("MLP", toy)
        options = tasks.data("MLP", model, 4, steps)
        keras_lr.lr_find(model, **options, **RAMP, steps=steps, budget=steps)

    for how, make in counters.items():
        column = f"MLP {how}".strip()
        plain = None
        for contender in list(CALLBACKS)[: 3 if toy else None]:
            count = counted(make, lambda steps, each=contender: fit(each, steps))
            plain = count if plain is None else plain
            if contender == PLAIN:
                tell("transfers", "a step of a plain fit", column, [count])
            else:
                mark = None if contender == EMPTY else 0.0
                tell("transfers", f"{contender}, more", column, [count - plain], mark)
        tell(
            "transfers",
            "a step of lr_find, less those of a fit",
            column,
            [counted(make, find) - plain],
            0.0,
        )


# --- sixteen candidates


def candidates(toy: bool) -> None:
    """Sixteen rates in one compiled program, and the same program for one rate at a time."""
    import jax
    import jax.numpy as jnp

    many, steps, batch = 16, (4 if toy else 200), (4 if toy else 128)
    rates = np.geomspace(1e-4, 1e-1, many).astype("float32")
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def made(seed: int) -> tuple[Any, Callable, Callable, tuple[Any, ...]]:
        keras.utils.set_random_seed(seed)
        model = tasks.mlp(toy)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss_of)
        model.optimizer.build(model.trainable_variables)
        places = [v is model.optimizer._learning_rate for v in model.optimizer.variables]
        groups = (model.trainable_variables, model.non_trainable_variables)
        groups = (*groups, model.optimizer.variables)
        # Copies: `fit` overwrites its own.
        start = [[jnp.array(v.value, copy=True) for v in group] for group in groups]

        def loss(trainable: Any, rest: Any, x: Any, y: Any) -> Any:
            out, rest = model.stateless_call(trainable, rest, x, training=True)
            return loss_of(y, out), rest

        def step(state: Any, data: Any) -> Any:
            trainable, rest, slots = state
            (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(
                trainable, rest, *data
            )
            trainable, slots = model.optimizer.stateless_apply(slots, gradients, trainable)
            return (trainable, rest, slots), value

        def run(rate: Any, x: Any, y: Any) -> Any:
            slots = [rate if at else v for at, v in zip(places, start[2], strict=True)]
            return jax.lax.scan(step, (start[0], start[1], slots), (x, y))[1]

        rng = np.random.default_rng(seed)
        x = rng.normal(size=(steps, batch, 64)).astype("float32")
        y = rng.integers(0, 10, (steps, batch), dtype="int32")
        data = tuple(jax.device_put(each) for each in (x, y))
        one, side_by_side = jax.jit(run), jax.jit(jax.vmap(run, in_axes=(0, None, None)))
        return model, one, side_by_side, data

    differences = []
    for seed in range(3):
        model, one, side_by_side, data = made(seed)
        with jax.default_matmul_precision("highest"):
            alone = np.stack([one(rate, *data) for rate in rates])
            together = np.asarray(side_by_side(rates, *data))
        finite = np.isfinite(alone) & (alone < 10)  # of the others only that they diverge
        differences.append(np.max(np.abs(together[finite] / alone[finite] - 1)))
    weights = model.count_params()
    tell("candidates", f"weights of the model, {steps} steps", "MLP", [weights])
    tell("candidates", "largest relative difference of a loss, 3 seeds", "MLP", differences, 1e-3)
    x, y = (np.asarray(each).reshape(-1, *each.shape[2:]) for each in data)
    model, one, side_by_side, data = made(0)
    on_device = [jnp.asarray(rate) for rate in rates]
    runs = {
        "one": lambda: jax.block_until_ready(one(on_device[0], *data)),
        "sixteen": lambda: [one(rate, *data).block_until_ready() for rate in on_device],
        "together": lambda: side_by_side(rates, *data).block_until_ready(),
        "fit": lambda: model.fit(x, y, batch_size=batch, shuffle=False, verbose=0),
    }
    for run in runs.values():
        run()
    spent = [{name: seconds(run) for name, run in runs.items()} for _ in range(2 if toy else 9)]

    def ratio(above: str, below: str) -> list[float]:
        return [each[above] / each[below] for each in spent]

    tell("candidates", "16 side by side / one", "MLP", ratio("together", "one"), 3.0)
    tell(
        "candidates",
        "16 side by side / 16 one after the other",
        "MLP",
        ratio("together", "sixteen"),
    )
    tell("candidates", "16 side by side / one plain fit", "MLP", ratio("together", "fit"))
    tell("candidates", "one / one plain fit", "MLP", ratio("one", "fit"))


# --- does it do what it says on this device?


def checks(toy: bool) -> None:
    import checks as module

    for name, check in module.CHECKS.items():
        try:
            figures, mark = check(device_memory)
            tell("checks", name, "largest of 3 seeds", figures, mark)
        except Exception as error:
            traceback.print_exc()
            tell("checks", name, "largest of 3 seeds", text=f"failed: {type(error).__name__}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="+")
    parser.add_argument("--model", default="MLP", choices=list(tasks.MODELS))
    parser.add_argument("--contender", default="fit", choices=("fit", "OneCycle", "lr_find"))
    parser.add_argument("--toy", action="store_true")
    options = parser.parse_args()
    name, toy = options.model, options.toy
    parts: dict[str, Callable[[], None]] = {
        "checks": lambda: checks(toy),
        "speed": lambda: speed(name, toy),
        "transfers": lambda: transfers(toy),
        "candidates": lambda: candidates(toy),
        "once": lambda: once(name, toy, options.contender, "first call, s"),
        "memory": lambda: once(name, toy, options.contender, "again, s"),
    }

    def everything() -> None:
        checks(toy)
        transfers(toy)
        if BACKEND == "jax":
            candidates(toy)
        for each in tasks.MODELS:
            speed(each, toy)
        for contender in ("fit", "OneCycle", "lr_find"):
            once(name, toy, contender, "first call, s")

    parts["everything"] = everything
    for part in options.part:
        parts[part]()


if __name__ == "__main__":
    main()
