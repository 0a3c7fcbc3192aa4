"""`noise_scale`: the batch size up to which a larger batch allows a larger rate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lr._keras.replicas import has_strategy
from keras_lr._util import checks
from keras_lr._util.interrupts import check_interrupt
from keras_lr.loops.data import Batches, DataEnded
from keras_lr.loops.gradients import LossGradient, rows_of, squared_norm
from keras_lr.optimizers import ScheduleFree
from keras_lr.range_test.borrowing import borrow
from keras_lr.range_test.checks import check_kinds, check_model
from keras_lr.range_test.training_data import TrainingData, passed_to_fit
from keras_lr.steering import innermost_optimizers

BLOCKS = 8  # of the batches, at least, whose spread gives the interval
LEAST_EPOCH = 4  # batches of an epoch, of which half are a block
_ERRORS = 2.0  # standard errors on each side of the estimate


@dataclass(frozen=True)
class NoiseScale:
    """The result of `noise_scale`.

    Attributes:
        examples: The noise scale, trace(Sigma) / |G|^2, in examples; infinite if the gradient
            cannot be told from its noise.
        low, high: Two standard errors of |G|^2 below and above it.
        squared_gradient: Unbiased estimate of |G|^2, the squared norm of the gradient over all
            data; below 0 if the noise is larger than the gradient.
        variance: Unbiased estimate of trace(Sigma), the variance of the gradient of one example.
        batch_size: Examples in each batch.
        batches: Batches that were read.
    """

    examples: float
    low: float
    high: float
    squared_gradient: float
    variance: float
    batch_size: int
    batches: int

    def __float__(self) -> float:
        return self.examples

    def __str__(self) -> str:
        if not np.isfinite(self.examples):
            return (
                f"The gradient cannot be told from its noise in {self.batches} batches of "
                f"{self.batch_size}: the noise scale is at least {self.low:.3g} examples. Pass "
                "more batches, or measure earlier in the training."
            )
        high = f"{self.high:.3g}" if np.isfinite(self.high) else "more than can be told"
        return (
            f"The noise scale is {self.examples:.3g} examples ({self.low:.3g} to {high}). Up to "
            "about that batch size a larger batch allows a larger rate."
        )


def noise_scale(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    batches: int = 128,
    batch_size: int | None = None,
    sample_weight: Any = None,
    class_weight: dict[int, float] | None = None,
    shuffle: bool = True,
    steps_per_epoch: int | None = None,
    seed: int | None = None,
) -> NoiseScale:
    """Measure the gradient noise scale of a model at its current weights; restore the model.

    Below the noise scale, twice the batch allows a larger rate (`scale_lr`) and about halves the
    updates; far above it, a larger batch gains nothing. It grows while the model learns: measure a
    trained model too. The measure is made for SGD; for Adam it is a guide.

    From the gradients g_i of N batches of b examples, and their mean, which is the gradient of one
    batch of N b examples, follow the estimates of McCandlish et al.:

        |G|^2 = (N b |mean g|^2 - b mean |g|^2) / (N b - b)
        trace(Sigma) = (mean |g|^2 - |mean g|^2) / (1 / b - 1 / (N b))

    Their ratio is the noise scale. The interval comes from the spread of |G|^2 over eighths of the
    batches, or over halves of epochs if those are smaller. A dynamic loss scale at which the
    gradient overflows is halved until it does not, as in training. Memory: two more copies of the
    trainable weights.

    Args:
        model: A compiled Keras model.
        x, y, sample_weight, class_weight, shuffle, steps_per_epoch: As in `fit`. The data are read
            again if they are shorter: arrays in a new order, other data in the order that they
            have. Where that is the same each time, the interval is too narrow.
        batches: Batches to read, at least 16. Batches of another size, as the last of an epoch
            often is, are left out.
        batch_size: Examples in a batch, as in `fit`. The result does not depend on it, except that
            batch normalization sees these batches.
        seed: As in `lr_find`.

    Returns:
        A `NoiseScale`; `print` shows the answer as a sentence. Pass it to `scale_lr`.

    Raises:
        ValueError: If an argument is out of its range, the model overrides `train_step` or sums its
            loss over a batch, has a distribution strategy, a gradient is not finite, every
            gradient is 0, an epoch has fewer than 4 batches, or the data end before so many
            batches are read.
        TypeError: If an argument is of the wrong kind.

    Source: McCandlish et al., "An empirical model of large-batch training", 2018
    (arXiv 1812.06162), sections 2.2 and A.1.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(4096, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> result = keras_lr.noise_scale(model, x, x.sum(axis=1), batch_size=32)
    >>> keras_lr.scale_lr(0.01, batch_size=2, base_batch_size=1, noise_scale=result)
    0.02
    """
    batches = checks.count("batches", batches, least=2 * BLOCKS)
    seed = None if seed is None else checks.count("seed", seed, 0)
    own = getattr(model, "optimizer", None)  # the gradient is that of its training step
    optimizer = check_model(model, own, "noise_scale", changes_rate=False)
    _check_step(model)
    if x is None:
        raise ValueError("noise_scale needs data; got x=None. Pass x and y, or a data set as x.")
    checks.class_weights("class_weight", class_weight)
    fit_options = {"batch_size": batch_size, "shuffle": shuffle, "class_weight": class_weight}
    data = TrainingData(model, x, y, sample_weight, steps_per_epoch, fit_options)
    with passed_to_fit(data, None) as (passed, _, _):
        check_kinds(model, passed.x, passed.y, passed.sample_weight)
        with borrow(model, passed.reshuffled().stream, seed, optimizer=optimizer) as bench:
            for each in innermost_optimizers(optimizer):
                if isinstance(each, ScheduleFree):
                    each.train()
            return _measure(model, bench.stream, batches)


def estimates(
    batch_size: int, batches: int, mean_square: float, square_of_mean: float
) -> tuple[float, float]:
    """Unbiased |G|^2 and trace(Sigma), from batches of one size and all of them as one batch.

    Args:
        mean_square: Mean squared norm of the gradients of the batches.
        square_of_mean: Squared norm of their mean.
    """
    small, big = batch_size, batch_size * batches
    squared = (big * square_of_mean - small * mean_square) / (big - small)
    variance = (mean_square - square_of_mean) / (1.0 / small - 1.0 / big)
    return squared, variance


def result_of(
    batch_size: int, blocks: Sequence[tuple[int, float, float]], square_of_mean: float
) -> NoiseScale:
    """The noise scale of blocks of batches.

    Args:
        blocks: For each, its number of batches, the mean squared norm of their gradients, and the
            squared norm of their mean.
        square_of_mean: Squared norm of the mean over all batches.
    """
    counts = np.array([count for count, _, _ in blocks])
    batches = int(counts.sum())
    mean_square = float(np.average([mean for _, mean, _ in blocks], weights=counts))
    if mean_square == 0.0:
        raise ValueError(
            f"The gradient must not be 0; it is, in all {batches} batches. Scale the inputs, which "
            "may saturate the outputs, and check that the loss depends on weights that train."
        )
    squared, variance = estimates(batch_size, batches, mean_square, square_of_mean)
    apart = [estimates(batch_size, *block)[0] for block in blocks]
    error = _ERRORS * float(np.std(apart, ddof=1)) / np.sqrt(len(apart))

    def ratio(squared: float) -> float:
        return float(max(variance, 0.0) / squared) if squared > 0.0 else float("inf")

    return NoiseScale(
        ratio(squared),
        ratio(max(squared, 0.0) + error),
        ratio(squared - error),
        squared,
        variance,
        batch_size,
        batches,
    )


def _measure(model: Any, stream: Batches, batches: int) -> NoiseScale:
    sizes = _block_sizes(batches, stream.batches)
    gradient = LossGradient(model)
    drawn = enumerate(_of_one_size(stream, batches))
    total: list[Any] = []
    blocks: list[tuple[int, float, float]] = []
    for count in sizes:
        of_block: list[Any] = []
        squares: list[float] = []
        for place, batch in itertools.islice(drawn, count):
            found = gradient(batch)
            square = squared_norm(found)
            while not np.isfinite(square) and gradient.lower_scale():
                found = gradient(batch)
                square = squared_norm(found)
            squares.append(square)
            if not np.isfinite(square):
                raise ValueError(
                    f"The gradient must be finite; it was not in batch {place}. Check the data and "
                    f"the model{_overflow_hint(model)}."
                )
            of_block = _added(of_block, found)
        mean = squared_norm([each / count for each in of_block])
        blocks.append((count, float(np.mean(squares)), mean))
        total = _added(total, of_block)
    return result_of(rows_of(batch), blocks, squared_norm([each / batches for each in total]))


def _block_sizes(batches: int, epoch: int | None) -> list[int]:
    """Batches of each block: at most half an epoch, as all epochs have the same mean gradient.

    Args:
        epoch: Batches of an epoch; None if unknown.

    Raises:
        ValueError: If half of it is less than two batches, which have no spread.
    """
    if epoch is not None and epoch < LEAST_EPOCH:
        raise ValueError(
            f"An epoch must have at least {LEAST_EPOCH} batches, whose gradients are compared; got "
            f"{epoch}. Pass a smaller batch_size, which does not change the noise scale."
        )
    count = BLOCKS if epoch is None else max(BLOCKS, -(-batches // (epoch // 2)))
    return [len(part) for part in np.array_split(np.arange(batches), count)]


def _of_one_size(stream: Batches, batches: int) -> Iterator[Any]:
    """The next batches that have as many examples as the first.

    Raises:
        ValueError: If the data end before, or many batches have another size.
    """
    size, done, odd = 0, 0, 0
    while done < batches:
        check_interrupt()
        try:
            batch = stream.draw()
        except DataEnded:
            raise ValueError(
                f"The data ended after {done} of {batches} batches. Pass fewer batches, or data "
                "that can be repeated, not a generator that ends."
            ) from None
        size = size or rows_of(batch)
        if rows_of(batch) == size:
            done += 1
            yield batch
            continue
        odd += 1
        if odd > 2 * batches:
            raise ValueError(
                f"The batches must have one size; got {size} examples in the first and another "
                f"number in {odd} others."
            )


def _added(sums: list[Any], more: list[Any]) -> list[Any]:
    return [a + b for a, b in zip(sums, more, strict=True)] if sums else list(more)


def _overflow_hint(model: Any) -> str:
    """More to check if the optimizer scales the loss by a constant."""
    factor = getattr(model.optimizer, "loss_scale_factor", None)
    return f", and lower loss_scale_factor={factor} of the optimizer" if factor else ""


def _check_step(model: Any) -> None:
    """Refuse a model whose gradient this module cannot compute as its training does.

    Raises:
        ValueError: If it is one.
    """
    kind = type(model)
    if kind.train_step is not keras.Model.train_step:
        raise ValueError(
            f"noise_scale computes the gradient of compute_loss; {kind.__name__} overrides "
            "train_step. Override compute_loss instead."
        )
    for loss in keras.tree.flatten(model.loss):
        if getattr(loss, "reduction", "") == "sum":
            raise ValueError(
                "noise_scale needs a loss that is the mean over a batch; got "
                f"{type(loss).__name__} with reduction='sum'. Compile with "
                "reduction='sum_over_batch_size'."
            )
    if has_strategy(model):
        raise ValueError(
            "noise_scale reads batches on one device; got a model of a tf.distribute strategy. "
            "Measure a copy of the model that was made outside of its scope."
        )
