"""The state that a resumed run needs, saved together with the weights by Keras."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_lr._keras.saving import Saveable
from keras_lr.steering.composition import Length
from keras_lr.steering.policy import Policy
from keras_lr.steering.run import Run
from keras_lr.steering.steered_optimizer import SteeredOptimizer

_VERSION = 1


class Backup:
    """Saves and loads the state of a steered fit.

    Args:
        run: The run.
        optimizers: Its steered optimizers, by name; they join later.
        policies: Its callbacks; they join later.

    Attributes:
        ready: Whether the run has begun: there is a state to save, and too late to load one.
        saveable: An attribute of the model during the fit, which Keras saves and loads.
    """

    def __init__(
        self, run: Run, optimizers: Mapping[str, SteeredOptimizer], policies: Sequence[Policy]
    ) -> None:
        self._run, self._optimizers, self._policies = run, optimizers, policies
        self._loaded: dict[str, Any] | None = None
        self.ready = False
        self.saveable = Saveable(self.save, self.load)

    @property
    def batches(self) -> int | None:
        """Batches that the run had trained; None if nothing was loaded."""
        return None if self._loaded is None else int(self._loaded["batches"])

    def start_of(self, name: str) -> int | None:
        """What an optimizer's counter showed when the run began; None if it was not saved."""
        if self._loaded is None:
            return None
        starts = self._loaded["starts"]
        return int(starts.get(name, next(iter(starts.values()))))

    def scales_of(self, name: str) -> np.ndarray | None:
        """The plateau callbacks' scales of the rates of an optimizer."""
        scales = None if self._loaded is None else self._loaded["scales"].get(name)
        return None if scales is None else np.array(scales)

    def check_lengths(self) -> None:
        """Warn if the run was planned for another length than it continues with."""
        lengths = (self._loaded or {}).get("lengths", {})
        for name, steered in self._optimizers.items():
            if name not in lengths:
                continue
            was, now = Length(*lengths[name]), steered.length
            if was.total in (None, now.total) or now.total is None:
                continue
            for policy in steered.policies:
                old = policy.follows(was)
                if old != policy.follows(now):
                    _warn_of_length(policy, was, now, old)

    def recall(self) -> None:
        """Restore the saved state of every policy."""
        for key, policy in self._named_policies():
            memory = (self._loaded or {"members": {}})["members"].get(key)
            if memory is not None:
                policy.recall(memory)

    def save(self, store: Any) -> None:
        """Write the state to a store of Keras."""
        if not self.ready:
            return
        members: dict[str, Any] = {}
        for key, policy in self._named_policies():
            members[key] = {}
            for name, value in policy.remember().items():
                if _is_arrays(value):
                    members[key][name] = {"arrays": len(value)}
                    for index, array in enumerate(value):
                        store[f"{key}.{name}.{index}"] = array
                else:
                    members[key][name] = value
        optimizers = self._optimizers.items()
        memory = {
            "version": _VERSION,
            "batches": self._run.batches,
            "starts": {name: each.account.begun_at for name, each in optimizers},
            "lengths": {name: [each.length.total, each.length.epochs] for name, each in optimizers},
            "scales": {name: each.account.scales() for name, each in optimizers},
            "members": members,
        }
        store["memory"] = np.frombuffer(json.dumps(memory).encode(), np.uint8)

    def load(self, store: Any) -> None:
        """Read the state from a store of Keras."""
        if self.ready or "memory" not in store.keys():
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

    def _named_policies(self) -> list[tuple[str, Policy]]:
        """The policies under names that are the same when the script runs again."""
        names: list[tuple[str, Policy]] = []
        for policy in self._policies:
            kind = type(policy).__name__
            count = sum(name.startswith(f"{kind}.") for name, _ in names)
            names.append((f"{kind}.{count}", policy))
        return names


def _warn_of_length(policy: Policy, was: Length, now: Length, arguments: dict[str, Any]) -> None:
    name = type(policy).__name__
    keeping = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    warnings.warn(
        f"A resumed run should have its planned length; {name} planned {was.total} updates "
        f"({was.epochs} epochs), and the run continues with {now.total} ({now.epochs} epochs). "
        f"The learning rate jumps to another curve. To keep the old plan, pass {keeping} to "
        f"{name}.",
        UserWarning,
        stacklevel=2,
    )


def _is_arrays(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], np.ndarray)
