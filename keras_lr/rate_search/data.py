"""The data of a search: what its runs train on, and what they are evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_lr._keras.distribution import sharing_devices
from keras_lr._keras.optimizers import number
from keras_lr.loops.data import is_array_data, take_rows
from keras_lr.rate_search.split import held_out

__all__ = ["Data", "is_read_once"]


@dataclass(frozen=True)
class Data:
    """The data that the runs train on and are evaluated on.

    Attributes:
        x, y, sample_weight: Rows to train on; or `x` alone, a data set with batches of its own.
        validation: The `validation_data` of `fit`.
        fit_options: Further arguments of `fit`.
    """

    x: Any
    y: Any
    sample_weight: Any
    validation: Any
    fit_options: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(
        x: Any,
        y: Any,
        sample_weight: Any,
        validation: Any,
        share: float,
        seed: int,
        fit_options: dict[str, Any],
    ) -> Data:
        """Hold out a share of the rows if the user gave no validation data.

        Raises:
            ValueError: If rows are to be held out from other data than arrays, arrays have other
                numbers of rows, or data can be read once only or never end.
        """
        _check_read_again(x, validation, fit_options)
        _check_ends(x, validation, fit_options)
        parts = (x, y, sample_weight)
        if is_array_data(*parts):
            _check_rows(*parts)
        if validation is not None:
            return Data(x, y, sample_weight, validation, fit_options)
        if not is_array_data(*parts):
            listed = isinstance(x, (list, tuple)) or isinstance(y, (list, tuple))
            raise ValueError(
                "validation_data must be given with a data set that brings its own batches "
                f"({type(x).__name__}); got None. Rows can be held out from arrays only"
                + ("; np.asarray makes one of a list of numbers." if listed else ".")
            )
        rows = len(keras.tree.flatten(x)[0])
        if rows < 2:
            raise ValueError(f"x must have at least 2 rows, because one is held out; got {rows}.")
        kept, judged = held_out(y, rows, share, seed, sharing_devices())
        held = take_rows(parts, judged)
        x, y, sample_weight = take_rows(parts, kept)
        return Data(x, y, sample_weight, held if held[2] is not None else held[:2], fit_options)

    @property
    def rows(self) -> int | None:
        """Rows of arrays; None for a data set."""
        if not is_array_data(self.x, self.y, self.sample_weight):
            return None
        return len(keras.tree.flatten(self.x)[0])

    @property
    def batches(self) -> int | None:
        """Batches of an epoch of a data set; None if unknown."""
        given = self.fit_options.get("steps_per_epoch")
        if given is not None:
            return int(given)
        for name in ("cardinality", "num_batches", "__len__"):
            known = getattr(self.x, name, None)
            try:
                count = known() if callable(known) else known
                count = int(number(count)) if count is not None else -1
            except (TypeError, NotImplementedError, ValueError):
                continue
            if count > 0:
                return count
        return None


def is_read_once(data: Any) -> bool:
    """Whether data are a generator or another iterator, which does not begin anew."""
    return isinstance(data, Iterator) and not isinstance(data, keras.utils.PyDataset)


def _is_endless(data: Any) -> bool:
    """Whether a data set says that it has no last batch."""
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    cardinality = getattr(data, "cardinality", None)  # of a tf.data.Dataset; -2 is unknown
    return callable(cardinality) and number(cardinality()) == -1


def _check_ends(x: Any, validation: Any, fit_options: dict[str, Any]) -> None:
    """Refuse data whose epochs would never end.

    Raises:
        ValueError: If the validation data have no end, or `x` without `steps_per_epoch`.
    """
    if _is_endless(validation):
        raise ValueError(
            f"validation_data must end; got a {type(validation).__name__} of endless length. Pass "
            "a part of it: arrays, dataset.take(...), or a PyDataset with a number of batches."
        )
    if _is_endless(x) and fit_options.get("steps_per_epoch") is None:
        raise ValueError(
            f"The epochs of x must end; got a {type(x).__name__} of endless length. Pass "
            "steps_per_epoch."
        )


def _check_read_again(x: Any, validation: Any, fit_options: dict[str, Any]) -> None:
    """Refuse data that the first run would use up.

    Raises:
        ValueError: If the validation data are a generator, or `x` is one without `steps_per_epoch`.
    """
    way_out = "Pass arrays, or a data set that can be read again."
    if is_read_once(validation):
        raise ValueError(
            "validation_data must be data that each run can read; got a "
            f"{type(validation).__name__}, which the first evaluation uses up. {way_out}"
        )
    if is_read_once(x) and fit_options.get("steps_per_epoch") is None:
        raise ValueError(
            f"x must be data that each run can read; got a {type(x).__name__}, which the first run "
            f"uses up. {way_out} If it has no end, pass steps_per_epoch."
        )


def _check_rows(x: Any, y: Any, sample_weight: Any) -> None:
    """Refuse arrays with other numbers of rows.

    Raises:
        ValueError: If they have.
    """
    named = {"x": x, "y": y, "sample_weight": sample_weight}
    rows = {
        name: sorted({len(leaf) for leaf in keras.tree.flatten(part) if leaf is not None})
        for name, part in named.items()
    }
    if len({count for counts in rows.values() for count in counts}) > 1:
        got = ", ".join(f"{name} {' and '.join(map(str, n))}" for name, n in rows.items() if n)
        raise ValueError(f"x, y and sample_weight must have the same number of rows; got {got}.")
