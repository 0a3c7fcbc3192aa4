"""What a killed run leaves to the next: saved with the weights, by whatever saves those."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lr._keras.saving import Saveable
from keras_lr.steering.rule import Length

if TYPE_CHECKING:
    from keras_lr.steering.fit import Member, SteeredFit

_VERSION = 1


class Backup:
    """Saves and loads the memory of a steered fit.

    Attributes:
        saveable: Hangs on the model during the fit, for Keras's saving to find.
    """

    def __init__(self, fit: SteeredFit) -> None:
        self._fit = fit
        self._loaded: dict[str, Any] | None = None
        self.saveable = Saveable(lambda store: self.save(store), lambda store: self.load(store))

    @property
    def batches(self) -> int | None:
        """Batches that the run had trained; None if nothing was loaded."""
        if self._loaded is None:
            return None
        counted = self._loaded.get("batches")
        if counted is not None:
            return int(counted)
        # Written before batches were counted: the optimizer's counter was.
        steered = next(iter(self._fit.optimizers.values()))
        return steered.counter() - int(self._loaded["start_batch"])

    def start_of(self, name: str) -> int | None:
        """What an optimizer's counter showed when the run began; None if that was not saved."""
        if self._loaded is None:
            return None
        starts = self._loaded.get("starts", {})
        return int(starts.get(name, self._loaded["start_batch"]))

    def scales_of(self, name: str) -> np.ndarray | None:
        """What plateau callbacks had scaled the rates of an optimizer by."""
        if self._loaded is None:
            return None
        scales = self._loaded["scales"]
        scales = scales.get(name) if isinstance(scales, dict) else scales
        return None if scales is None else np.array(scales)

    def check_lengths(self) -> None:
        """Warn if the run was planned for another length than it goes on with."""
        lengths = (self._loaded or {}).get("lengths", {})
        for name, steered in self._fit.optimizers.items():
            if name not in lengths:
                continue
            was, now = Length(*lengths[name]), steered.length
            if was.total in (None, now.total) or now.total is None:
                continue
            for member in steered.members:
                old = member.follows(was)
                if old != member.follows(now):
                    _warn_of_length(member, was, now, old)

    def recall(self) -> None:
        """Give every member what it had to remember."""
        for key, member in self._named_members():
            memory = (self._loaded or {"members": {}})["members"].get(key)
            if memory is not None:
                member.recall(memory)

    def save(self, store: Any) -> None:
        fit = self._fit
        if not fit.begun:
            return
        members: dict[str, Any] = {}
        for key, member in self._named_members():
            members[key] = {}
            for name, value in member.remember().items():
                if _is_arrays(value):
                    members[key][name] = {"arrays": len(value)}
                    for index, array in enumerate(value):
                        store[f"{key}.{name}.{index}"] = array
                else:
                    members[key][name] = value
        optimizers = fit.optimizers.items()
        memory = {
            "version": _VERSION,
            "batches": fit.batches(),
            "start_batch": next(iter(fit.optimizers.values())).begun_at,
            "starts": {name: each.begun_at for name, each in optimizers},
            "lengths": {name: [each.length.total, each.length.epochs] for name, each in optimizers},
            "scales": {name: each.scales() for name, each in optimizers},
            "members": members,
        }
        store["memory"] = np.frombuffer(json.dumps(memory).encode(), np.uint8)

    def load(self, store: Any) -> None:
        if self._fit.begun or "memory" not in store.keys():
            return
        memory = json.loads(bytes(np.asarray(store["memory"])).decode())
        if memory["version"] != _VERSION:
            raise ValueError(
                f"The backup was made by another version of keras_lr; got format "
                f"{memory['version']}, and this version reads {_VERSION}. Finish the run with "
                "the version that began it, or delete the backup."
            )
        for key, values in memory["members"].items():
            for name, value in values.items():
                if isinstance(value, dict) and set(value) == {"arrays"}:
                    values[name] = [
                        np.asarray(store[f"{key}.{name}.{index}"])
                        for index in range(value["arrays"])
                    ]
        self._loaded = memory

    def _named_members(self) -> list[tuple[str, Member]]:
        """The members under names that are the same when the script runs again."""
        names: list[tuple[str, Member]] = []
        for member in self._fit.members:
            kind = type(member).__name__
            count = sum(name.startswith(f"{kind}.") for name, _ in names)
            names.append((f"{kind}.{count}", member))
        return names


def _warn_of_length(member: Any, was: Length, now: Length, arguments: dict[str, Any]) -> None:
    name = type(member).__name__
    keeping = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    warnings.warn(
        f"A resumed run should have the length that it was planned for; {name} planned "
        f"{was.total} updates ({was.epochs} epochs), and the run goes on with {now.total} "
        f"({now.epochs} epochs), so the learning rate jumps to another curve. To keep the old "
        f"plan, pass {keeping} to {name}.",
        UserWarning,
        stacklevel=2,
    )


def _is_arrays(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], np.ndarray)
