"""`cooldown`: end a run at a constant rate with a decay, from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keras_lr._util import checks
from keras_lr.callbacks.schedule_lr import ScheduleLR
from keras_lr.schedules import WarmUpStableDecaySchedule
from keras_lr.steering import innermost_optimizers
from keras_lr.steering.optimizers import choose_optimizer, current_rate, updates_every


def cooldown(
    model: Any,
    x: Any,
    y: Any = None,
    steps: int = 1000,
    *,
    max_lr: float | None = None,
    shape: str = "1-sqrt",
    min_lr: float = 0.0,
    optimizer: Any = None,
    callbacks: Iterable[Any] | None = None,
    **fit_options: Any,
) -> Any:
    """Train for some updates while the rate decays, to end a run that held its rate.

    Load a checkpoint from before the decay, such as that of `WarmUpStableDecay(checkpoint=...)`,
    and call this: so one run gives models of several lengths. The optimizer goes on with its
    state. The data are repeated until the updates are made; then the training stops. Afterwards
    the optimizer has its own rate again.

    Args:
        model: A compiled Keras model.
        x, y: Data as in `fit`.
        steps: Updates of the decay, at least 1; 10 to 20 % of the whole run is usual.
        max_lr: Rate from which it decays, above 0. None for the optimizer's own rate, which is
            that of `compile`: a callback that held another rate does not change it.
        shape: `"1-sqrt"`, `"linear"` or `"cosine"`.
        min_lr: Rate to which it decays, in [0, `max_lr`].
        optimizer: The optimizer to steer, if the model trains with several.
        callbacks: Other callbacks; none that sets the rate.
        fit_options: Other arguments of `fit`: `batch_size`, `validation_data`, `verbose`, ...; not
            `epochs` and `initial_epoch`.

    Returns:
        The `History` of the `fit`.

    Raises:
        ValueError: If an argument is out of its range, or another callback sets the rate.
        TypeError: If an argument is of the wrong kind, or `epochs` is given.

    Source: Hägele et al., "Scaling laws and compute-optimal training beyond fixed training
    durations", 2024 (arXiv 2405.18392), section 4.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.Adam(0.01), "mse")
    >>> history = model.fit(x, x.sum(axis=1), epochs=5, batch_size=16, verbose=0)
    >>> history = keras_lr.cooldown(model, x, x.sum(axis=1), steps=8, shape="linear",
    ...                             batch_size=16, verbose=0)
    >>> [round(lr, 5) for lr in history.history["learning_rate"]]
    [0.00625, 0.00125]
    """
    steps = checks.count("steps", steps)
    for name in ("epochs", "initial_epoch"):
        if name in fit_options:
            raise TypeError(f"cooldown does not take {name}: steps is the length of the decay.")
    chosen = choose_optimizer(model, optimizer, "cooldown")
    if max_lr is None:
        max_lr = max(map(current_rate, innermost_optimizers(chosen)))
    schedule = WarmUpStableDecaySchedule(
        max_lr, steps, decay_steps=steps, decay=checks.choice("shape", shape, SHAPES), min_lr=min_lr
    )
    return model.fit(
        x,
        y,
        epochs=steps * updates_every(chosen),  # more than enough: it stops after these updates
        callbacks=[Cooldown(schedule, optimizer=optimizer), *(callbacks or ())],
        **fit_options,
    )


SHAPES = ("1-sqrt", "linear", "cosine")


class Cooldown(ScheduleLR):
    """Follows a schedule to its end, and stops the training there."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._session.updates_of(self._steered) >= self.schedule.total_steps:
            self._unsynced_model.stop_training = True
