"""The data of a search: what its runs train on, and what they are evaluated on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_lr._keras.distribution import sharing_devices
from keras_lr._keras.optimizers import number
from keras_lr.loops.data import is_array_data, take_rows
from keras_lr.range_test.checks import first_not_finite
from keras_lr.rate_search.split import held_out

__all__ = ["Data", "is_read_once"]


@dataclass(frozen=True)
class Data:
    """The data that the runs train on and are evaluated on.

    Attributes:
        x, y, sample_weight: Rows to train on; or `x` alone, a data set with batches of its own.
        validation: The `validation_data` of `fit`.
        fit_options: Further arguments of `fit`.
        given: `x`, `y` and `sample_weight` as the user gave them, with the rows that are held out.
    """

    x: Any
    y: Any
    sample_weight: Any
    validation: Any
    fit_options: dict[str, Any] = field(default_factory=dict)
    given: tuple[Any, Any, Any] = (None, None, None)

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
                numbers of rows, validation data have none or lack targets, or data can be read
                once only or never end.
        """
        _check_read_again(x, validation, fit_options)
        _check_ends(x, validation, fit_options)
        parts = (x, y, sample_weight)
        if is_array_data(*parts):
            _check_rows(*parts)
        if validation is not None:
            _check_validation(validation, y)
            return Data(x, y, sample_weight, validation, fit_options, parts)
        if not is_array_data(*parts):
            named = {"x": x, "y": y, "sample_weight": sample_weight}
            listed = [name for name, part in named.items() if isinstance(part, (list, tuple))]
            if listed:
                raise ValueError(
                    f"{listed[0]} must be an array, so that rows can be held out; got a "
                    f"{type(named[listed[0]]).__name__}. np.asarray makes one of numbers."
                )
            raise ValueError(
                "validation_data must be given with a data set that brings its own batches "
                f"({type(x).__name__}); got None. Rows can be held out from arrays only."
            )
        rows = len(keras.tree.flatten(x)[0])
        if rows < 2:
            raise ValueError(f"x must have at least 2 rows, because one is held out; got {rows}.")
        kept, judged = held_out(y, rows, share, seed, sharing_devices())
        held = take_rows(parts, judged)
        x, y, sample_weight = take_rows(parts, kept)
        validation = held if held[2] is not None else held[:2]
        return Data(x, y, sample_weight, validation, fit_options, parts)

    def first_not_finite(self) -> str | None:
        """Where the user's arrays have the first NaN or infinity; None if there is none."""
        found = None
        if is_array_data(*self.given):
            found = first_not_finite(*self.given)
        if found is None and is_array_data(self.validation):
            parts = keras.utils.unpack_x_y_sample_weight(self.validation)
            found = first_not_finite(*parts)
            found = found and f"In validation_data {found}"
        return found

    @property
    def rows(self) -> int | None:
        """Rows of arrays; None for a data set."""
        if not is_array_data(self.x, self.y, self.sample_weight):
            return None
        return len(keras.tree.flatten(self.x)[0])

    @property
    def batches(self) -> int | None:
        """Batches of an epoch of a data set; None if unknown.

        An epoch is never longer than the data, which `fit` does not repeat within it.
        """
        given, known = self.fit_options.get("steps_per_epoch"), self._length()
        return min((int(each) for each in (given, known) if each is not None), default=None)

    def steps(self, rows: int, batch_size: int, fraction: float = 1.0) -> int | None:
        """The `steps_per_epoch` of a run on a share of arrays; None if the user gave none.

        Args:
            rows: The rows of that share.
        """
        given = self.fit_options.get("steps_per_epoch")
        if given is None:
            return None
        return min(max(1, round(fraction * given)), math.ceil(rows / batch_size))

    def _length(self) -> int | None:
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


def _check_validation(validation: Any, y: Any) -> None:
    """Refuse validation data that `evaluate` cannot read, with the reason.

    Raises:
        ValueError: If there are no rows, not the same number in each array, no targets although
            the training data have some, or more parts than three.
    """
    parts = validation if isinstance(validation, (list, tuple)) else (validation,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            "validation_data must be (x, y), (x, y, sample_weight) or a data set; got "
            f"{len(parts)} parts."
        )
    if not is_array_data(validation):
        return
    x, targets, weight = keras.utils.unpack_x_y_sample_weight(validation)
    _check_rows(x, targets, weight, " of validation_data")
    if not len(keras.tree.flatten(validation)[0]):
        raise ValueError("validation_data must have at least one row; got none.")
    if y is not None and targets is None:
        raise ValueError(
            "validation_data must have targets, as the training data do; got x alone. Pass (x, y)."
        )


def _check_rows(x: Any, y: Any, sample_weight: Any, of: str = "") -> None:
    """Refuse arrays with other numbers of rows.

    Args:
        of: What follows their names in the message.

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
        raise ValueError(
            f"x, y and sample_weight{of} must have the same number of rows; got {got}."
        )
