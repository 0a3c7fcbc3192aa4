"""A copy of a model's whole state, to restore it.

What training can change is found by walking from the model over everything that is reachable
(`object_graph`). It is of two kinds. *Values*: variables, tensors, arrays, random generators. They
are copied once: to host memory, or on an accelerator that has twenty times their size free
(`values`, `device_memory`, `tensors`, `random_state`). *Python state*: the attributes of objects
and the contents of containers. Training changes numbers and lists that a program keeps there, and
it builds what was not built: layers, slots of an optimizer, metrics. The old attributes and
contents are remembered, by reference, and restored (`python_state`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_lr._keras.python_state import PythonState
from keras_lr._keras.random_state import RandomState, make_seed_generator
from keras_lr._keras.tensors import TensorCopies, torch_gradients
from keras_lr._keras.values import Values, of_metrics, variables_without
from keras_lr._util.interrupts import uninterrupted

__all__ = ["KeptState", "Snapshot"]


class KeptState:
    """The values and the Python state of a model in the middle of a training run.

    Those of metrics are left out: Keras creates them as late as it needs them, and a step that is
    looked at starts with new ones.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._python = PythonState(model)
        self._variables = self._python.without_metrics()
        self._values = Values(model, self._variables, tensors=False, on_device=True)
        self._tensors = TensorCopies(model, self._python.tensors)

    @property
    def nbytes(self) -> int:
        """Memory that the values of variables take, in bytes."""
        return self._values.nbytes

    @property
    def variables(self) -> list[Any]:
        """Its variables."""
        return self._variables

    def put_back(self, start: PythonState) -> None:
        """Assign the values.

        Args:
            start: The state that has been restored. Its variables differ from those of the kept
                state if an optimizer was unbuilt in between and built again.
        """
        now = start.without_metrics()
        if len(now) != len(self._variables):
            raise RuntimeError(
                f"The model had {len(self._variables)} variables when its state was kept; it has "
                f"{len(now)} now."
            )
        values = self._values
        if any(a is not b for a, b in zip(now, self._variables, strict=True)):
            values = Values(self._model, now, self._values.arrays, tensors=False)
        values.restore()
        self._tensors.restore()
        self._python.rewind()


class Snapshot:
    """A copy of everything that training changes in a model and in the random generators.

    Take it before the model is changed, call `copy_values` once its variables exist, and
    `restore` at the end. `rewind` starts another run from the same point: it restores values and
    the Python state of a program, and leaves the model built and its functions compiled.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._random = RandomState()
        self._before = PythonState(model)
        self._tensors_before = TensorCopies(model, self._before.tensors)
        self._start: PythonState | None = None
        self._values: Values | None = None
        self._tensors: TensorCopies | None = None
        self._drop_gradients: Callable[[], None] | None = None

    def copy_values(self) -> None:
        """Copy everything that `rewind` restores.

        Warns:
            UserWarning: If the model holds something that cannot be restored.
        """
        make_seed_generator()  # made by a step, it could not be set back to its start
        start = PythonState(self._model)
        self._values = Values(self._model, start.variables, tensors=False, on_device=True)
        self._tensors = TensorCopies(self._model, start.tensors, earlier=self._tensors_before)
        if keras.backend.backend() == "torch":
            tensors = [v.value for v in start.variables] + [part for _, part in start.tensors]
            self._drop_gradients = torch_gradients(self._model, tensors)
        self._start = start
        for path, part in start.positions:
            warnings.warn(
                f"The model holds an iterator, {path} ({type(part).__name__}), whose position "
                "cannot be restored: training goes on from where this run leaves it.",
                UserWarning,
                stacklevel=2,
            )

    @property
    def nbytes(self) -> int:
        """Memory that the copied values of variables take, in bytes."""
        return 0 if self._values is None else self._values.nbytes

    def rewind(self) -> bool:
        """Go back to the start: the next training step begins where the first one did.

        Returns:
            Whether variables that training had created were removed. Their initial values are
            unknown; the next step has to create them again.
        """
        if self._start is None or self._values is None or self._tensors is None:
            return False
        grown = self._has_new(variables_without(self._model, of_metrics))
        if grown:
            self._start.restore()  # what was built since, and what was compiled with it
        self._values.restore()
        self._tensors.restore()
        if self._drop_gradients is not None:
            self._drop_gradients()
        self._start.rewind()
        return grown

    def capture(self) -> KeptState | None:
        """The state now, for `resume`; None if variables were created since."""
        state = KeptState(self._model)
        return None if self._has_new(state.variables) else state

    def resume(self, state: KeptState) -> None:
        """Go on, after a `rewind`, from a state that `capture` returned."""
        if self._start is not None:
            state.put_back(self._start)

    def _has_new(self, variables: list[Any]) -> bool:
        """Whether some of these variables were created since `copy_values`."""
        if self._start is None:
            return False
        known = {id(each) for each in self._start.variables}
        return any(id(each) not in known for each in variables)

    def restore(self) -> None:
        """Restore everything, and drop the copies."""
        if self._values is not None:
            self._values.restore(last=True)
        if self._drop_gradients is not None:
            self._drop_gradients()
        self._tensors_before.restore()
        self._before.restore()
        self._random.restore()
        self._values, self._tensors, self._start, self._drop_gradients = None, None, None, None

    @contextmanager
    def guarding(self) -> Iterator[Snapshot]:
        """Restore when the block ends, also by an exception; Ctrl-C waits until that is done."""
        try:
            yield self
        finally:
            with uninterrupted():
                self.restore()
