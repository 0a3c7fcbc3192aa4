"""`LRFinder`: the range test as a callback."""

from __future__ import annotations

import copy
import itertools
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import keras

from keras_lr._keras.frames import caller_locals
from keras_lr._keras.object_graph import optimizers_of
from keras_lr._keras.optimizers import stored_rate
from keras_lr._keras.snapshot import Snapshot
from keras_lr._util.checks import count, flag
from keras_lr._util.interrupts import uninterrupted
from keras_lr._util.patching import replaced
from keras_lr.callbacks.base import SteeringCallback, monitored
from keras_lr.callbacks.plateau_rule import PlateauRule
from keras_lr.loops.data import is_array_data
from keras_lr.range_test.checks import check_model
from keras_lr.range_test.find import planned_length, run_range_test
from keras_lr.range_test.options import Options, checked_options, divided_budget, takes_options
from keras_lr.range_test.probes import longest_run
from keras_lr.range_test.result import RangeTest
from keras_lr.range_test.suggestion import NoSuggestion
from keras_lr.range_test.training_data import (
    CollectedBatches,
    TrainingData,
    passed_to_fit,
    validation_passed_to_fit,
)
from keras_lr.steering import Policy, innermost_optimizers, updates_every
from keras_lr.steering.companions import callbacks_of, refuse_swap
from keras_lr.steering.optimizers import assign_rate

if TYPE_CHECKING:
    from typing_extensions import Unpack


@takes_options
class LRFinder(SteeringCallback):
    """Run the range test of `lr_find` on the data of a `fit`: once before it, or repeatedly.

    Without `every` the test replaces the training. The callback takes `fit`'s batches without
    training on them, until it has as many as the ramp needs or the epoch ends; then it runs the
    test on them, restores the model and stops the training. If the ramp is longer than the epoch,
    the batches are repeated in a new order. At most one epoch of data is kept in memory.

    Read the result from `result` and train with a new `fit`. An instance can serve several.

    With `every=n` the model trains as usual, and before the epochs 0, n, 2n, ... a range test
    finds the rate that suits its weights at that time. The test has its own stream of data and
    restores everything: the run equals the one without it, to the last bit, in its weights,
    optimizer, random generators and history. It works beside all other callbacks of keras-lr;
    the test itself runs at the momentum that the optimizer was compiled with.

    With `every="plateau"` a test runs before the next epoch when `val_loss` has stalled, by the
    rule of `ReduceLROnPlateau`: a test comes where that callback would reduce the rate. A
    `PlateauRule` as `every` tells the metric, the patience and the rest. A resumed run goes on
    with the rule's counters, and the logs get `learning_rate`.

    Args:
        every: Epochs between two tests, at least 1; `"plateau"` or a `PlateauRule` to test when
            a metric stalls; None tests once and ends the `fit`.
        data: For `every`: the data of the tests, `(x, y)`, `(x, y, sample_weight)` or a data set;
            by default the arrays that `fit` trains on. If `fit` trains on a data set, pass
            another one: reading the same one twice would advance it. Arrays are batched as in
            `fit`.
        apply: For `every`: whether each suggestion becomes the optimizer's rate, which remains
            after the `fit`. The groups of a `MultiOptimizer` keep their ratios, and `WarmUp` and
            the plateau callbacks scale the new rate. If a curve supports no suggestion, the rate
            stays, with a warning that says why.
        optimizer, validation_data: As in `lr_find`. Without `validation_data`, the short runs are
            compared on batches of the `fit` that they leave out.
        options: The options of the range test; see `keras_lr.range_test.options.Options`.

    Attributes:
        result: The last `RangeTest`; None before the first.
        results: With `every`, the tests of the last `fit`: a list of `(epoch, RangeTest)`.
        applied: With `apply`, the rates that were set: a list of `(epoch, learning_rate)`.

    Raises:
        ValueError, TypeError: If an argument is out of its range or of the wrong kind. When
            `fit` begins: without `every`, if another callback of the `fit` sets the rate; with
            it, if the data cannot be read again; with `apply`, if the optimizer has a schedule;
            if `SwapEMAWeights` is in the list: with `every`, after this callback.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> finder = keras_lr.LRFinder()
    >>> history = model.fit(x, x.sum(axis=1), callbacks=[finder], verbose=0)
    >>> 1e-4 < finder.result.suggest().learning_rate < 10.0
    True
    >>> finder = keras_lr.LRFinder(every=2)
    >>> history = model.fit(x, x.sum(axis=1), epochs=4, callbacks=[finder], verbose=0)
    >>> [epoch for epoch, test in finder.results]
    [0, 2]
    """

    roles: tuple[str, ...] = ("find",)

    def __init__(
        self,
        *,
        optimizer: Any = None,
        validation_data: Any = None,
        every: int | str | PlateauRule | None = None,
        data: Any = None,
        apply: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        if every is not None:
            every = _checked_every(every)
        if flag("apply", apply) and every is None:
            raise ValueError(
                "apply=True goes with every; got every=None, which ends the fit. Pass every=1 to "
                "test before each epoch."
            )
        if data is not None and every is None:
            raise ValueError(
                "data goes with every; got every=None, which tests on the batches of the fit. "
                "Pass every, or leave data out."
            )
        self.options = checked_options(options, "LRFinder")
        self.optimizer = optimizer
        self.validation_data = validation_data
        self.every = every
        self.data = data
        self.apply = apply
        self.result: RangeTest | None = None
        self.results: list[tuple[int, RangeTest]] = []
        self.applied: list[tuple[int, float]] = []
        if every is not None:
            self.roles = ("rate",) if apply else ()
            self.trains_between_epochs = True
            # The callback does nothing at batches, so Keras need not wait for it.
            self.async_safe = True
        # A finder that applies nothing takes no part in the steering, not even in the logs.
        self._observes = isinstance(every, int) and not apply
        self._rule = every if isinstance(every, PlateauRule) else None
        self._stalled = False
        self._snapshot: Snapshot | None = None  # of the model, during a fit that the test replaces
        self._end_of_fit: ExitStack | None = None  # methods that are replaced now

    def set_model(self, model: Any) -> None:
        if self._observes:
            Policy.set_model(self, model)
        else:
            super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        model = self._unsynced_model  # self.model would copy JAX's state back and forth
        self._chosen = check_model(model, self.optimizer, "LRFinder")
        if self.apply:
            _check_settable(self._chosen)
        if self.every is not None:
            self._training_data = _data_of(model, self.data)
        if self._observes:
            refuse_swap(callbacks_of("on_train_begin"), self)
        else:
            super().on_train_begin(logs)
        self.result, self.results, self.applied = None, [], []
        if self._rule is not None:
            self._rule.reset()
            self._stalled = False
        if self.every is None:
            self._prepare(model)

    def _prepare(self, model: Any) -> None:
        self._batches: list[Any] = []
        steps, rest = divided_budget(self.options, self._planned_length())
        most = max(steps * self.options["repeats"], longest_run(rest))
        held_out = 1.25 if rest and self.validation_data is None else 1.0
        self._needed = int(most * updates_every(self._chosen) * held_out)
        self._snapshot = Snapshot(model)
        self._armed = False
        if any(optimizer.use_ema for optimizer in optimizers_of(model)):
            # `fit` ends by replacing the weights with their averages.
            self._snapshot.copy_values()

    def _planned_length(self, epoch: int = 0) -> int | None:
        """Updates of the planned run: as the options tell, else what is left of this `fit`.

        A `fit` of one epoch that the test replaces is not taken for the planned run.
        """
        epochs, batches = (self.params or {}).get("epochs"), (self.params or {}).get("steps")
        asked = planned_length(self.options, batches, self._chosen)
        if asked is not None or not epochs or not batches or epochs == 1:
            return asked
        return max(1, (epochs - epoch) * batches // updates_every(self._chosen))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.every is not None:
            if not self._observes:
                super().on_epoch_begin(epoch, logs)
            due = self._stalled
            if isinstance(self.every, int):
                due = epoch % self.every == 0
            self._stalled = False
            if due:
                self._test_between_epochs(epoch)
        elif self.result is None:
            self._train_function = self._unsynced_model.train_function
            self._unsynced_model.train_function = self._collect

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._armed = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.every is None and self.result is None and len(self._batches) >= self._needed:
            self._run()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.every is None and self.result is None:
            self._run()
        elif self.every is not None and not self._observes:
            super().on_epoch_end(epoch, logs)

    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        if self._rule is None:
            return
        value = monitored(logs, self._rule.monitor, "LRFinder")
        if value is None:
            return
        self._rule.look_up_direction(self._unsynced_model)
        decision = self._rule.observe(value)
        self._stalled = decision.action == "reduce"
        if decision.action == "stop":
            self._unsynced_model.stop_training = True

    def remember(self) -> dict[str, Any]:
        if self._rule is None:
            return {}
        return {"rule": self._rule.state(), "stalled": self._stalled}

    def recall(self, memory: dict[str, Any]) -> None:
        if self._rule is not None and "rule" in memory:
            self._rule.load(memory["rule"])
            self._stalled = bool(memory["stalled"])

    def leave(self) -> None:
        if self.every is None:
            self._unpatch(self._unsynced_model)

    def hand_back(self) -> None:
        if self._snapshot is None:
            return
        with uninterrupted():
            model = self.model  # reads JAX's state back before it is overwritten
            self._unpatch(model)
            stop, history = model.stop_training, model.history
            self._snapshot.restore()
            model.stop_training, model.history = stop, history
            self._snapshot = None

    def on_train_end(self, logs: Any = None) -> None:
        if not self._observes:
            super().on_train_end(logs)
        if self.every is not None:
            del self._training_data

    def _collect(self, *arguments: Any) -> Any:
        """Replaces the train function: keeps the batches and does not train.

        It stays in place if `fit` is interrupted. In a later `fit` without this callback it is
        not armed, and restores the earlier train function.
        """
        if not self._armed:
            self._unpatch(self._unsynced_model)
            self._unsynced_model.make_train_function()
            return self._unsynced_model.train_function(*arguments)
        self._armed = False
        if keras.backend.backend() == "torch":
            self._batches.extend(arguments[0])
            return {}
        *state, iterator = arguments
        batches = list(itertools.islice(iterator, self._unsynced_model.steps_per_execution))
        if not batches:
            raise StopIteration
        self._batches.extend(batches)
        self._patch_end_of_fit(self._unsynced_model)
        return ({}, *state) if state else {}

    def _run(self) -> None:
        model = self.model
        self._unpatch(model)
        collected = CollectedBatches(self._batches)
        self._batches = []
        validation = validation_passed_to_fit(model, self.validation_data, None)
        with validation as (validation_data, batch_size):
            self.result = run_range_test(
                model,
                self._chosen,
                collected,
                self.options,
                validation_data,
                batch_size,
                self._planned_length(),
            )
        self.result._continue = None  # it would keep the batches
        self._patch_end_of_fit(model)
        model.stop_training = True

    def _patch_end_of_fit(self, model: Any) -> None:
        """Replace the calls for metrics and averages at the end of the `fit`.

        On TensorFlow the first training step creates both, and none has run.
        """
        if self._end_of_fit is not None:
            return
        self._end_of_fit = ExitStack()
        self._end_of_fit.enter_context(replaced(model, "get_metrics_result", dict))
        if model.optimizer is not None:
            method = replaced(model.optimizer, "finalize_variable_values", _nothing)
            self._end_of_fit.enter_context(method)

    def _unpatch(self, model: Any) -> None:
        """Remove everything that this callback put into the model."""
        if model.train_function == self._collect:
            model.train_function = self._train_function
        if self._end_of_fit is not None:
            self._end_of_fit.close()
            self._end_of_fit = None

    def _test_between_epochs(self, epoch: int) -> None:
        """A range test between two epochs of the `fit`."""
        model, data = self.model, self._training_data  # on JAX this reads the state back
        with ExitStack() as stack:
            if self.data is not None:
                passed = passed_to_fit(data, self.validation_data)
                data, validation_data, size = stack.enter_context(passed)
            else:
                size = data.fit_options["batch_size"]
                ready = validation_passed_to_fit(model, self.validation_data, size)
                validation_data, size = stack.enter_context(ready)
            self.result = run_range_test(
                model,
                self._chosen,
                data,
                self.options,
                validation_data,
                size,
                self._planned_length(epoch),
            )
        self.result._continue = None  # its states are those of earlier weights
        self.results.append((epoch, self.result))
        if self.apply:
            self._apply(epoch, self.result)

    def _apply(self, epoch: int, test: RangeTest) -> None:
        try:
            # What is applied stays, unless another callback scales it.
            constant = "constant" if self.options["policy"] is None else None
            suggestion = test.suggest(policy=constant)
        except NoSuggestion as error:
            warnings.warn(
                f"LRFinder leaves the learning rate of epoch {epoch} as it is: {error}",
                UserWarning,
                stacklevel=2,
            )
            return
        old, new = self._set_rate(suggestion.learning_rate)
        self.applied.append((epoch, suggestion.learning_rate))
        if self.options["verbose"] in (1, 2):
            print(f"\nEpoch {epoch + 1}: learning rate {old:.4g} -> {new:.4g}.")

    def _set_rate(self, rate: float) -> tuple[float, float]:
        """Set the rate of the chosen optimizer; the fastest group's rate before and after."""
        if self._chosen is self._unsynced_model.optimizer:
            change = self._steered.set_rate(rate)
            return change.old, change.new
        return assign_rate(self._chosen, rate), rate


def _checked_every(every: Any) -> int | PlateauRule:
    """Epochs between two tests, or a rule of the callback's own that tells when the metric stalls.

    Raises:
        TypeError: If `every` is of another kind.
        ValueError: If it is out of its range, or the rule can raise the rate.
    """
    if isinstance(every, str) and every == "plateau":
        return PlateauRule()
    if isinstance(every, str):
        raise ValueError(
            f"every must be a number of epochs, 'plateau' or a PlateauRule; got {every!r}."
        )
    if not isinstance(every, PlateauRule):
        return count("every", every)
    if every.growth_factor is not None:
        raise ValueError(
            "The PlateauRule of LRFinder must have no growth_factor, because the test finds the "
            f"rate; got growth_factor={every.growth_factor!r}."
        )
    rule = copy.copy(every)  # one rule may serve several callbacks
    rule.reset()
    return rule


def _nothing(variables: Any) -> None:
    """Replaces a method of an optimizer that has not trained."""


def _check_settable(chosen: Any) -> None:
    """Refuse an optimizer whose rate is not a number."""
    for optimizer in innermost_optimizers(chosen):
        if not hasattr(stored_rate(optimizer), "assign"):
            raise ValueError(
                "LRFinder(apply=True) sets the optimizer's learning rate, and this one was "
                f"compiled with {type(stored_rate(optimizer)).__name__}. Compile it with a "
                "number, or pass apply=False."
            )


def _data_of(model: Any, given: Any) -> TrainingData:
    """The data of the tests: the ones given, or the arrays of the running `fit`.

    Raises:
        ValueError: If reading them would advance the data of the `fit`.
    """
    fit = caller_locals("fit", keras.Model) or {}
    outer = fit if given is None else caller_locals("fit", keras.Model, outermost=model) or fit
    names = ("batch_size", "shuffle", "class_weight")
    options = {"shuffle": True, **{n: held[n] for held in (fit, outer) for n in names if n in held}}
    options.setdefault("batch_size", None)
    arrays = (fit.get("x"), fit.get("y"), fit.get("sample_weight"))
    if given is not None:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(given)
        if is_array_data(x, y, sample_weight):
            return TrainingData(model, x, y, sample_weight, None, options)
        if given is not arrays[0]:
            return TrainingData(model, given, fit_options={**options, "batch_size": None})
    elif is_array_data(*arrays):
        return TrainingData(model, *arrays, None, options)
    raise ValueError(
        "LRFinder(every=...) cannot read the data of this fit a second time without advancing "
        f"it; got {type(arrays[0]).__name__}. Pass data=(x, y), or a second data set as data."
    )
