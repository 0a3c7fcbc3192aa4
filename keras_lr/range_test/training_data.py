"""The data of a range test: as `fit` would draw them, and with a part held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_lr._keras.distribution import evenly_shared
from keras_lr._util.stratify import stratified_order
from keras_lr.loops.data import (
    Batches,
    Part,
    Replay,
    Rows,
    Stream,
    batch_rows,
    is_array_data,
    stream,
    take_rows,
)
from keras_lr.loops.overridden_fit import FitArguments, overrides_fit, passed_to_keras
from keras_lr.range_test.probes import FEWEST_ROWS

_MAX_COPIED_BYTES = 2**26


@dataclass(frozen=True)
class TrainingData:
    """The data of a `fit` of `model`; the arguments have their meanings there."""

    model: Any
    x: Any
    y: Any = None
    sample_weight: Any = None
    steps_per_epoch: int | None = None
    fit_options: dict[str, Any] = field(default_factory=dict)

    def stream(self) -> Stream:
        weights, size = self.sample_weight, self.steps_per_epoch
        options = {"sample_weight": weights, "steps_per_epoch": size, **self.fit_options}
        return stream(self.model, self.x, self.y, **options)

    def reshuffled(self) -> TrainingData:
        """The data with a new order in each epoch.

        With a global seed, Keras on TensorFlow draws the same order of arrays in each epoch.
        """
        parts = (self.x, self.y, self.sample_weight)
        if not self.fit_options.get("shuffle", True) or not is_array_data(*parts):
            return self
        return self._of_rows(np.arange(len(keras.tree.flatten(self.x)[0])), self.steps_per_epoch)

    def _of_rows(self, rows: np.ndarray, steps_per_epoch: int | None = None) -> TrainingData:
        """Some rows of the arrays, which are not copied."""
        size, shuffle = self.fit_options.get("batch_size"), self.fit_options.get("shuffle", True)
        read = Rows((self.x, self.y, self.sample_weight), rows, size or 32, bool(shuffle))
        options = {**self.fit_options, "batch_size": None}
        return TrainingData(self.model, read, None, None, steps_per_epoch, options)

    def hold_out(self, samples: int, used: Batches) -> HeldOut:
        """Hold data out of the training data, to compare short runs.

        Args:
            samples: Examples to hold out.
            used: The stream that the ramp has read.
        """
        parts, size = (self.x, self.y, self.sample_weight), self.fit_options.get("batch_size")
        if not is_array_data(*parts):
            return self._hold_out_batches(samples, used)
        # A rare class must not be missing from the held-out rows.
        total, seed = len(keras.tree.flatten(self.x)[0]), np.random.randint(2**31)
        rows = stratified_order(self.y, total, seed)
        # A fifth, but a third of few rows: small samples misled most where this was measured.
        held = min(samples, max(1, len(rows) // 5, min(len(rows) // 3, FEWEST_ROWS)))
        held = evenly_shared(held)
        judged, weights = take_rows(parts, rows[:held]), self.fit_options.get("class_weight")
        sample = sample_batches(self.model, judged, held, size, weights)
        row_bytes = sum(
            np.asarray(take_rows(leaf, rows[:1])).nbytes
            for leaf in keras.tree.flatten(parts)
            if leaf is not None
        )
        rest = parts
        if held < len(rows) and len(rows) * row_bytes <= _MAX_COPIED_BYTES:
            rest = take_rows(parts, rows[held:])
        elif held < len(rows):
            return HeldOut(sample, self._of_rows(rows[held:]).stream)
        x, y, weight = rest
        options = {"sample_weight": weight, **self.fit_options}
        return HeldOut(sample, lambda: stream(self.model, x, y, **options))

    def all_rows(self) -> Callable[[], Batches] | None:
        """Makes streams of all the data, where each can begin anew at no cost."""
        parts = (self.x, self.y, self.sample_weight)
        again = is_array_data(*parts) or isinstance(self.x, keras.utils.PyDataset)
        return self.stream if again else None

    def _hold_out_batches(self, samples: int, used: Batches) -> HeldOut:
        count = getattr(self.x, "num_batches", None)
        if not isinstance(self.x, keras.utils.PyDataset) or count is None or count < 2:
            # Beginning anew could be slow: a data set fills its shuffle buffer first.
            return HeldOut(used.hold_out(samples), None)
        # Its batches have numbers: those held out stay out in any order.
        order = np.random.permutation(count)
        per_batch = max(1, batch_rows(self.x[int(order[0])]))
        held = min(-(-samples // per_batch), max(1, count // 5))
        judged = stream(self.model, Part(self.x, order[:held]), shuffle=False)
        sample = list(judged.iterator())
        judged.close()
        kept = Part(self.x, order[held:])
        options = {"steps_per_epoch": self.steps_per_epoch, **self.fit_options}
        return HeldOut(sample, lambda: stream(self.model, kept, **options))


class HeldOut(NamedTuple):
    """Data that compare short runs, and data that train them.

    Attributes:
        batches: The held-out batches.
        make_stream: Makes a stream of the others, the same one after the same seed; None if the
            stream that was passed goes on without them.
    """

    batches: list[Any]
    make_stream: Callable[[], Batches] | None


class CollectedBatches:
    """Batches of a running `fit`, as the data of a range test."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def stream(self) -> Replay:
        return Replay(self._batches)

    def hold_out(self, samples: int, used: Batches) -> HeldOut:
        used.close()
        replay = Replay(list(self._batches))
        held = replay.hold_out(samples)
        rest = [batch for batch in self._batches if all(batch is not each for each in held)]
        return HeldOut(held, lambda: Replay(rest or held))

    def all_rows(self) -> Callable[[], Batches]:
        return self.stream


@contextmanager
def passed_to_fit(
    data: TrainingData, validation_data: Any
) -> Iterator[tuple[TrainingData, Any, int | None]]:
    """Training data, validation data and its batch size as `model.fit` passes them to Keras.

    They are unchanged unless the model's class overrides `fit`.
    """
    names = {"sample_weight": data.sample_weight, "steps_per_epoch": data.steps_per_epoch}
    size = data.fit_options.get("batch_size")
    given = FitArguments(data.x, data.y, validation_data, size, {**names, **data.fit_options})
    with passed_to_keras(data.model, given) as passed:
        options = {name: value for name, value in passed.options.items() if name not in names}
        passed_data = TrainingData(
            data.model,
            passed.x,
            passed.y,
            passed.options["sample_weight"],
            passed.options["steps_per_epoch"],
            options,
        )
        yield passed_data, passed.validation_data, passed.validation_batch_size


@contextmanager
def validation_passed_to_fit(
    model: Any, validation_data: Any, batch_size: int | None
) -> Iterator[tuple[Any, int | None]]:
    """The same for validation data alone, in a `fit` that has passed the training data already."""
    if validation_data is None or not overrides_fit(model):
        yield validation_data, batch_size
        return
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(validation_data)
    options = {"batch_size": batch_size}
    data = TrainingData(model, x, y, sample_weight, fit_options=options)
    with passed_to_fit(data, validation_data) as (_, passed, size):
        yield passed, size


def sample_batches(
    model: Any,
    data: Any,
    samples: int,
    batch_size: int | None,
    class_weight: dict[int, float] | None = None,
) -> list[Any]:
    """A fixed sample of validation data as batches; of arrays, rows at equal distances."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if is_array_data(x, y, sample_weight):
        total = len(keras.tree.flatten(x)[0])
        count = evenly_shared(min(samples, total))
        rows = np.unique(np.linspace(0, total - 1, count).astype(int))
        x, y, sample_weight = take_rows((x, y, sample_weight), rows)
    options = {"batch_size": batch_size, "class_weight": class_weight, "shuffle": False}
    batches = stream(model, x, y, sample_weight=sample_weight, **options)
    if is_array_data(x, y, sample_weight):
        return list(batches.iterator())
    sample = batches.hold_out(samples, share=1)
    batches.close()
    return sample
