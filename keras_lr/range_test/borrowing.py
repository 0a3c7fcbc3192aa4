"""Borrow a model for a range test: build it as `fit` would, and restore it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_lr._keras.building import is_built, layers_are_built, symbolic_build
from keras_lr._keras.random_state import seed_everything
from keras_lr._keras.replicas import has_strategy, variable_scope
from keras_lr._keras.snapshot import Snapshot
from keras_lr.loops import Loop
from keras_lr.loops.data import Batches
from keras_lr.range_test.workbench import Workbench
from keras_lr.steering import BorrowedRate, SteeredFit, model_optimizers


@contextmanager
def borrow(
    model: Any,
    make_stream: Callable[[], Batches],
    seed: int | None,
    *,
    optimizer: Any,
    monitor: str = "loss",
) -> Iterator[Workbench]:
    """Borrow `model` for the block; afterwards it is as before, bit for bit.

    Args:
        optimizer: The optimizer of the model that gets the rates. All others keep their own.
        monitor: The log entry that is the loss.
    """
    with SteeredFit.set_aside(model), Snapshot(model).guarding() as snapshot:
        if seed is not None:
            seed_everything(seed)
        stream = make_stream()
        try:
            with BorrowedRate(optimizer).installed() as rate:
                bench = Workbench(model, stream, rate, snapshot, optimizer, monitor, seed)
                build(model, stream, bench.loop)
                check_trainable(model)
                snapshot.copy_values()
                try:
                    yield bench
                    bench.keep_loop()
                finally:
                    bench.loop.release()
                    bench.stream.close()
        finally:
            stream.close()


def check_trainable(model: Any) -> None:
    """Refuse a model whose weights are all frozen.

    Raises:
        ValueError: If every layer is frozen.
    """
    if model.weights and not model.trainable_variables:
        raise ValueError(
            f"The model {model.name!r} must have trainable weights; got {len(model.weights)} "
            "weights, all frozen. Set trainable = True on the model or on a layer, and compile."
        )


def build(model: Any, stream: Batches, loop: Loop | None = None) -> None:
    """Create what `fit` would create: variables of the model, the optimizers and the metrics.

    On TensorFlow, `fit` leaves that to the first training step, which alone knows how to call
    the parts of the model; `loop` traces that step. Without a loop, only the optimizer is built
    there.
    """
    if keras.backend.backend() != "tensorflow":
        symbolic_build(model, None if is_built(model) else stream.peek())
        return
    if has_strategy(model):
        # Unlike others, distributed variables cannot be created by the first step.
        with variable_scope(model):
            if not is_built(model):
                symbolic_build(model, stream.peek())
            elif model.optimizer is not None and not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
        return
    layers_built = layers_are_built(model)
    others = [each for name, each in model_optimizers(model).items() if name != "optimizer"]
    if loop is not None and not (layers_built and all(each.built for each in others)):
        loop.build(stream)
    elif layers_built and model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
