"""The check that training updates every optimizer that callbacks steer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_lr._keras.optimizers import counters, number
from keras_lr.steering.backends.jax import place_in_state
from keras_lr.steering.optimizers import all_optimizers, model_optimizers
from keras_lr.steering.run import Run
from keras_lr.steering.steered_optimizer import SteeredOptimizer

# Batches after which an optimizer must have made an update; some steps of a GAN update only one
# of its optimizers.
_PATIENCE = 10


class UpdateCheck:
    """Raises if a steered optimizer makes no update in the first batches; checks once."""

    def __init__(self, run: Run, optimizers: Mapping[str, SteeredOptimizer]) -> None:
        self._run, self._optimizers = run, optimizers
        self._before: dict[str, dict[int, float]] | None = None

    def begin(self) -> None:
        """Remember the counters before the first batch."""
        self._before = self._counters()

    def after_batch(self, done: int, state: Any) -> None:
        """Check after the first batches.

        Args:
            done: Batches of this process.
            state: On JAX, the training state; otherwise None.
        """
        if done >= _PATIENCE and self._before is not None:
            self.check(state)

    def check(self, state: Any = None) -> None:
        """Check now, if that has not been done.

        Raises:
            ValueError: If a steered optimizer has made no update.
        """
        before, self._before = self._before, None
        run = self._run
        if before is None or run.by_hand or run.patch is None or not run.patch.has_trained():
            return
        now = self._counters(state)
        for name, steered in self._optimizers.items():
            if before[name] == now[name]:
                raise ValueError(_no_update(run.model, steered))
        if run.patch.counted_in_graph() == 0:
            raise ValueError(
                f"The train function of {type(run.model).__name__} never calls train_step, and "
                "the callbacks of keras_lr cannot count its steps. Override train_step instead of "
                "make_train_function."
            )

    def _counters(self, state: Any = None) -> dict[str, dict[int, float]]:
        """The counters of each optimizer; the first update may create more of them."""
        found: dict[str, dict[int, float]] = {}
        for name, steered in self._optimizers.items():
            found[name] = {}
            for each in _counters_of(steered.optimizer):
                at = None if state is None else place_in_state(self._run.model, each)
                value = number(each) if at is None else float(state[at[0]][at[1]])
                found[name][id(each)] = value
        return found


def _counters_of(optimizer: Any) -> list[Any]:
    """Variables of an optimizer of which each update changes one, also a skipped update."""
    return [each for part in all_optimizers(optimizer) for each in counters(part)]


def _no_update(model: Any, steered: SteeredOptimizer) -> str:
    whose = " and ".join(dict.fromkeys(type(each).__name__ for each in steered.policies))
    others = [each for each in model_optimizers(model) if each != steered.name]
    way_out = (
        f"Pass optimizer={others[0]!r}, or another optimizer of the model: {', '.join(others)}."
        if others
        else "Check that the model has trainable weights, and which optimizer its train_step uses."
    )
    return (
        f"{whose} steers the optimizer {steered.name!r} of the model {model.name!r}, which made no "
        f"update in the first batches. {way_out}"
    )
