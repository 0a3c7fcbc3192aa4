"""`GradualUnfreeze`: unfreezes layers group by group while a model trains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_lr._util import checks
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.optimizers.batch_norm import FrozenStatistics, owning_layers
from keras_lr.optimizers.multipliers import check_groups, covered, key_name
from keras_lr.optimizers.temporary_layerwise import TemporaryLayerwiseLR
from keras_lr.optimizers.variable_paths import path_of, paths_in
from keras_lr.steering import Length, Plan, fit_optimizers, model_optimizers


class GradualUnfreeze(SteeringCallback):
    """Train the first group of layers alone, then the first two, and so on.

    A frozen group has multiplier 0; afterwards it has its multiplier in the model's `LayerwiseLR`,
    or 1. The model is not compiled again, and the optimizer keeps its state, also for frozen
    weights: it adds their gradients to Adam's averages, which are ready when the weights are
    unfrozen. So a frozen group saves no time; `layer.trainable = False` before `compile` does, but
    starts these averages from zero.

    Batch normalization in a frozen group keeps its moving statistics and normalizes with them, as
    with `trainable = False`; `statistics=False` leaves it unchanged. When such a layer is unfrozen,
    TensorFlow and JAX trace the training step again.

    Works with any Keras optimizer that `LayerwiseLR` accepts, also in a `LossScaleOptimizer`, and
    with the callbacks that steer the rate; resumes with `BackupAndRestore`.

    Args:
        groups: Layers in the order in which they begin to train, usually from the output to the
            input: a list of groups, each a layer, a layer's name or a regular expression as in
            `LayerwiseLR`, or a list of these. The first group, and all layers that are not in a
            group, train from the start.
        epochs_per_group: Epochs from one group to the next, at least 1.
        statistics: Whether to freeze batch normalization in frozen groups.
        verbose: 1 prints a line when a group is unfrozen.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If there are no groups, or an argument is out of its range; when training
            begins, if a key matches no weight, two groups share a weight, or the length of the
            data is unknown.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification"
    (2018), section 3.3: the last layer first, one more each epoch.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> names = ("block1", "block2", "head")
    >>> layers = [keras.layers.Dense(1, name=name) for name in names]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> model.compile("adam", "mse")
    >>> before = keras.ops.convert_to_numpy(layers[0].kernel)
    >>> unfreeze = keras_lr.GradualUnfreeze(["head", "block2", "block1"])
    >>> history = model.fit(x, x.sum(axis=1), epochs=2, verbose=0, callbacks=[unfreeze])
    >>> np.array_equal(before, layers[0].kernel)  # `block1` would train from the third epoch on
    True
    """

    roles = ("unfreezing",)
    retraces = True

    def __init__(
        self,
        groups: Sequence[Any],
        epochs_per_group: int = 1,
        statistics: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.epochs_per_group = checks.count("epochs_per_group", epochs_per_group)
        self.statistics = checks.flag("statistics", statistics)
        self.verbose = checks.verbosity(verbose)
        self._groups = _checked_groups(groups)
        self._borrowed: TemporaryLayerwiseLR | None = None
        self._frozen: list[FrozenStatistics] = []

    def on_train_begin(self, logs: Any = None) -> None:
        names = fit_optimizers(model_optimizers(self._unsynced_model))
        others = [name for name in names if name != "optimizer"]
        if others:
            raise ValueError(
                "GradualUnfreeze needs a model with one optimizer; "
                f"{self._unsynced_model.name!r} has {', '.join(others)} as well. "
                "Set trainable of its layers between two fits."
            )
        if getattr(self._unsynced_model, "optimizer", None) is not None:
            self._borrowed = TemporaryLayerwiseLR(self._unsynced_model, type(self).__name__)
            try:
                self._indices = self._resolved(self._unsynced_model.trainable_variables)
            except ValueError:
                self._borrowed.restore()
                raise
        super().on_train_begin(logs)

    def plan(self, length: Length) -> Plan:
        if length.total is None:
            raise ValueError(
                "GradualUnfreeze needs the length of an epoch, which is unknown for this data "
                "set. Pass steps_per_epoch to fit."
            )
        return Plan()

    def check(self, length: Length) -> None:
        needed = (len(self._groups) - 1) * self.epochs_per_group
        if needed >= length.epochs:
            warnings.warn(
                "The last group should be unfrozen before the training ends; got "
                f"{len(self._groups)} groups, {self.epochs_per_group} epochs each, and "
                f"{length.epochs} epochs.",
                UserWarning,
                stacklevel=2,
            )

    def begin(self, length: Length) -> None:
        assert self._borrowed is not None and length.total is not None  # noqa: S101
        start, gates = self._steered.bindings[0].start, {}
        for place, indices in enumerate(self._indices):
            epoch = place * self.epochs_per_group
            if epoch:
                gate = _Gate(start + length.total * epoch // length.epochs)
                gates.update(dict.fromkeys(indices, gate))
        self._borrowed.optimizer.gate(gates)
        if self.statistics:
            variables = self._unsynced_model.trainable_variables
            owners = owning_layers(self._unsynced_model)
            self._frozen = [
                FrozenStatistics({id(o := owners[id(variables[i])]): o for i in group}.values())
                for group in self._indices
            ]
            for part in self._frozen[self._unfrozen(self._session.run.first_epoch) :]:
                part.freeze()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        epoch -= self._session.run.epochs_from
        unfrozen = self._unfrozen(epoch)
        if epoch and unfrozen > self._unfrozen(epoch - 1):
            if self.verbose:
                names = ", ".join(map(key_name, self._groups[unfrozen - 1]))
                print(f"\nEpoch {epoch + 1}: GradualUnfreeze unfreezes {names}.")
            self._unfreeze_statistics(unfrozen)

    def _unfreeze_statistics(self, unfrozen: int) -> None:
        parts = [part for part in self._frozen[:unfrozen] if part.frozen]
        for part in parts:
            part.thaw()
        if parts:
            self._session.retrace()

    def leave(self) -> None:
        for part in self._frozen:
            part.thaw()
        self._frozen = []
        if self._borrowed is not None:
            self._borrowed.optimizer.gate({})

    def hand_back(self) -> None:
        if self._borrowed is not None:
            self._borrowed.restore()
            self._borrowed = None

    def _unfrozen(self, epoch: int) -> int:
        """How many groups train in an epoch."""
        return min(1 + epoch // self.epochs_per_group, len(self._groups))

    def _resolved(self, variables: Sequence[Any]) -> list[list[int]]:
        """The indices of the variables of each group."""
        by: dict[int, int] = {}
        paths = paths_in(self._unsynced_model, variables)
        for place, group in enumerate(self._groups):
            for key in group:
                for index in covered(key, variables, paths):
                    if by.setdefault(index, place) != place:
                        raise ValueError(
                            "A weight can be in only one group of GradualUnfreeze; got groups "
                            f"{by[index]} and {place} for {path_of(variables[index])!r}. Make one "
                            "of them narrower."
                        )
        return [[i for i, p in by.items() if p == place] for place in range(len(self._groups))]


class _Gate:
    """A multiplier of 0 before an update of the optimizer, and of 1 from this update on."""

    def __init__(self, update: int) -> None:
        self._update = update

    def __call__(self, update: Any) -> Any:
        return ops.cast(ops.convert_to_tensor(update) >= self._update, "float32")


def _checked_groups(groups: Any) -> list[list[Any]]:
    checked = check_groups(groups)
    if not checked:
        raise ValueError(
            "groups must have a group that trains from the start; got an empty list. Begin with "
            "the last layer."
        )
    if [] in checked:
        raise TypeError(f"A group must have at least one layer; got an empty one in {groups!r}.")
    return checked
