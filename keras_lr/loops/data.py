"""Batches for the loops: those that `fit` would draw, collected ones, and parts of a data set."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_lr._keras.distribution import check_shares
from keras_lr._keras.epochs import Epochs
from keras_lr._keras.replicas import replicas


class DataEnded(Exception):
    """The data have no batch left and cannot start again: a generator has ended."""


class Batches:
    """An endless sequence of batches, as a loop reads it; subclasses define an epoch."""

    # Batches of an epoch, and those left in the running one; None if unknown.
    batches: int | None = None
    left: int | None = None
    # Whether code of the program makes the batches, and may draw random numbers for them.
    from_program: bool = False

    def __init__(self) -> None:
        self._returned: list[Any] = []

    def iterator(self) -> Iterator[Any]:
        """The running epoch, in the backend's form (a `tf.data` iterator, say)."""
        raise NotImplementedError

    def next_epoch(self) -> None:
        """Start again from the first batch.

        Raises:
            DataEnded: If the data cannot start again.
        """
        raise NotImplementedError

    def hold_out(self, samples: int, share: int = 5) -> list[Any]:
        """Take batches out of all later epochs, until they have `samples` rows.

        Args:
            share: At most one batch in `share` is held out, if their number is known or small.

        Raises:
            DataEnded: If there is no batch.
        """
        raise NotImplementedError

    def peek(self) -> Any:
        """A batch to build a model with; it is not drawn."""
        raise NotImplementedError

    def close(self) -> None:
        """End the running epoch, if one is open; the next `draw` begins one.

        With the same seed then, the batches come in the same order again.
        """
        raise NotImplementedError

    def draw(self) -> Any:
        """The next batch; after the last of an epoch, the first of the next one.

        Raises:
            DataEnded: If there is none, and the data cannot start again.
        """
        if self._returned:
            return self._returned.pop()
        batch = next(self.iterator(), None)
        if batch is None:
            self.next_epoch()
            batch = next(self.iterator(), None)
        if batch is None:
            raise DataEnded
        self.took(1)
        return batch

    def take(self, most: int) -> Iterator[Any]:
        """Up to `most` batches; fewer if the data end.

        Raises:
            DataEnded: If there is no batch at all.
        """
        for taken in range(most):
            try:
                batch = self.draw()
            except DataEnded:
                if not taken:
                    raise
                return
            yield batch

    def took(self, count: int) -> None:
        """Count batches that were drawn from `iterator` directly."""
        if self.left is not None:
            self.left -= count

    def give_back(self, batch: Any) -> None:
        """Undo a `draw`: the next one returns this batch."""
        self._returned.append(batch)


class Stream(Batches):
    """The batches that `fit` would train on, epoch after epoch, each in a new order."""

    def __init__(self, epochs: Epochs) -> None:
        super().__init__()
        self._epochs = epochs
        self.batches = epochs.batches
        self._iterator: Iterator[Any] | None = None
        self._held_out = 0  # batches at the beginning of an epoch that are not trained on
        self._once = epochs.once

    def iterator(self) -> Iterator[Any]:
        if self._iterator is None:
            self._iterator = self._epochs.begin()
            self.left = self._epochs.batches
            for _ in range(self._held_out):
                if next(self._iterator, None) is not None:
                    self.took(1)
        return self._iterator

    def next_epoch(self) -> None:
        if self._once:
            raise DataEnded
        self.close()

    def hold_out(self, samples: int, share: int = 5) -> list[Any]:
        """Hold out the first batches of an epoch.

        Later epochs skip as many batches at their beginning: the same ones, if the data come in
        the same order each time.
        """
        if not self._once:
            self.next_epoch()
        batches: list[Any] = []
        iterator = self.iterator()
        most = None if self.left is None else max(1, self.left // share)
        while len(batches) != most and sum(map(batch_rows, batches)) < samples:
            batch = next(iterator, None)
            if batch is None:  # that was all of the data
                batches = batches[: max(1, len(batches) // share)]
                break
            self.took(1)
            batches.append(batch)
        if not batches:
            raise DataEnded
        if not self._once:
            known = self._epochs.batches
            self._held_out = 0 if known == 1 else len(batches)
        return batches

    def close(self) -> None:
        self._returned.clear()
        if self._iterator is not None:
            self._iterator = None
            self._epochs.end()

    def peek(self) -> Any:
        """A batch to build a model with; the data then start again, as in `fit`."""
        batch = of_one_replica(self.draw())
        self._iterator = None
        self._epochs.reset()
        return batch


class Part(keras.utils.PyDataset):
    """Some of the batches of a `PyDataset`.

    Args:
        batches: Their indices.
    """

    def __init__(self, whole: Any, batches: np.ndarray) -> None:
        super().__init__(
            workers=whole.workers,
            use_multiprocessing=whole.use_multiprocessing,
            max_queue_size=whole.max_queue_size,
        )
        self._whole = whole
        self._batches = [int(index) for index in batches]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return self._whole[self._batches[index]]

    def on_epoch_begin(self) -> None:
        self._whole.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._whole.on_epoch_end()


class Rows(keras.utils.PyDataset):
    """Some of the rows of arrays, read a batch at a time.

    Args:
        parts: `(x, y, sample_weight)`.
        rows: Their indices.
        shuffle: Whether each epoch has a new order.
    """

    def __init__(self, parts: Any, rows: np.ndarray, batch_size: int, shuffle: bool) -> None:
        super().__init__()
        self._parts, self._all, self._rows = parts, rows, rows
        self._size, self._shuffle = batch_size, shuffle

    def __len__(self) -> int:
        return -(-len(self._rows) // self._size)

    def __getitem__(self, index: int) -> Any:
        rows = self._rows[index * self._size : (index + 1) * self._size]
        x, y, weight = take_rows(self._parts, np.sort(rows))
        return keras.utils.pack_x_y_sample_weight(x, y, weight)

    def on_epoch_begin(self) -> None:
        if self._shuffle:
            self._rows = np.random.permutation(self._all)


class Replay(Batches):
    """Collected batches, repeated in a new order each epoch."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self._batches = batches
        self._iterator = iter(batches)

    def iterator(self) -> Iterator[Any]:
        return self._iterator

    def next_epoch(self) -> None:
        order = np.random.permutation(len(self._batches))
        self._iterator = iter([self._batches[i] for i in order])

    def hold_out(self, samples: int, share: int = 5) -> list[Any]:
        held: list[Any] = []
        most = max(1, len(self._batches) // share)
        while len(held) < most and sum(map(batch_rows, held)) < samples:
            held.append(self._batches.pop())
        self._batches = self._batches or held
        self.next_epoch()
        return held

    def close(self) -> None:
        self._returned.clear()
        self._iterator = iter(self._batches)

    def peek(self) -> Any:
        return of_one_replica(self._batches[0])


def batch_rows(batch: Any) -> int:
    """The number of samples in a batch, on all devices together."""
    for leaf in tree.flatten(batch):
        parts = replicas(leaf)
        if hasattr(parts[0], "shape"):
            return sum(int(part.shape[0]) for part in parts)
    raise ValueError("The batch holds no array.")


def of_one_replica(batch: Any) -> Any:
    """The part of a batch that the first device gets."""
    return tree.map_structure(lambda leaf: replicas(leaf)[0], batch)


def stream(model: Any, x: Any, y: Any = None, **options: Any) -> Stream:
    """The stream that `model.fit(x, y, **options)` would train on.

    Args:
        options: `sample_weight`, `batch_size`, `steps_per_epoch`, `shuffle`, `class_weight`,
            with their meanings in `fit`.

    Raises:
        ValueError: If the devices of a `keras.distribution` cannot share the batches equally.
    """
    if is_array_data(x):
        check_shares(len(tree.flatten(x)[0]), options.get("batch_size"))
    with warnings.catch_warnings():
        # Keras warns about its own default, which the user has not chosen.
        warnings.filterwarnings("ignore", "`shuffle=True` was passed, but will be ignored")
        made = Stream(Epochs(model, x, y, **options))
    made.from_program = isinstance(x, keras.utils.PyDataset) and not isinstance(x, Rows)
    return made


def is_array_data(*parts: Any) -> bool:
    """Whether all leaves are arrays of samples, of NumPy or readable by NumPy."""
    leaves = [leaf for leaf in tree.flatten(list(parts)) if leaf is not None]
    return bool(leaves) and all(
        hasattr(leaf, "__array__") and len(getattr(leaf, "shape", ())) > 0 for leaf in leaves
    )


def take_rows(part: Any, rows: np.ndarray | slice) -> Any:
    """The given rows of every array in a structure; None stays None."""

    def rows_of(leaf: Any) -> Any:
        if leaf is None:
            return None
        on_device = keras.ops.is_tensor(leaf)
        taken = (keras.ops.convert_to_numpy(leaf) if on_device else np.asarray(leaf))[rows]
        return _text(taken) if taken.dtype == object else taken

    return tree.map_structure(rows_of, part)


def _text(rows: np.ndarray) -> Any:
    """Text as a tensor of TensorFlow: Keras refuses bytes in an array, and text in batches."""
    is_text = rows.size > 0 and isinstance(rows.flat[0], (str, bytes))
    if not is_text or keras.backend.backend() != "tensorflow":
        return rows
    import tensorflow as tf

    return tf.constant(rows)
