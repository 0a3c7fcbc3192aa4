"""Batches for the loops: the stream that `fit` would draw, and a fixed sample to judge by."""

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
    """The data gave its last batch and cannot start again (a generator that ended)."""


class _Batches:
    """Batches without end; subclasses say what an epoch is."""

    # Batches that the running epoch has left; None where nobody can know.
    left: int | None = None

    def __init__(self) -> None:
        self._returned: list[Any] = []

    def iterator(self) -> Iterator[Any]:
        """The running epoch, in the backend's own form (a `tf.data` iterator, say)."""
        raise NotImplementedError

    def next_epoch(self) -> None:
        """Begin again from the first batch.

        Raises:
            DataEnded: If the data cannot begin again.
        """
        raise NotImplementedError

    def draw(self) -> Any:
        """The next batch, the first of the next epoch after the last.

        Raises:
            DataEnded: If there is none, and none to come.
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
        """Up to `most` batches: fewer where the data ends among them.

        Raises:
            DataEnded: If there is not one.
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
        """Say that `count` batches were drawn from `iterator`."""
        if self.left is not None:
            self.left -= count

    def give_back(self, batch: Any) -> None:
        """Undo a `draw`: the batch comes again."""
        self._returned.append(batch)


class Stream(_Batches):
    """The batches of `fit`: epoch after epoch, shuffled anew each time."""

    def __init__(self, epochs: Epochs) -> None:
        super().__init__()
        self._epochs = epochs
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
        """Take the first batches of an epoch off until they hold `samples` rows.

        Every further epoch leaves out as many at its beginning: the same ones, where the data
        come in the same order each time.

        Args:
            share: One batch of so many at the most, where their number is known or small.

        Raises:
            DataEnded: If there is no batch.
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
        if self._iterator is not None:
            self._iterator = None
            self._epochs.end()

    def peek(self) -> Any:
        """A batch to build a model with; the data starts afresh after it, as it does in `fit`."""
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
        shuffle: Whether each epoch has an order of its own.
    """

    def __init__(self, parts: Any, rows: np.ndarray, batch_size: int, shuffle: bool) -> None:
        super().__init__()
        self._parts, self._rows = parts, rows
        self._size, self._shuffle = batch_size, shuffle

    def __len__(self) -> int:
        return -(-len(self._rows) // self._size)

    def __getitem__(self, index: int) -> Any:
        rows = self._rows[index * self._size : (index + 1) * self._size]
        x, y, weight = take_rows(self._parts, np.sort(rows))
        return keras.utils.pack_x_y_sample_weight(x, y, weight)

    def on_epoch_begin(self) -> None:
        if self._shuffle:
            self._rows = np.random.permutation(self._rows)


class Replay(_Batches):
    """Batches that were collected before, in a new order each time around."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self._batches = batches
        self._iterator = iter(batches)

    def iterator(self) -> Iterator[Any]:
        return self._iterator

    def next_epoch(self) -> None:
        order = np.random.permutation(len(self._batches))
        self._iterator = iter([self._batches[i] for i in order])

    def set_aside(self, samples: int) -> list[Any]:
        """Take batches out for good, a fifth of them at the most, until they hold `samples`."""
        aside: list[Any] = []
        most = max(1, len(self._batches) // 5)
        while len(aside) < most and sum(map(batch_rows, aside)) < samples:
            aside.append(self._batches.pop())
        self._batches = self._batches or aside
        self.next_epoch()
        return aside

    def close(self) -> None:
        """Nothing runs on."""

    def peek(self) -> Any:
        return of_one_replica(self._batches[0])


def batch_rows(batch: Any) -> int:
    """Samples in a batch, on all devices together."""
    for leaf in tree.flatten(batch):
        parts = replicas(leaf)
        if hasattr(parts[0], "shape"):
            return sum(int(part.shape[0]) for part in parts)
    raise ValueError("The batch holds no array.")


def of_one_replica(batch: Any) -> Any:
    """What the first device gets of a batch."""
    return tree.map_structure(lambda leaf: replicas(leaf)[0], batch)


def stream(model: Any, x: Any, y: Any = None, **options: Any) -> Stream:
    """The stream that `model.fit(x, y, **options)` would train on.

    Args:
        options: `sample_weight`, `batch_size`, `steps_per_epoch`, `shuffle`, `class_weight`,
            with the meanings that they have in `fit`.

    Raises:
        ValueError: If the devices of a `keras.distribution` cannot share the batches equally.
    """
    if is_array_data(x):
        check_shares(len(tree.flatten(x)[0]), options.get("batch_size"))
    with warnings.catch_warnings():
        # Keras says so of its own default, which nobody has chosen.
        warnings.filterwarnings("ignore", "`shuffle=True` was passed, but will be ignored")
        return Stream(Epochs(model, x, y, **options))


def is_array_data(*parts: Any) -> bool:
    """Whether all leaves are arrays of samples: NumPy's, or what NumPy can read as such."""
    leaves = [leaf for leaf in tree.flatten(list(parts)) if leaf is not None]
    return bool(leaves) and all(
        hasattr(leaf, "__array__") and len(getattr(leaf, "shape", ())) > 0 for leaf in leaves
    )


def take_rows(part: Any, rows: np.ndarray) -> Any:
    """The given rows of every array in a structure; None stays None."""

    def rows_of(leaf: Any) -> Any:
        if leaf is None:
            return None
        on_device = keras.ops.is_tensor(leaf)
        return (keras.ops.convert_to_numpy(leaf) if on_device else np.asarray(leaf))[rows]

    return tree.map_structure(rows_of, part)
