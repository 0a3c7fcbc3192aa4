"""`GradualUnfreeze`: layers thaw group by group while a model trains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lr._util import checks
from keras_lr.callbacks.base import Policy
from keras_lr.optimizers.batch_norm import FrozenStatistics, owning_layers
from keras_lr.optimizers.multipliers import check_groups, covered, key_name
from keras_lr.optimizers.temporary_layerwise import TemporaryLayerwiseLR
from keras_lr.optimizers.variable_paths import path_of, paths_in
from keras_lr.steering import Length, Plan, held_optimizers, own_optimizers


class GradualUnfreeze(Policy):
    """Train the first group of layers alone, then the first two, and so on.

    A group that is frozen has multiplier 0; when it thaws, the multiplier that it has in the
    model's `LayerwiseLR`, or 1. Nothing is compiled again, and the optimizer keeps its state,
    for frozen weights too: their gradients go on into Adam's averages, which are ready when the
    weights thaw. So a frozen group saves no time; `layer.trainable = False` before `compile`
    does, and starts those averages from nothing.

    Batch normalisation in a frozen group keeps its moving statistics and normalises with them,
    as with `trainable = False`; `statistics=False` leaves it as it is. Where such a layer thaws,
    TensorFlow and JAX trace the training step once more.

    Works with any optimizer of Keras that `LayerwiseLR` takes, alone or in a loss scale, beside
    the callbacks that steer the rate, and resumes with `BackupAndRestore`.

    Args:
        groups: Layers in the order in which they begin to train, usually from the output to the
            input: a list of groups, each a layer, a layer's name or a regular expression as in
            `LayerwiseLR`, or a list of these. The first group trains from the start; so does
            what is in no group.
        epochs_per_group: Epochs from one group to the next, at least 1.
        statistics: Whether batch normalisation in frozen groups is frozen as well.
        verbose: 1 prints a line when a group thaws.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If there are no groups, or an argument is out of its range; when training
            begins, if a key covers nothing, two groups share a weight, or the length of the
            data is unknown.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification"
    (2018), section 3.3: the last layer first, one more each epoch.

    >>> thaw = GradualUnfreeze(["head", ["block2", "block3"], "block1"])
    >>> # model.fit(x, y, epochs=5, callbacks=[thaw])
    """

    claims = ("unfreezing",)
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
        self.verbose = verbose
        self._groups = _checked_groups(groups)
        self._lent: TemporaryLayerwiseLR | None = None
        self._frozen: list[FrozenStatistics] = []

    def get_config(self) -> dict[str, Any]:
        names = ("groups", "epochs_per_group", "statistics", "verbose")
        return {name: getattr(self, name) for name in names}

    def on_train_begin(self, logs: Any = None) -> None:
        held = own_optimizers(held_optimizers(self._unsynced_model))
        others = [name for name in held if name != "optimizer"]
        if others:
            raise ValueError(
                "GradualUnfreeze needs a model with one optimizer; "
                f"{self._unsynced_model.name!r} holds {', '.join(others)} as well. "
                "Set trainable of its layers between two fits."
            )
        if getattr(self._unsynced_model, "optimizer", None) is not None:
            self._lent = TemporaryLayerwiseLR(self._unsynced_model, type(self).__name__)
            try:
                self._indices = self._resolved(self._unsynced_model.trainable_variables)
            except ValueError:
                self._lent.restore()
                raise
        super().on_train_begin(logs)

    def plan(self, length: Length) -> Plan:
        if length.total is None:
            raise ValueError(
                "GradualUnfreeze needs the length of an epoch, which is unknown for this data "
                "set; got groups for several epochs. Pass steps_per_epoch to fit."
            )
        return Plan()

    def check(self, length: Length) -> None:
        needed = (len(self._groups) - 1) * self.epochs_per_group
        if needed >= length.epochs:
            warnings.warn(
                f"The last group should thaw before the training ends; got {len(self._groups)} "
                f"groups, {self.epochs_per_group} epochs each, and {length.epochs} epochs.",
                UserWarning,
                stacklevel=2,
            )

    def begin(self, length: Length) -> None:
        assert self._lent is not None and length.total is not None  # noqa: S101
        start, gates = self._fit.bindings[0].start, {}
        for place, indices in enumerate(self._indices):
            epoch = place * self.epochs_per_group
            if epoch:
                thaw = _Thaw(start + length.total * epoch // length.epochs)
                gates.update(dict.fromkeys(indices, thaw))
        self._lent.optimizer.gate(gates)
        if self.statistics:
            variables = self._unsynced_model.trainable_variables
            owners = owning_layers(self._unsynced_model)
            self._frozen = [
                FrozenStatistics({id(o := owners[id(variables[i])]): o for i in group}.values())
                for group in self._indices
            ]
            for part in self._frozen[self._thawed(self._fit.first_epoch) :]:
                part.freeze()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        thawed = self._thawed(epoch)
        if epoch and thawed > self._thawed(epoch - 1):
            if self.verbose:
                names = ", ".join(map(key_name, self._groups[thawed - 1]))
                keras.utils.io_utils.print_msg(f"Epoch {epoch + 1}: GradualUnfreeze thaws {names}.")
            self._thaw_statistics(thawed)

    def _thaw_statistics(self, thawed: int) -> None:
        parts = [part for part in self._frozen[:thawed] if part.frozen]
        for part in parts:
            part.thaw()
        if parts:
            self._fit.retrace()

    def leave(self) -> None:
        for part in self._frozen:
            part.thaw()
        self._frozen = []
        if self._lent is not None:
            self._lent.optimizer.gate({})
            self._lent.restore()
            self._lent = None

    def _thawed(self, epoch: int) -> int:
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
                            "A weight can be in one group; got two for "
                            f"{path_of(variables[index])!r}: groups {by[index]} and {place} of "
                            "GradualUnfreeze. Make one of them narrower."
                        )
        return [[i for i, p in by.items() if p == place] for place in range(len(self._groups))]


class _Thaw:
    """A multiplier of 0, and of 1 from an update of the optimizer on."""

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
        raise TypeError(f"A group must be of at least one layer; got an empty one in {groups!r}.")
    return checked
