"""Fifteen training tasks on the data of `data_sets.py`, and a trainer of many runs side by side.

Networks, losses and optimizers are those of `benchmarks/suggestion/tasks.py`; added here are an
LSTM, a pretrained start, and Muon with the formulas and defaults of Keras.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from data_sets import CHARACTERS, CONTEXT, SIDE, data
from jax.flatten_util import ravel_pytree

sys.path.append(str(Path(__file__).resolve().parents[1] / "suggestion"))

from tasks import (
    attention,
    conv,
    crossentropy,
    dense,
    gru,
    linear,
    mlp,
    squared,
    update,
)

SEEDS = (0, 1, 2)
SIDE_BY_SIDE = 3  # rates that one call trains
PROBED = 200  # updates whose losses are kept
EVERY = 25  # updates between two looks at the held-out sample


def lstm(features: int, units: int, tokens: int) -> tuple:
    """One layer over tokens that predicts the next one; forget gates start open, as in Keras."""

    def init(key):
        k = jax.random.split(key, 4)
        table = jax.random.uniform(k[3], (tokens, features), minval=-0.05, maxval=0.05)
        x, h = dense(k[0], features, 4 * units), dense(k[1], units, 4 * units)
        x["b"] = x["b"].at[units : 2 * units].set(1.0)
        return {"embedding": table, "x": x, "h": h["w"], "out": dense(k[2], units, tokens)}

    def apply(p, x):
        inputs = jnp.swapaxes(linear(p["x"], p["embedding"][x]), 0, 1)

        def step(carry, a):
            h, c = carry
            i, f, g, o = jnp.split(a + h @ p["h"], 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((x.shape[0], units))
        return linear(p["out"], jnp.swapaxes(jax.lax.scan(step, (zero, zero), inputs)[1], 0, 1))

    return init, apply


def orthogonal(g: jax.Array) -> jax.Array:
    """Five Newton-Schulz steps towards the nearest semi-orthogonal matrix."""
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def muon(p, g, m, v, t, lr):
    """Keras's Muon for one variable: matrices orthogonalized, Adam for what has other shapes."""
    p = p * (1 - 0.004 * lr)
    if p.ndim != 2:
        return update("adam", p, g, m, v, t, lr)
    m = 0.95 * m + g
    step = orthogonal(g + 0.95 * m)
    return p - lr * 0.2 * np.sqrt(max(p.shape)) * step, m, v


@dataclass(frozen=True)
class Task:
    data: str
    net: str
    optimizer: str
    batch: int = 32
    pretrained_on: str | None = None

    @property
    def name(self) -> str:
        start = f"-from-{self.pretrained_on}" if self.pretrained_on else ""
        return f"{self.data}-{self.net}-{self.optimizer}{start}"

    def parts(self) -> tuple[Callable, Callable, Callable]:
        """init(key), apply(parameters, x), loss(outputs, y)."""
        n, c, relu = SIDE * SIDE, len(CHARACTERS), jax.nn.relu
        if self.data == "text":
            made = {
                "attention": lambda: attention(CONTEXT, 24, c, tokens=c),
                "gru": lambda: gru(16, 32, c, tokens=c, each=True),
                "lstm": lambda: lstm(16, 32, c),
            }[self.net]()
            return (*made, crossentropy)
        if self.data.startswith("glyphs"):
            outputs = {"glyphs": 26, "glyphs-other": 36, "glyphs-self": n}[self.data]
            loss = squared if self.data == "glyphs-self" else crossentropy
            made = {
                "conv": lambda: conv((SIDE, SIDE, 1), 8, outputs),
                "convnorm": lambda: conv((SIDE, SIDE, 1), 8, outputs, normed=True),
                "deep": lambda: mlp((n, 48, 48, 48, outputs), relu),
                "auto": lambda: mlp((n, 32, 8, 32, outputs), relu),
            }[self.net]()
            return (*made, loss)
        if self.data == "mnist1d-20k":
            made = {
                "wide": lambda: mlp((40, 96, 10), relu),
                "conv": lambda: conv((40, 1), 8, 10),
                "attention": lambda: attention(10, 24, 10, features=4),
            }[self.net]()
            return (*made, crossentropy)
        inputs = data(self.data).train[0].shape[1]
        made = {
            "dense": lambda: mlp((inputs, 64, 1), relu),
            "deep": lambda: mlp((inputs, 48, 48, 48, 1), relu),
            "normed": lambda: mlp((inputs, 64, 64, 1), relu, normed=True),
        }[self.net]()
        return (*made, squared)


TASKS = (
    Task("glyphs", "deep", "sgd"),
    Task("diamonds", "dense", "adam"),
    Task("mnist1d-20k", "wide", "rmsprop", 64),
    Task("text", "gru", "adam", 8),
    Task("text", "attention", "adamw", 8),
    Task("glyphs", "conv", "momentum", 16),
    Task("glyphs-self", "auto", "adamw"),
    Task("movies", "deep", "lion"),
    Task("glyphs", "conv", "adam", 16, pretrained_on="glyphs-other"),
    Task("mnist1d-20k", "attention", "muon", 16),
    Task("regression", "deep", "sgd"),
    Task("text", "lstm", "rmsprop", 8),
    Task("diamonds", "normed", "momentum", 64),
    Task("glyphs", "convnorm", "lion", 16),
    Task("text", "attention", "muon", 8),
)


class Trainer:
    """Trains one task at several rates and from every seed, side by side."""

    def __init__(self, task: Task, longest: int = 8000) -> None:
        self.task, self.longest = task, longest
        parts = data(task.data)
        self.size = len(parts.train[0])
        init, apply, loss = task.parts()
        train, sample, final = jax.tree.map(jnp.asarray, (parts.train, parts.sample, parts.final))
        self._init = init
        unravel = ravel_pytree(init(jax.random.key(0)))[1]

        def value(p, x, y):
            return loss(apply(unravel(p), x), y)

        def updated(p, g, m, v, t, lr):
            if task.optimizer != "muon":
                return update(task.optimizer, p, g, m, v, t, lr)
            trees = [unravel(a) for a in (p, g, m, v)]
            structure = jax.tree.structure(trees[0])
            leaves = zip(*(jax.tree.leaves(tree) for tree in trees), strict=True)
            found = [muon_of(*leaf, t, lr) for leaf in leaves]
            return tuple(
                ravel_pytree(jax.tree.unflatten(structure, [one[k] for one in found]))[0]
                for k in range(3)
            )

        # A table of tokens has as many rows as there are characters: Adam, as Keras does.
        def muon_of(p, g, m, v, t, lr):
            if p.ndim == 2 and len(CHARACTERS) in p.shape[:1]:
                return update("adam", p * (1 - 0.004 * lr), g, m, v, t, lr)
            return muon(p, g, m, v, t, lr)

        def one(p, m, v, x, y, t, lr):
            found, g = jax.value_and_grad(value)(p, x, y)
            return *updated(p, g, m, v, t, lr), found

        seeds = jax.vmap(one, (0, 0, 0, 0, 0, None, None))
        all_of = jax.vmap(seeds, (0, 0, 0, None, None, None, 0))
        look = jax.vmap(jax.vmap(value, (0, None, None)), (0, None, None))

        def run(p, rates, shape, rows, n):
            def step(i, carry):
                p, m, v, losses, held = carry
                x, y = train[0][rows[:, i]], train[1][rows[:, i]]
                p, m, v, found = all_of(p, m, v, x, y, i + 1.0, rates * shape[i])
                losses = losses.at[:, :, jnp.minimum(i, PROBED)].set(found)
                held = jax.lax.cond(
                    ((i + 1) % EVERY == 0) & (i < PROBED),
                    lambda: held.at[:, :, i // EVERY].set(look(p, *sample)),
                    lambda: held,
                )
                return p, m, v, losses, held

            zero = jnp.zeros_like(p)
            losses = jnp.full((*p.shape[:2], PROBED + 1), jnp.nan)
            held = jnp.full((*p.shape[:2], PROBED // EVERY), jnp.nan)
            out = jax.lax.fori_loop(0, n, step, (p, zero, zero, losses, held))
            p, losses, held = out[0], out[3], out[4]
            return losses[:, :, :PROBED], held, look(p, *final), look(p, *sample), p

        self._run = jax.jit(run)

    @functools.cached_property
    def _start(self) -> jax.Array:
        """The weights of the seeds, one row each."""
        if self.task.pretrained_on is None:
            return jnp.stack([ravel_pytree(self._init(jax.random.key(s)))[0] for s in SEEDS])
        before = Task(self.task.pretrained_on, self.task.net, self.task.optimizer, self.task.batch)
        body = Trainer(before, 2000).weights(1e-3, 2000)
        found = []
        for seed, trained in zip(SEEDS, body, strict=True):
            fresh = self._init(jax.random.key(seed))
            found.append(ravel_pytree([*trained[:-1], fresh[-1]])[0])  # a new last layer
        return jnp.stack(found)

    def weights(self, rate: float, updates: int) -> list:
        unravel = ravel_pytree(self._init(jax.random.key(0)))[1]
        flat = self._call(np.full(1, rate), np.ones(updates), order=9)[4]
        return [unravel(row) for row in flat[0]]

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def _rows(self, order: int) -> np.ndarray:
        batch = self.task.batch
        whole = self.size // batch
        epochs = -(-self.longest // whole)
        made = []
        for seed in SEEDS:
            rng = np.random.default_rng(1000 * seed + order)
            found = [rng.permutation(self.size)[: whole * batch] for _ in range(epochs)]
            made.append(np.concatenate(found).reshape(-1, batch)[: self.longest])
        return np.array(made, "int32")

    def _call(self, rates: np.ndarray, shape: np.ndarray, order: int) -> tuple:
        padded = np.zeros(self.longest, "float32")
        padded[: len(shape)] = shape
        p = jnp.broadcast_to(self._start, (len(rates), *self._start.shape))
        return self._run(p, rates.astype("float32"), padded, self._rows(order), len(shape))

    def train(self, rates: np.ndarray, shape: np.ndarray, order: int = 0) -> tuple:
        """Train at `rate * shape` for each rate.

        Returns:
            Batch losses of the first 200 updates, losses of the held-out sample after each 25 of
            them, and at the end the loss on the rows for the truth and on the sample, all of shape
            (rates, seeds, ...).
        """
        found = []
        for i in range(0, len(rates), SIDE_BY_SIDE):
            few = np.asarray(rates[i : i + SIDE_BY_SIDE], float)
            full = np.concatenate([few, np.full(SIDE_BY_SIDE - len(few), few[-1])])
            out = self._call(full, shape, order)[:4]
            found.append([np.asarray(a, float)[: len(few)] for a in out])
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
