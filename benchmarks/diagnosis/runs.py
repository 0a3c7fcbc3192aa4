"""Real training runs, made to fail in each of twelve ways, and healthy runs.

The label of a run comes from its result and from comparison runs, never from the rules under test:
a rate is too high if a tenth of it, or less, ends with a much lower loss; a model underfits if a
larger one fits the same rows much better; and so on. A run that was meant to fail and did not is
left out.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

import keras_lr

TUNED_ON = ("digits", "diabetes", "moons")
HELD_OUT = ("breast", "mnist1d", "friedman")
TAIL = 5  # epochs that make the level at a run's end


@dataclasses.dataclass
class Run:
    """A finished run: its log as columns, and its fault ("healthy" for none)."""

    way: str
    data: str
    setup: str
    log: dict[str, list[float]]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)  # of `diagnose`


# Data


@dataclasses.dataclass(frozen=True)
class Data:
    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    classes: int  # 0 for a regression

    @property
    def loss(self) -> str:
        return "sparse_categorical_crossentropy" if self.classes else "mse"


@functools.cache
def data(name: str) -> Data:
    from sklearn import datasets

    rng = np.random.default_rng(0)
    if name == "digits":
        x, y = datasets.load_digits(return_X_y=True)
        x = x / 16.0
    elif name == "breast":
        x, y = datasets.load_breast_cancer(return_X_y=True)
    elif name == "moons":
        x, y = datasets.make_moons(900, noise=0.25, random_state=0)
    elif name == "mnist1d":
        from mnist1d.data import get_dataset_args, make_dataset

        made = make_dataset(get_dataset_args())
        x, y = made["x"][:1200], made["y"][:1200]
    elif name == "diabetes":
        x, y = datasets.load_diabetes(return_X_y=True)
    else:
        x, y = datasets.make_friedman1(900, noise=1.0, random_state=0)
    classes = 0 if name in ("diabetes", "friedman") else int(y.max()) + 1
    if name != "digits":
        x = (x - x.mean(0)) / x.std(0)
    y = y.astype("int32") if classes else ((y - y.mean()) / y.std()).astype("float32")
    order = rng.permutation(len(x))
    x, y = x[order].astype("float32"), y[order]
    cut = len(x) * 7 // 10
    return Data(x[:cut], y[:cut], x[cut:], y[cut:], classes)


# Models


def network(of: Data, kind: str) -> keras.Model:
    dense = layers.Dense
    body: dict[str, list[Any]] = {
        "mlp": [dense(64, "relu"), dense(64, "relu")],
        "tanh": [dense(32, "tanh")],
        "bn": [dense(64), layers.BatchNormalization(), layers.ReLU(), dense(32, "relu")],
        "large": [dense(256, "relu"), dense(256, "relu")],
        "narrow": [dense(1, "tanh")],
        "linear": [],
        "dropped": [layers.Dropout(0.8), dense(16, "relu"), layers.Dropout(0.8)],
        "decayed": [dense(32, "relu", kernel_regularizer=keras.regularizers.L2(0.3))],
        "deep": [dense(16, "sigmoid") for _ in range(4)],
    }
    head = dense(of.classes, "softmax") if of.classes else dense(1)
    return keras.Sequential([keras.Input(of.x.shape[1:]), *body[kind], head])


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.001),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.001),
}


class Columns(keras.callbacks.Callback):
    """The columns that CSVLogger would write, and the rate as TensorBoard logs it."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row = {"epoch": epoch, **(logs or {})}
        row["learning_rate"] = float(np.asarray(self.model.optimizer.learning_rate))
        for name, value in row.items():
            self.rows.setdefault(name, []).append(float(f"{float(value):.6g}"))


class Machine:
    """A compiled model that trains from new weights any number of times, compiled once."""

    def __init__(self, name: str, kind: str, optimizer: str) -> None:
        self.name, self.kind, self.optimizer_name = name, kind, optimizer
        self.data = data(name)
        self.model = network(self.data, kind)
        metrics = ["accuracy"] if self.data.classes else []
        self.optimizer = OPTIMIZERS[optimizer]()
        self.model.compile(self.optimizer, self.data.loss, metrics=metrics)
        self.optimizer.build(self.model.trainable_variables)

    def reset(self, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        self.model.set_weights(network(self.data, self.kind).get_weights())
        self.forget()

    def forget(self) -> None:
        """Reset the slots of the optimizer, as a restart without its state does."""
        for variable in self.optimizer.variables:
            if "learning_rate" not in variable.path:
                variable.assign(np.zeros(variable.shape, variable.dtype))

    def fit(
        self,
        rate: float | None,
        epochs: int,
        *,
        batch: int = 32,
        first: int = 0,
        callbacks: tuple[Any, ...] = (),
        rows: int | None = None,
        labels: Any = None,
        x: Any = None,
    ) -> dict[str, list[float]]:
        """Continue training, and return the columns."""
        if rate is not None:
            self.optimizer.learning_rate = rate
        columns = Columns()
        of = self.data
        y = of.y if labels is None else labels
        self.model.fit(
            (of.x if x is None else x)[:rows],
            y[:rows],
            validation_data=(of.x_val, of.y_val),
            validation_batch_size=512,
            batch_size=batch,
            epochs=epochs,
            initial_epoch=first,
            callbacks=[*callbacks, columns],
            verbose=0,
        )
        return columns.rows


@functools.cache
def machine(name: str, kind: str, optimizer: str) -> Machine:
    return Machine(name, kind, optimizer)


def tail(log: dict[str, list[float]], column: str = "loss", count: int = TAIL) -> float:
    """The level of the loss at the end of a run; infinite if it diverged."""
    values = np.array(log[column][-count:])
    return float(values.mean()) if np.isfinite(values).all() else np.inf


def without_rate(log: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: values for name, values in log.items() if name != "learning_rate"}


def every_other(log: dict[str, list[float]], place: int) -> dict[str, list[float]]:
    """Half of the logs without the rate, as CSVLogger omits it if no callback sets it."""
    return log if place % 2 else without_rate(log)


def joined(*logs: dict[str, list[float]]) -> dict[str, list[float]]:
    names = [name for name in logs[0] if all(name in log for log in logs)]
    return {name: [value for log in logs for value in log[name]] for name in names}


# A grid of rates, which says what is low, right and high

GRID_EPOCHS = 30


@functools.cache
def grid(name: str, kind: str, optimizer: str, seed: int) -> dict[float, dict[str, list[float]]]:
    of = machine(name, kind, optimizer)
    top = 1 if optimizer in ("adam", "rmsprop") else 5
    logs = {}
    for power in range(top - 11, top + 1):
        rate = float(f"{10 ** (power / 2):.3g}")
        of.reset(seed)
        logs[rate] = of.fit(rate, GRID_EPOCHS)
    return logs


def best_rate(name: str, kind: str, optimizer: str, seed: int = 1) -> float:
    """The rate with the lowest held-out loss at its best epoch, or one step below if close."""
    logs = grid(name, kind, optimizer, seed)
    ends = {rate: np.nanmin([*log["val_loss"], np.inf]) for rate, log in logs.items()}
    finite = {rate: end for rate, end in ends.items() if np.isfinite(tail(logs[rate]))}
    least = min(finite.values())
    return min(rate for rate, end in finite.items() if end < 1.05 * least)


def length(name: str, kind: str, optimizer: str) -> int:
    """Epochs after which a run at the best rate has its lowest held-out loss, from 8."""
    log = grid(name, kind, optimizer, 1)[best_rate(name, kind, optimizer)]
    return max(8, int(np.argmin(log["val_loss"])) + 1)


SETUPS = (("mlp", "adam"), ("mlp", "momentum"), ("tanh", "sgd"), ("bn", "rmsprop"))


# The ways to fail


def rates_that_fail(name: str) -> Iterator[Run]:
    """Too low, too high, diverged, NaN: the ends of the grid."""
    for place, (kind, optimizer) in enumerate(SETUPS):
        logs = grid(name, kind, optimizer, 2 + place)
        ends = {rate: tail(log) for rate, log in logs.items()}
        best = min(ends, key=lambda rate: ends[rate])
        # A tenth more of the best's whole fall must be missing; then the worst and the mildest.
        start = max(logs[best]["loss"][0], logs[min(logs)]["loss"][0])
        fall = start - ends[best]
        low = [r for r in logs if r < best and ends[r] > ends[best] + 0.35 * fall]
        high = [
            r
            for r in logs
            if r > best
            and np.isfinite(logs[r]["loss"]).all()
            and ends[r] > max(1.5 * ends[best], ends[best] + 0.05 * fall)
        ]
        apart = [
            r
            for r in high
            if ends[r] > 2 * min(logs[r]["loss"]) and ends[r] > 1.2 * logs[r]["loss"][0]
        ]
        broken = [r for r in logs if not np.isfinite(logs[r]["loss"]).all()]
        high = [r for r in high if r not in apart]
        for way, rates in (
            ("rate-too-low", low[:1] + low[1:][-1:]),
            ("rate-too-high", high[:1] + high[1:][-1:]),
            ("diverged", apart[:1]),
            ("not-a-number", broken[:1]),
        ):
            for number, rate in enumerate(rates):
                setup = f"{kind} {optimizer} {rate:g}"
                yield Run(way, name, setup, every_other(logs[rate], place + number))


def diverging(name: str) -> Iterator[Run]:
    """A rate that rises until the loss diverges."""
    for place, (kind, optimizer) in enumerate((*SETUPS[:3], ("linear", "sgd"))):
        of = machine(name, kind, optimizer)
        rate = best_rate(name, kind, optimizer) if kind != "linear" else 0.01
        of.reset(20 + place)
        climb = keras.callbacks.LearningRateScheduler(
            lambda epoch, _, rate=rate: rate * 2.0 ** max(0, epoch - 4)
        )
        log = of.fit(None, 20, callbacks=(climb,))
        losses = np.array(log["loss"])
        gone = np.flatnonzero(~np.isfinite(losses) | (losses > 3 * max(losses[0], 0.5)))
        if gone.size and np.isfinite(losses[gone[0]]):
            end = min(int(gone[0]) + 3, len(losses))
            cut = {column: values[:end] for column, values in log.items()}
            if np.isfinite(cut["loss"]).all() and tail(cut, count=2) > 2 * losses[0]:
                yield Run("diverged", name, f"{kind} {optimizer}, rate climbs", cut)


def not_a_number(name: str) -> Iterator[Run]:
    """NaN in a row of the data, and a rate that overflows."""
    of = machine(name, "mlp", "adam")
    of.reset(30)
    rate = best_rate(name, "mlp", "adam")
    log = of.fit(rate, 5)
    spoilt = of.data.x.copy()
    spoilt[7, 0] = np.nan
    rest = of.fit(rate, 9, first=5, x=spoilt)
    yield Run("not-a-number", name, "NaN in the data", joined(log, rest))
    of = machine(name, "mlp", "sgd")
    of.reset(31)
    log = of.fit(1e18, 6)
    if not np.isfinite(log["loss"]).all():
        yield Run("not-a-number", name, "mlp sgd, 1e18", without_rate(log))


def plateaus(name: str) -> Iterator[Run]:
    """A constant rate where only a lower one makes progress; a network of sigmoids that stalls."""
    for place, (kind, optimizer) in enumerate((("mlp", "momentum"), ("tanh", "sgd"))):
        of = machine(name, kind, optimizer)
        for times in (2.0, 5.0, 12.0):
            rate = best_rate(name, kind, optimizer) * times
            of.reset(40 + place)
            log = of.fit(rate, 45, batch=8)
            level = tail(log, count=10)
            more = of.fit(rate, 60, batch=8, first=45)
            of.reset(40 + place)
            of.fit(rate, 45, batch=8)
            cut = of.fit(rate / 10, 60, batch=8, first=45)
            if tail(more, count=10) > 0.93 * level and tail(cut) < 0.75 * level < np.inf:
                setup = f"{kind} {optimizer} x{times:g}, batch 8"
                yield Run("plateau", name, setup, without_rate(joined(log, more)))
    for seed in (50, 51, 52):
        of = machine(name, "deep", "sgd")
        of.reset(seed)
        log = of.fit(0.1, 40)
        if tail(log) > 0.97 * np.mean(log["loss"][2:6]):
            yield Run("plateau", name, f"deep sigmoids, seed {seed}", without_rate(log))


def overfitting(name: str) -> Iterator[Run]:
    """A large network with few rows, or with labels that are partly noise."""
    rng = np.random.default_rng(3)
    for seed, (rows, noise, kind, optimizer) in enumerate(
        ((100, 0.0, "large", "adam"), (200, 0.3, "large", "adam"), (150, 0.2, "mlp", "momentum"))
    ):
        of = machine(name, kind, optimizer)
        y = of.data.y.copy()
        swap = rng.random(len(y)) < noise
        y[swap] = rng.permutation(y[swap])
        rate = 1e-3 if optimizer == "adam" else 0.02
        of.reset(60 + seed)
        log = of.fit(rate, 60, rows=rows, labels=y)
        held_out = np.array(log["val_loss"])
        if tail(log, "val_loss") > 1.25 * held_out.min() and log["loss"][-1] < 0.5 * log["loss"][0]:
            setup = f"{kind} {optimizer}, {rows} rows, noise {noise:g}"
            yield Run("overfitting", name, setup, every_other(log, seed))


def underfitting(name: str) -> Iterator[Run]:
    """Too small, or too regularized; a larger network fits the same rows much better."""
    large = machine(name, "large", "adam")
    large.reset(70)
    reachable = tail(large.fit(1e-3, 40))
    for seed, kind in enumerate(("narrow", "linear", "dropped", "decayed")):
        of = machine(name, kind, "adam")
        of.reset(71 + seed)
        log = of.fit(0.01, 40)
        if tail(log) > 2 * reachable and tail(log) > 0.95 * np.mean(log["loss"][20:30]):
            yield Run("underfitting", name, f"{kind} adam", every_other(log, seed))


def restarts(name: str) -> Iterator[Run]:
    """Restarts that lose weights, or resume at too high a rate; and warm restarts."""
    for seed, (kind, optimizer) in enumerate((("mlp", "adam"), ("mlp", "momentum"))):
        of = machine(name, kind, optimizer)
        rate = best_rate(name, kind, optimizer)
        for number, what in enumerate(("weights lost", "rate back up", "noise on the weights")):
            of.reset(80 + 5 * seed + number)
            log = of.fit(rate, 15)
            of.forget()
            if what == "weights lost":
                of.reset(90 + seed)
                rest = of.fit(rate, 30, first=15)
            elif what == "rate back up":
                rest = of.fit(rate * 30, 17, first=15)
                rest = joined(rest, of.fit(rate, 30, first=17))
            else:
                weights = of.model.get_weights()
                rng = np.random.default_rng(seed)
                of.model.set_weights([w + rng.normal(0, 0.3, w.shape) for w in weights])
                rest = of.fit(rate, 30, first=15)
            before = tail(log, count=2)
            first = rest["loss"][0]
            if np.isfinite(first) and first > max(1.5 * before, before + 0.1 * log["loss"][0]):
                options = {"restarts": [15]} if number != 1 else {}
                setup = f"{kind} {optimizer}, {what}"
                both = joined(log, rest)
                yield Run(
                    "spikes-after-restart", name, setup,
                    both if number == 1 else without_rate(both), options,
                )  # fmt: skip
    of = machine(name, "mlp", "adam")
    rate = 30 * best_rate(name, "mlp", "adam")
    of.reset(95)
    cycle = keras.callbacks.LearningRateScheduler(
        lambda epoch, _: rate * 0.5 * (1 + np.cos(np.pi * (epoch % 10) / 10))
    )
    log = of.fit(None, 30, callbacks=(cycle,))
    if log["loss"][10] > max(1.5 * log["loss"][9], log["loss"][9] + 0.1 * log["loss"][0]):
        yield Run("spikes-after-restart", name, "mlp adam, warm restarts x30", log)


def cosine(rate: float, epochs: float) -> keras.callbacks.Callback:
    def at(epoch: int, _: float) -> float:
        return float(rate * 0.5 * (1 + np.cos(np.pi * min(1.0, epoch / epochs))))

    return keras.callbacks.LearningRateScheduler(at)


def schedules_that_do_not_fit(name: str) -> Iterator[Run]:
    """Decay that ends after a third of the run, and decay that hardly begins."""
    for seed, (kind, optimizer) in enumerate((("mlp", "adam"), ("mlp", "momentum"))):
        of = machine(name, kind, optimizer)
        rate = best_rate(name, kind, optimizer)
        for share in (0.25, 0.5):
            of.reset(100 + seed)
            log = of.fit(None, 32, callbacks=(cosine(rate, 32 * share),))
            setup = f"{kind} {optimizer}, cosine over {share:g} of the run"
            yield Run("schedule-ended-early", name, setup, log)
        of.reset(102 + seed)
        fall = keras.callbacks.LearningRateScheduler(lambda epoch, r: r * 0.6)
        log = of.fit(rate, 40, callbacks=(fall,))
        yield Run("schedule-ended-early", name, f"{kind} {optimizer}, x0.6 an epoch", log)
        for times in (5.0, 30.0):
            of.reset(110 + seed)
            log = of.fit(None, 32, callbacks=(cosine(rate, 32 * times),))
            setup = f"{kind} {optimizer}, cosine over {times:g} runs"
            if tail(log) < log["loss"][0]:
                yield Run("never-decayed", name, setup, log)
    of = machine(name, "tanh", "sgd")
    rate = 10 * best_rate(name, "tanh", "sgd")
    patient = keras.callbacks.ReduceLROnPlateau(patience=60)
    of.reset(120)
    log = of.fit(rate, 50, batch=8, callbacks=(patient,))
    more = of.fit(rate / 10, 60, batch=8, first=50)
    if tail(more) < 0.75 * tail(log, count=10) < np.inf:
        yield Run("never-decayed", name, "tanh sgd, a callback too patient", log)


def large_batches(name: str) -> Iterator[Run]:
    """A large batch with a scaled rate: unstable at the start, which a warm-up avoids."""
    size = 256
    for seed, (kind, optimizer) in enumerate((("mlp", "momentum"), ("mlp", "adam"))):
        of = machine(name, kind, optimizer)
        small = best_rate(name, kind, optimizer)
        for times in (1, 4, 16):
            rate = small * times * size / 32
            of.reset(130 + seed)
            log = of.fit(rate, 25, batch=size)
            of.reset(130 + seed)
            ramp = keras.callbacks.LearningRateScheduler(
                lambda epoch, _, rate=rate: rate * min(1.0, (epoch + 1) / 8)
            )
            warm = of.fit(None, 25, batch=size, callbacks=(ramp,))
            if tail(warm) < np.inf and tail(log) > 1.25 * tail(warm):
                setup = f"{kind} {optimizer} {rate:g}, batch {size}"
                yield Run("no-warm-up", name, setup, log, {"batch_size": size})


def changed_batches(name: str) -> Iterator[Run]:
    """The batch size grows or shrinks, and the rate does not change."""
    for seed, (kind, optimizer, sizes) in enumerate(
        (("mlp", "momentum", (8, 256)), ("mlp", "adam", (16, 128)), ("tanh", "sgd", (128, 8)))
    ):
        of = machine(name, kind, optimizer)
        rate = best_rate(name, kind, optimizer)
        of.reset(140 + seed)
        log = of.fit(rate, 10, batch=sizes[0])
        both = joined(log, of.fit(rate, 20, batch=sizes[1], first=10))
        both["batch_size"] = [sizes[0]] * 10 + [sizes[1]] * 10
        yield Run("batch-size-changed", name, f"{kind} {optimizer}, {sizes}", both)


# Healthy runs


def usual_plans(
    of: Machine, rate: float, epochs: int
) -> dict[str, Callable[[], dict[str, list[float]]]]:
    """Ways to train at a good rate, by name."""
    many = max(12, epochs)
    return {
        "constant": lambda: of.fit(rate, epochs),
        "constant, a third": lambda: of.fit(rate / 3, 2 * epochs),
        "cosine": lambda: of.fit(None, many, callbacks=(cosine(rate, many),)),
        "one-cycle": lambda: of.fit(
            None, many, callbacks=(keras_lr.OneCycle(max_lr=2 * rate, cycle_momentum=False),)
        ),
        "plateau callback": lambda: of.fit(
            rate, many, callbacks=(keras.callbacks.ReduceLROnPlateau(factor=0.3, patience=4),)
        ),
        "steps": lambda: of.fit(
            None, many,
            callbacks=(
                keras.callbacks.LearningRateScheduler(
                    lambda e, _: rate * 0.1 ** ((e >= many // 2) + (e >= 3 * many // 4))
                ),
            ),
        ),
        "early stopping": lambda: of.fit(
            rate, 80, callbacks=(keras.callbacks.EarlyStopping(patience=5),)
        ),
        "batch 8": lambda: of.fit(rate / 3, epochs, batch=8),
        "short": lambda: of.fit(rate, 3),
    }  # fmt: skip


def healthy(name: str) -> Iterator[Run]:
    """The best rate of a grid, and usual schedules below it, for as long as they help."""
    for place, (kind, optimizer) in enumerate(SETUPS):
        of = machine(name, kind, optimizer)
        rate = best_rate(name, kind, optimizer)
        epochs = length(name, kind, optimizer)
        plans = usual_plans(of, rate, epochs)
        for number, (what, train) in enumerate(plans.items()):
            if (number + place) % 2 == 1:
                continue
            of.reset(200 + 10 * place + number)
            log = train()
            constant = what.startswith(("constant", "early", "batch", "short"))
            kept = every_other(log, place) if constant else log
            yield Run("healthy", name, f"{kind} {optimizer}, {what}", kept)
    of = machine(name, "mlp", "adam")
    rate, epochs = best_rate(name, "mlp", "adam"), length(name, "mlp", "adam")
    half = epochs // 2
    of.reset(300)
    log = joined(of.fit(rate, half), of.fit(rate, epochs, first=half))
    yield Run("healthy", name, "resumed with everything", log, {"restarts": [half]})
    of.reset(301)
    log = of.fit(rate, half, batch=16)
    more = of.fit(rate * 2, epochs, batch=64, first=half)
    log = joined(log, more)
    log["batch_size"] = [16] * half + [64] * (epochs - half)
    yield Run("healthy", name, "batch and rate grown together", log)
    of.reset(302)
    many = 3 * max(4, epochs // 3)
    cycle = many // 3
    warm = keras.callbacks.LearningRateScheduler(
        lambda epoch, _: rate * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * (epoch % cycle) / cycle)))
    )
    yield Run("healthy", name, "warm restarts", of.fit(None, many, callbacks=(warm,)))
    of.reset(303)
    warm_up = keras_lr.WarmUp(steps=20)
    log = of.fit(rate * 2, max(12, epochs), batch=256, callbacks=(warm_up,))
    yield Run("healthy", name, "batch 256 with warm-up", log, {"batch_size": 256})


WAYS = (
    rates_that_fail, diverging, not_a_number, plateaus, overfitting, underfitting, restarts,
    schedules_that_do_not_fit, large_batches, changed_batches, healthy,
)  # fmt: skip


def runs(
    names: tuple[str, ...], report: Callable[[str], None] = print, ways: tuple[Any, ...] = WAYS
) -> Iterator[Run]:
    for name in names:
        for make in ways:
            found = list(make(name))
            report(f"{name}: {make.__name__}, {len(found)} runs")
            yield from found
        machine.cache_clear()
        grid.cache_clear()
