"""`LRFinder`: the range test as a callback."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from typing import Any

import keras

from keras_lr._interrupts import uninterrupted
from keras_lr.callbacks.base import Policy
from keras_lr.loops.data import Replay
from keras_lr.range_test.find import Options, check_model, run_range_test
from keras_lr.range_test.result import RangeTest
from keras_lr.snapshot import Snapshot, optimizers_of
from keras_lr.steering import updates_every


class LRFinder(Policy):
    """Run the range test of `lr_find` on the data of a `fit`, and end that `fit`.

    The callback takes `fit`'s batches without training on them, until it has what the ramp
    needs or the epoch ends; then it runs the test on them, puts the model back as it was, and
    stops the training. Batches are repeated in a new order if the ramp is longer than the epoch.
    They are kept until then, so an epoch's worth of data is held at the most.

    Read the outcome from `result` and train with a new `fit`. An instance can serve several.

    Args:
        start_lr, end_lr, steps, ramp, repeats, stop_factor, validation_data, validation_every,
        validation_samples, confirm, seed, verbose: As in `lr_find`. Without `validation_data`,
            `confirm` judges by batches that it leaves out.

    Attributes:
        result: The `RangeTest` of the last `fit`; None before the first.

    Raises:
        ValueError: If an argument is out of its range; when `fit` begins, if a callback that
            steers the rate is in the list as well.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> finder = keras_lr.LRFinder()
    >>> history = model.fit(x, x.sum(axis=1), callbacks=[finder], verbose=0)
    >>> 1e-4 < finder.result.suggest().learning_rate < 10.0
    True
    """

    claims = ("find",)

    def __init__(
        self,
        *,
        start_lr: float = 1e-7,
        end_lr: float = 10.0,
        steps: int = 100,
        ramp: str = "exponential",
        repeats: int = 1,
        stop_factor: float | None = 4.0,
        validation_data: Any = None,
        validation_every: int | None = None,
        validation_samples: int = 512,
        confirm: bool = False,
        seed: int | None = None,
        verbose: str | int = "auto",
    ) -> None:
        super().__init__()
        self.options = Options(
            start_lr=start_lr,
            end_lr=end_lr,
            steps=steps,
            ramp=ramp,
            repeats=repeats,
            stop_factor=stop_factor,
            validation_every=validation_every,
            validation_samples=validation_samples,
            confirm=confirm,
            seed=seed,
            verbose=verbose,
        )
        self.validation_data = validation_data
        self.result: RangeTest | None = None

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal callback, `validation_data` apart."""
        return asdict(self.options)

    def on_train_begin(self, logs: Any = None) -> None:
        model = self._model  # self.model would copy JAX's state back and forth
        check_model(model)
        super().on_train_begin(logs)
        self.result = None
        self._batches: list[Any] = []
        self._needed = self.options.steps * self.options.repeats * updates_every(model.optimizer)
        self._snapshot = Snapshot(model)
        self._armed = False
        if any(optimizer.use_ema for optimizer in optimizers_of(model)):
            # `fit` ends by putting the averages in the place of the weights.
            self._snapshot.copy_values()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.result is None:
            self._train_function = self._model.train_function
            self._model.train_function = self._collect

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._armed = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.result is None and len(self._batches) >= self._needed:
            self._run()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.result is None:
            self._run()

    def leave(self) -> None:
        self._give_back(self._model)

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        with uninterrupted():
            model = self.model  # brings JAX's state home before it is overwritten
            self._give_back(model)
            stop, history = model.stop_training, model.history
            self._snapshot.restore()
            model.stop_training, model.history = stop, history
        del self._snapshot

    def _collect(self, *arguments: Any) -> Any:
        """Stands in for the train function: takes the batches and trains nothing.

        It stays in place if `fit` is interrupted. A later `fit` without this callback finds it
        unarmed, and gets the train function that was there before.
        """
        if not self._armed:
            self._give_back(self._model)
            self._model.make_train_function()
            return self._model.train_function(*arguments)
        self._armed = False
        if keras.backend.backend() == "torch":
            self._batches.extend(arguments[0])
            return {}
        *state, iterator = arguments
        batches = list(itertools.islice(iterator, self._model.steps_per_execution))
        if not batches:
            raise StopIteration
        self._batches.extend(batches)
        metrics = self._model._compile_metrics
        if metrics is not None and not metrics.built:
            # On TensorFlow the first training step builds them, and `fit` asks for their
            # results at the end of the epoch; on_train_end takes this back.
            self._model._symbolic_build(data_batch=batches[0])
        return ({}, *state) if state else {}

    def _run(self) -> None:
        model = self.model
        self._give_back(model)
        collected = Replay(self._batches)
        self._batches = []
        self.result = run_range_test(
            model,
            lambda: collected,
            self.options,
            self.validation_data,
            batch_size=None,
            hold_out=lambda bench: (
                collected,
                collected.set_aside(self.options.validation_samples),
            ),
        )
        model.stop_training = True

    def _give_back(self, model: Any) -> None:
        if model.train_function == self._collect:
            model.train_function = self._train_function
