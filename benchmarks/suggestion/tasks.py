"""Small real training tasks in plain JAX, fast enough to train thousands of times on one core.

Each task is a data set, a network, a loss and an optimizer with the formulas and defaults of
Keras. A `Runner` trains it from a given seed with any sequence of learning rates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

LONGEST = 512  # updates one call can make


@dataclass(frozen=True)
class Data:
    """Inputs and targets, split once: train, held-out sample for the test, held-out for truth."""

    train: tuple[np.ndarray, np.ndarray]
    sample: tuple[np.ndarray, np.ndarray]
    final: tuple[np.ndarray, np.ndarray]


def split(x: np.ndarray, y: np.ndarray, sample: int = 256) -> Data:
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    sample = min(sample, len(x) // 5)
    final = min(1000, len(x) // 4)
    cut = len(x) - sample - final
    parts = [slice(0, cut), slice(cut, cut + sample), slice(cut + sample, None)]
    return Data(*((x[part], y[part]) for part in parts))


def standard(x: np.ndarray) -> np.ndarray:
    return ((x - x.mean(0)) / (x.std(0) + 1e-8)).astype("float32")


# Data sets


@functools.cache
def data(name: str) -> Data:
    from sklearn import datasets

    rng = np.random.default_rng(1)
    if name.startswith("digits"):
        x, y = datasets.load_digits(return_X_y=True)
        x = x.astype("float32") / (1.0 if name.endswith("raw") else 16.0)
        return split(x, x if name.endswith("self") else y.astype("int32"))
    if name == "breast":
        x, y = datasets.load_breast_cancer(return_X_y=True)
        return split(standard(x), y.astype("int32"))
    if name == "wine":
        x, y = datasets.load_wine(return_X_y=True)
        return split(standard(x), y.astype("int32"))
    if name.startswith("diabetes"):
        x, y = datasets.load_diabetes(return_X_y=True)
        y = y.astype("float32")[:, None]
        return split(standard(x), y if name.endswith("raw") else standard(y))
    if name == "friedman":
        x, y = datasets.make_friedman1(3000, noise=0.3, random_state=0)
        return split(standard(x), standard(y[:, None]))
    if name == "spiral":
        arm = rng.integers(0, 3, 3000)
        t = np.sqrt(rng.uniform(0.02, 1, 3000)) * 2.5 * np.pi
        angle = t + arm * 2 * np.pi / 3
        x = np.stack([t * np.cos(angle), t * np.sin(angle)], 1) / 4
        return split((x + rng.normal(0, 0.05, x.shape)).astype("float32"), arm.astype("int32"))
    if name == "mnist1d":
        from mnist1d.data import get_dataset_args, make_dataset

        made = make_dataset(get_dataset_args())
        x = np.concatenate([made["x"], made["x_test"]])
        y = np.concatenate([made["y"], made["y_test"]])
        return split(x.astype("float32"), y.astype("int32"))
    if name == "adding":  # sum of the two marked numbers of a sequence of 24
        x = np.zeros((3000, 24, 2), "float32")
        x[:, :, 0] = rng.uniform(0, 1, (3000, 24))
        marks = np.stack([rng.choice(24, 2, replace=False) for _ in range(3000)])
        np.put_along_axis(x[:, :, 1], marks, 1.0, axis=1)
        return split(x, np.sum(x[:, :, 0] * x[:, :, 1], 1, keepdims=True).astype("float32"))
    if name == "markov":  # next token of a second-order chain over 12 letters
        table = rng.dirichlet(np.full(12, 0.15), (12, 12))
        text = np.zeros((2000, 21), "int32")
        text[:, :2] = rng.integers(0, 12, (2000, 2))
        for i in range(2, 21):
            cumulated = table[text[:, i - 2], text[:, i - 1]].cumsum(1)
            text[:, i] = np.minimum((rng.uniform(size=(2000, 1)) > cumulated).sum(1), 11)
        return split(text[:, :-1], text[:, 1:])
    raise ValueError(f"No data set {name!r}.")


# Networks: init(key, ...) -> parameters, apply(parameters, x) -> outputs


def dense(key: jax.Array, n_in: int, n_out: int, scale: float = 1.0) -> dict[str, jax.Array]:
    limit = scale * np.sqrt(6.0 / (n_in + n_out))
    return {
        "w": jax.random.uniform(key, (n_in, n_out), minval=-limit, maxval=limit),
        "b": jnp.zeros(n_out),
    }


def linear(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ p["w"] + p["b"]


def norm(x: jax.Array) -> jax.Array:
    return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-3)


def mlp(sizes: tuple[int, ...], activation: Callable, normed: bool = False) -> tuple:
    def init(key):
        keys = jax.random.split(key, len(sizes))
        return [dense(k, a, b) for k, a, b in zip(keys, sizes, sizes[1:], strict=False)]

    def apply(p, x):
        for layer in p[:-1]:
            x = linear(layer, x)
            x = activation(norm(x) if normed else x)
        return linear(p[-1], x)

    return init, apply


def conv(shape: tuple[int, ...], channels: int, classes: int, normed: bool = False) -> tuple:
    """Two convolutions of 3 with stride 2 (1-D or 2-D), then one dense layer."""
    axes = len(shape) - 1
    letters = "HW"[:axes]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    left = [-(-s // 4) for s in shape[:-1]]

    def init(key):
        k = jax.random.split(key, 3)
        window = 3**axes
        p = []
        for key_i, a, b in ((k[0], shape[-1], channels), (k[1], channels, 2 * channels)):
            limit = np.sqrt(6.0 / (window * (a + b)))
            size = (3,) * axes + (a, b)
            w = jax.random.uniform(key_i, size, minval=-limit, maxval=limit)
            p.append({"w": w, "b": jnp.zeros(b)})
        return [*p, dense(k[2], int(np.prod(left)) * 2 * channels, classes)]

    def apply(p, x):
        x = x.reshape((-1, *shape))
        for layer in p[:2]:
            x = jax.lax.conv_general_dilated(
                x, layer["w"], (2,) * axes, "SAME", dimension_numbers=numbers
            )
            x = x + layer["b"]
            x = jax.nn.relu(norm(x) if normed else x)
        return linear(p[2], x.reshape((x.shape[0], -1)))

    return init, apply


def gru(features: int, units: int, outputs: int, tokens: int = 0, each: bool = False) -> tuple:
    def init(key):
        k = jax.random.split(key, 4)
        p = {
            "x": dense(k[0], features, 3 * units),
            "h": dense(k[1], units, 3 * units),
            "out": dense(k[2], units, outputs),
        }
        if tokens:
            p["table"] = jax.random.uniform(k[3], (tokens, features), minval=-0.05, maxval=0.05)
        return p

    def apply(p, x):
        x = p["table"][x] if tokens else x.reshape((x.shape[0], -1, features))
        inputs = jnp.swapaxes(linear(p["x"], x), 0, 1)

        def step(h, a):
            b = linear(p["h"], h)
            z, r = (
                jax.nn.sigmoid(a[:, :units] + b[:, :units]),
                jax.nn.sigmoid(a[:, units : 2 * units] + b[:, units : 2 * units]),
            )
            h = z * h + (1 - z) * jnp.tanh(a[:, 2 * units :] + r * b[:, 2 * units :])
            return h, h

        last, states = jax.lax.scan(step, jnp.zeros((x.shape[0], units)), inputs)
        return linear(p["out"], jnp.swapaxes(states, 0, 1) if each else last)

    return init, apply


def attention(length: int, width: int, outputs: int, tokens: int = 0, features: int = 0) -> tuple:
    """One pre-norm transformer block; causal over tokens, pooled over feature rows."""

    def init(key):
        k = jax.random.split(key, 7)
        first = (
            jax.random.uniform(k[0], (tokens, width), minval=-0.05, maxval=0.05)
            if tokens
            else dense(k[0], features, width)
        )
        return {
            "first": first,
            "place": jax.random.uniform(k[1], (length, width), minval=-0.05, maxval=0.05),
            "qkv": dense(k[2], width, 3 * width),
            "mix": dense(k[3], width, width),
            "up": dense(k[4], width, 2 * width),
            "down": dense(k[5], 2 * width, width),
            "out": dense(k[6], width, outputs),
        }

    def apply(p, x):
        if tokens:
            h = p["first"][x]
        else:
            h = linear(p["first"], x.reshape((-1, length, features)))
        h = h + p["place"]
        heads = linear(p["qkv"], norm(h)).reshape((h.shape[0], length, 3, 2, width // 2))
        q, k, v = heads[:, :, 0], heads[:, :, 1], heads[:, :, 2]
        scores = jnp.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(width // 2)
        if tokens:
            scores = jnp.where(np.tril(np.ones((length, length), bool)), scores, -1e9)
        mixed = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(scores), v)
        h = h + linear(p["mix"], mixed.reshape(h.shape))
        h = h + linear(p["down"], jax.nn.gelu(linear(p["up"], norm(h))))
        return linear(p["out"], norm(h) if tokens else norm(h.mean(1)))

    return init, apply


# Losses


def crossentropy(outputs: jax.Array, y: jax.Array) -> jax.Array:
    logp = jax.nn.log_softmax(outputs)
    return -jnp.mean(jnp.take_along_axis(logp, y[..., None], -1))


def squared(outputs: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((outputs - y) ** 2)


def absolute(outputs: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(jnp.abs(outputs - y))


def likelihood(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Gaussian negative log-likelihood; below zero once the noise is learned."""
    mean, log_scale = outputs[:, :1], outputs[:, 1:]
    return jnp.mean(log_scale + 0.5 * ((y - mean) * jnp.exp(-log_scale)) ** 2)


# Optimizers on one flat vector, Keras's formulas and defaults


def update(name: str, p, g, m, v, t, lr):
    if name == "sgd":
        return p - lr * g, m, v
    if name in ("momentum", "nesterov"):
        m = 0.9 * m - lr * g
        return p + (0.9 * m - lr * g if name == "nesterov" else m), m, v
    if name == "rmsprop":
        v = 0.9 * v + 0.1 * g * g
        return p - lr * g / jnp.sqrt(v + 1e-7), m, v
    if name == "adagrad":
        v = v + g * g
        return p - lr * g / jnp.sqrt(0.1 + v + 1e-7), m, v
    if name in ("adam", "adamw"):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        scale = lr * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        p = p * (1 - 0.004 * lr) if name == "adamw" else p
        return p - scale * m / (jnp.sqrt(v) + 1e-7), m, v
    if name == "lion":
        p = p - lr * jnp.sign(0.9 * m + 0.1 * g)
        return p, 0.99 * m + 0.01 * g, v
    raise ValueError(f"No optimizer {name!r}.")


@dataclass(frozen=True)
class Task:
    data: str
    net: str
    optimizer: str
    batch: int = 32

    @property
    def name(self) -> str:
        return f"{self.data}-{self.net}-{self.optimizer}"

    def parts(self) -> tuple[Callable, Callable, Callable]:
        relu, tanh = jax.nn.relu, jnp.tanh
        n_in = {"digits": 64, "digits-raw": 64, "digits-self": 64, "breast": 30, "wine": 13}
        n_in |= {"diabetes": 10, "diabetes-raw": 10, "friedman": 10, "spiral": 2, "mnist1d": 40}
        classes = {"digits": 10, "digits-raw": 10, "breast": 2, "wine": 3, "spiral": 3}
        classes |= {"mnist1d": 10, "digits-self": 64, "markov": 12}
        a, b = n_in.get(self.data, 2), classes.get(self.data, 1)
        loss: Callable = crossentropy
        if self.data.startswith(("diabetes", "friedman", "adding")) or self.data == "digits-self":
            loss = squared
        net: Any
        if self.net == "linear":
            net = mlp((a, b), relu)
        elif self.net == "dense":
            net = mlp((a, 64, b), relu)
        elif self.net == "deep":
            net = mlp((a, 48, 48, 48, 48, b), relu)
        elif self.net == "tanh":
            net = mlp((a, 48, 48, b), tanh)
        elif self.net == "normed":
            net = mlp((a, 64, 64, b), relu, normed=True)
        elif self.net == "l1":
            net, loss = mlp((a, 64, b), relu), absolute
        elif self.net == "nll":
            net, loss = mlp((a, 64, 2), relu), likelihood
        elif self.net == "auto":
            net = mlp((a, 32, 8, 32, b), relu)
        elif self.net.startswith("conv"):
            shape = (40, 1) if self.data == "mnist1d" else (8, 8, 1)
            net = conv(shape, 8, b, normed=self.net == "convnorm")
        elif self.net == "gru":
            net = {
                "mnist1d": lambda: gru(2, 24, 10),
                "adding": lambda: gru(2, 24, 1),
                "markov": lambda: gru(12, 32, 12, tokens=12, each=True),
            }[self.data]()
        elif self.net == "attention":
            net = {
                "digits": lambda: attention(8, 24, 10, features=8),
                "mnist1d": lambda: attention(10, 24, 10, features=4),
                "markov": lambda: attention(20, 24, 12, tokens=12),
            }[self.data]()
        else:
            raise ValueError(f"No network {self.net!r}.")
        return (*net, loss)


TASKS = (
    Task("digits", "dense", "sgd"),
    Task("digits", "dense", "adam"),
    Task("digits", "deep", "momentum"),
    Task("digits-raw", "dense", "rmsprop"),
    Task("digits-raw", "dense", "sgd"),
    Task("digits", "conv", "momentum"),
    Task("digits", "convnorm", "adam"),
    Task("digits", "attention", "adamw"),
    Task("digits-self", "auto", "adam"),
    Task("digits-self", "dense", "sgd"),
    Task("breast", "linear", "sgd"),
    Task("breast", "dense", "adam"),
    Task("breast", "dense", "momentum", 16),
    Task("diabetes", "dense", "adam"),
    Task("diabetes", "linear", "momentum"),
    Task("diabetes-raw", "dense", "rmsprop"),
    Task("diabetes-raw", "deep", "adam"),
    Task("digits", "dense", "lion"),
    Task("wine", "tanh", "adagrad", 16),
    Task("mnist1d", "conv", "adam", 64),
    Task("mnist1d", "dense", "nesterov", 64),
    Task("mnist1d", "attention", "lion"),
    Task("mnist1d", "gru", "adam"),
    Task("spiral", "tanh", "adam"),
    Task("spiral", "deep", "momentum", 64),
    Task("friedman", "dense", "nesterov"),
    Task("friedman", "l1", "adamw"),
    Task("friedman", "nll", "adam", 64),
    Task("friedman", "nll", "sgd", 64),
    Task("friedman", "normed", "rmsprop"),
    Task("adding", "gru", "adam"),
    Task("adding", "gru", "momentum"),
    Task("markov", "attention", "adam"),
    Task("markov", "attention", "momentum"),
    Task("markov", "gru", "rmsprop"),
    Task("markov", "gru", "sgd"),
)


class Runner:
    """Trains one task, always from the weights of a seed."""

    def __init__(self, task: Task) -> None:
        self.task = task
        parts = data(task.data)
        self.size = len(parts.train[0])
        init, apply, loss = task.parts()
        self._init = init
        train, sample, final = jax.tree.map(jnp.asarray, (parts.train, parts.sample, parts.final))
        unravel = ravel_pytree(init(jax.random.key(0)))[1]

        def value(p, x, y):
            return loss(apply(unravel(p), x), y)

        def run(p, rates, rows, n, every):
            """n updates; batch losses, and the held-out sample's loss after each `every`."""

            def go_on(carry):
                return (carry[0] < n) & carry[-1]

            def step(carry):
                i, p, m, v, losses, held, _ = carry
                batch = rows[i]
                found, g = jax.value_and_grad(value)(p, train[0][batch], train[1][batch])
                p, m, v = update(task.optimizer, p, g, m, v, i + 1.0, rates[i])
                h = jax.lax.cond(
                    (i + 1) % every == 0,
                    lambda: value(p, *sample),
                    lambda: jnp.float32(jnp.nan),
                )
                losses, held = losses.at[i].set(found), held.at[i].set(h)
                return i + 1, p, m, v, losses, held, jnp.isfinite(found)

            empty = jnp.full(LONGEST, jnp.nan)
            zero = jnp.zeros_like(p)
            out = jax.lax.while_loop(go_on, step, (0, p, zero, zero, empty, empty, True))
            return out[4], out[5], value(out[1], *final), value(out[1], *sample)

        self._run = jax.jit(run)

    def rows(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        batch = min(self.task.batch, self.size)
        whole = self.size // batch
        epochs = -(-LONGEST // whole)
        found = [rng.permutation(self.size)[: whole * batch] for _ in range(epochs)]
        return np.concatenate(found).reshape(-1, batch)[:LONGEST]

    def train(
        self, seed: int, order: int, rates: np.ndarray, every: int = 10**6
    ) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Batch losses, held-out losses, and at the end the final and the held-out loss."""
        n = len(rates)
        p = ravel_pytree(self._init(jax.random.key(seed)))[0]
        padded = np.zeros(LONGEST, "float32")
        padded[:n] = rates
        out = self._run(p, padded, self.rows(1000 * seed + order), n, every)
        losses, held = (np.asarray(a, float)[:n] for a in out[:2])
        return losses, held, float(out[2]), float(out[3])
