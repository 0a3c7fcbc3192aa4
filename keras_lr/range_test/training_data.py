"""The data that a range test trains on, and the samples that it holds out of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_lr._keras.distribution import evenly_shared
from keras_lr._util.classes import ranked
from keras_lr.loops.data import Part, Rows, batch_rows, is_array_data, stream, take_rows
from keras_lr.loops.sent import Sent, overrides_fit, sent_by_fit

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

    def stream(self) -> Any:
        weights, size = self.sample_weight, self.steps_per_epoch
        options = {"sample_weight": weights, "steps_per_epoch": size, **self.fit_options}
        return stream(self.model, self.x, self.y, **options)

    def hold_out(self, samples: int, used: Any) -> tuple[Any, list[Any]]:
        """Data for the confirmation: a stream without the held-out batches, and those batches.

        Args:
            samples: Examples to hold out.
            used: The stream that the ramp has read; closed, or returned without what is held out.
        """
        parts, size = (self.x, self.y, self.sample_weight), self.fit_options.get("batch_size")
        if not is_array_data(*parts):
            return self._hold_out_batches(samples, used)
        # A rare class must not be missing from the held-out rows.
        total, seed = len(keras.tree.flatten(self.x)[0]), np.random.randint(2**31)
        rows = ranked(self.y, total, seed)
        held = evenly_shared(min(samples, max(1, len(rows) // 5)))
        judged, weights = take_rows(parts, rows[:held]), self.fit_options.get("class_weight")
        sample = sample_batches(self.model, judged, held, size, weights)
        row_bytes = sum(
            take_rows(leaf, rows[:1]).nbytes
            for leaf in keras.tree.flatten(parts)
            if leaf is not None
        )
        if len(rows) == held:
            rest = parts
        elif len(rows) * row_bytes <= _MAX_COPIED_BYTES:
            rest = take_rows(parts, rows[held:])
        else:
            options = {**self.fit_options, "batch_size": None}
            shuffle = bool(options.get("shuffle", True))
            read = Rows(parts, rows[held:], size or 32, shuffle)
            return stream(self.model, read, **options), sample
        kept = stream(self.model, rest[0], rest[1], sample_weight=rest[2], **self.fit_options)
        return kept, sample

    def _hold_out_batches(self, samples: int, used: Any) -> tuple[Any, list[Any]]:
        count = getattr(self.x, "num_batches", None)
        if not isinstance(self.x, keras.utils.PyDataset) or count is None or count < 2:
            return used, used.hold_out(samples)
        # Its batches have numbers: those held out stay out in any order.
        order = np.random.permutation(count)
        per_batch = max(1, batch_rows(self.x[int(order[0])]))
        held = min(-(-samples // per_batch), max(1, count // 5))
        judged = stream(self.model, Part(self.x, order[:held]), shuffle=False)
        sample = list(judged.iterator())
        judged.close()
        used.close()
        kept = Part(self.x, order[held:])
        return stream(
            self.model, kept, steps_per_epoch=self.steps_per_epoch, **self.fit_options
        ), sample


@contextmanager
def passed_to_fit(
    data: TrainingData, validation_data: Any
) -> Iterator[tuple[TrainingData, Any, int | None]]:
    """Training data, validation data and its batch size as `model.fit` passes them to Keras.

    They are unchanged unless the model's class overrides `fit`.
    """
    names = {"sample_weight": data.sample_weight, "steps_per_epoch": data.steps_per_epoch}
    size = data.fit_options.get("batch_size")
    given = Sent(data.x, data.y, validation_data, size, {**names, **data.fit_options})
    with sent_by_fit(data.model, given) as sent:
        options = {name: value for name, value in sent.options.items() if name not in names}
        sent_data = TrainingData(
            data.model,
            sent.x,
            sent.y,
            sent.options["sample_weight"],
            sent.options["steps_per_epoch"],
            options,
        )
        yield sent_data, sent.validation_data, sent.validation_batch_size


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
    with passed_to_fit(data, validation_data) as (_, sent, size):
        yield sent, size


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
