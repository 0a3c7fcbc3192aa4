"""Random generators, and the counters by which Keras names new objects."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import global_seed_generator

from keras_lr._keras.object_graph import reachable
from keras_lr._keras.replicas import copied, variable_scope
from keras_lr._util.interrupts import uninterrupted

__all__ = [
    "RandomState",
    "make_seed_generator",
    "name_counters_kept",
    "random_generators_kept",
    "reseed",
    "seed_everything",
    "seed_generator",
]

_GLOBAL_SEED_GENERATOR = "global_seed_generator"  # as Keras calls it
_GLOBAL_SEED = "global_random_seed"  # as Keras calls it
_NAME_COUNTERS = "object_name_uids"  # as Keras calls them


def seed_generator() -> Any:
    """Keras's global seed generator, which no model holds; None if there is none yet."""
    return global_state.get_global_attribute(_GLOBAL_SEED_GENERATOR)


def make_seed_generator() -> None:
    """Make Keras's global seed generator now, as the first draw without a seed would.

    Its seed comes from Python's generator, which does not go on: the next layer gets the weights
    that it would have got. A `RandomState` taken before restores that there was none.
    """
    state = random.getstate()
    global_seed_generator()
    random.setstate(state)


def _copied_counters() -> Any:
    counters = global_state.get_global_attribute(_NAME_COUNTERS)
    return None if counters is None else counters.copy()


@contextmanager
def name_counters_kept() -> Iterator[None]:
    """Objects made in the block do not count for the names of later objects."""
    counters = _copied_counters()
    try:
        yield
    finally:
        global_state.set_global_attribute(_NAME_COUNTERS, counters)


class RandomState:
    """The state of every random generator that `fit` draws from."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._generator = seed_generator()
        self._drawn = None if self._generator is None else copied(self._generator.state.value)
        self._seed = global_state.get_global_attribute(_GLOBAL_SEED)
        self._counters = _copied_counters()
        self._restores: list[Callable[[], Any]] = []
        if keras.backend.backend() == "tensorflow":
            self._restores.append(_tensorflow_random())
        elif keras.backend.backend() == "torch":
            self._restores.append(_torch_random())

    def restore(self) -> None:
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        global_state.set_global_attribute(_GLOBAL_SEED_GENERATOR, self._generator)
        if self._drawn is not None:
            self._generator.state.assign(self._drawn)
        global_state.set_global_attribute(_GLOBAL_SEED, self._seed)
        global_state.set_global_attribute(_NAME_COUNTERS, self._counters)
        for restore in self._restores:
            restore()


@contextmanager
def random_generators_kept() -> Iterator[None]:
    """Restore the random generators when the block ends, also by an exception."""
    state = RandomState()
    try:
        yield
    finally:
        with uninterrupted():
            state.restore()


def _tensorflow_random() -> Callable[[], None]:
    from tensorflow.python.eager import context

    eager = context.context()
    seed, generator = eager._seed, getattr(eager, "_rng", None)  # there only once it is seeded
    state = generator.getstate() if generator is not None else None

    def restore() -> None:
        eager._seed = seed
        if generator is not None:
            eager._rng = generator
            generator.setstate(state)
        elif hasattr(eager, "_rng"):
            del eager._rng

    return restore


def _torch_random() -> Callable[[], None]:
    import torch

    cpu, devices = torch.get_rng_state(), []
    if torch.cuda.is_available():
        devices = torch.cuda.get_rng_state_all()

    def restore() -> None:
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)

    return restore


def seed_everything(seed: int, *, operations: bool = True) -> None:
    """Seed the generators that order data and draw noise; a `Snapshot` restores them.

    Args:
        operations: Whether TensorFlow's random operations that have run before start again as
            well. TensorFlow then prepares every compiled function anew, which takes as long as
            40 training steps of a small model. Operations that have not run yet always start
            from the seed.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf
        from tensorflow.python.eager import context

        if operations:
            tf.random.set_seed(seed)
        else:
            context.context()._seed = seed
            context.context()._rng = random.Random(seed)
    elif keras.backend.backend() == "torch":
        import torch

        torch.manual_seed(seed)


def reseed(model: Any, seed: int) -> None:
    """Set every seed generator of a model (of dropout, say) to a state made from `seed`.

    Keras seeds these generators when a layer is made. Afterwards, equal models draw equal noise.
    """
    held = [part for _, part in reachable(model) if isinstance(part, keras.random.SeedGenerator)]
    shared = seed_generator()
    with variable_scope(model):
        for place, generator in enumerate([shared, *held]):
            if generator is not None:
                first = np.random.SeedSequence([seed, place]).generate_state(1)[0]
                state = np.zeros(generator.state.shape, generator.state.dtype)
                state[0] = first % 2**31  # fits into the integers of every backend
                generator.state.assign(state)
