"""Keras's methods on a model whose optimizer trains at other weights than it evaluates.

`fit` and `train_on_batch` train at one point; validation, callbacks at the end of an epoch,
checkpoints, `evaluate`, `predict`, `save` and the like need the other one. An optimizer has no hook
for that, so this module wraps these methods once, in the Keras class that defines them. Models with
other optimizers pass through.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import keras

from keras_lr._keras.replicas import has_strategy
from keras_lr._keras.trainer import synchronise
from keras_lr.optimizers.moving_statistics import collecting_layers, recompute, sample_of
from keras_lr.steering import innermost_optimizers, model_optimizers
from keras_lr.steering.guard import fits_running

_MARK = "_keras_lr_at_point"
# What computes the statistics of batch normalization, for each model that is in a fit.
_recomputes: WeakKeyDictionary[Any, Callable[[], None]] = WeakKeyDictionary()
_trained: list[Any] = []  # the models that are in a fit or in train_on_batch, the inner one last
_EVALUATING = (
    "evaluate", "predict", "test_on_batch", "predict_on_batch", "save", "save_weights", "export",
)  # fmt: skip


def wrap_methods(kind: type) -> None:
    """Wrap the methods of `keras.Model`; a second call has no effect.

    Args:
        kind: A class of optimizers with the methods `train()` and `eval()`, which put the weights
            to either point and have no effect if they are there; and `evaluates`, whether they
            are at the second one.
    """
    for name in _EVALUATING:
        _wrap(name, functools.partial(_evaluating, kind))
    _wrap("train_on_batch", functools.partial(_training_on_batch, kind))
    _wrap("compile", functools.partial(_compiling, kind))
    _wrap("fit", functools.partial(_fitting, kind))


def _wrap(name: str, around: Any) -> None:
    owner = next(each for each in keras.Model.__mro__ if name in vars(each))
    original = vars(owner)[name]
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(original, self, *args, **kwargs)

    setattr(method, _MARK, True)
    setattr(owner, name, method)


def _evaluating(kind: type, original: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(kwargs.get("callbacks"), keras.callbacks.CallbackList):
        # The validation of a fit. The end of the epoch follows, which needs the same weights.
        put_to_average(kind, model)
        return original(model, *args, **kwargs)
    with _at_average(kind, model):
        return original(model, *args, **kwargs)


def _training_on_batch(kind: type, original: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    put_to_training(kind, model)
    with _training(model):
        return original(model, *args, **kwargs)


def _compiling(kind: type, original: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    """Leave the weights where they are evaluated: a new optimizer knows one point only."""
    put_to_average(kind, model)
    return original(model, *args, **kwargs)


def _fitting(kind: type, original: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    if not _optimizers(kind, model):
        with _training(model):
            return original(model, *args, **kwargs)
    bound = inspect.signature(original).bind(model, *args, **kwargs)
    with ExitStack() as stack:
        if fits_running(model):  # the fit around this one goes on where it was
            stack.enter_context(_point_kept(kind, model))
        stack.enter_context(_statistics_known(kind, model, bound.arguments))
        given, ours = bound.arguments.get("callbacks"), _Switch(kind, model)
        if isinstance(given, keras.callbacks.CallbackList):
            own = given.callbacks
            given.callbacks = [ours, *own]
            stack.callback(setattr, given, "callbacks", own)
        else:
            bound.arguments["callbacks"] = [ours, *keras.tree.flatten(given or [])]
        try:
            with _training(model):
                result = original(*bound.args, **bound.kwargs)
        except BaseException:
            with suppress(Exception):  # the first exception matters
                put_to_average(kind, model)
            raise
        put_to_average(kind, model)
        return result


class _Switch(keras.callbacks.Callback):
    """The first callback of a fit: it trains each epoch at one point, and ends it at the other."""

    def __init__(self, kind: type, model: Any) -> None:
        super().__init__()
        self._kind, self._trained_model = kind, model

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        put_to_training(self._kind, self._trained_model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        put_to_average(self._kind, self._trained_model)


def put_to_training(kind: type, model: Any) -> None:
    """Put the weights of a model to the point where its optimizer trains."""
    for optimizer in _optimizers(kind, model):
        synchronise(model)
        optimizer.train()


def put_to_average(kind: type, model: Any) -> list[Any]:
    """Put the weights of a model to the point where it is evaluated.

    Returns the optimizers that moved them.
    """
    found = _optimizers(kind, model)
    if found:
        synchronise(model)
    moved = [each for each in found if each.built and not each.evaluates]
    for optimizer in moved:
        optimizer.eval()
    if moved and model in _recomputes:
        _recomputes[model]()
    return moved


@contextmanager
def _training(model: Any) -> Iterator[None]:
    _trained.append(model)
    try:
        yield
    finally:
        _trained.pop()


def check_switched(optimizer: Any) -> None:
    """Refuse an optimizer within a part of the model that trains now, where nothing switches it.

    Raises:
        ValueError: If it is one.
    """
    if not _trained or any(each is optimizer for each in _optimizers(object, _trained[-1])):
        return
    for path, each in model_optimizers(_trained[-1]).items():
        if any(part is optimizer for part in innermost_optimizers(each)):
            owner, name = _trained[-1].name, path.replace(".", "_")
            raise ValueError(
                f"The model {owner!r} must hold the optimizers that it trains with, to evaluate at "
                f"the average of ScheduleFree; got one in a part of it, {path}. Give it an "
                f"attribute of its own, self.{name} = self.{path}."
            )


@contextmanager
def _point_kept(kind: type, model: Any) -> Iterator[None]:
    """Put the weights back to where they were trained, if they were there."""
    training = [each for each in _optimizers(kind, model) if not each.evaluates]
    try:
        yield
    finally:
        synchronise(model)
        for optimizer in training:
            optimizer.train()


@contextmanager
def _at_average(kind: type, model: Any) -> Iterator[None]:
    moved = put_to_average(kind, model)
    try:
        yield
    finally:
        if moved:
            synchronise(model)
        for optimizer in moved:
            optimizer.train()


def _optimizers(kind: type, model: Any) -> list[Any]:
    """The optimizers of a kind that a model holds, in its attributes or in lists of them.

    Called for each batch of `train_on_batch`, so it does not search nested models.
    """
    found: dict[int, Any] = {}
    for held in (getattr(model, "optimizer", None), *vars(model).values()):
        several = held.values() if isinstance(held, dict) else held
        for each in several if isinstance(held, (list, tuple, dict)) else (held,):
            if isinstance(each, keras.optimizers.Optimizer):
                found.update((id(part), part) for part in innermost_optimizers(each))
    return [each for each in found.values() if isinstance(each, kind)]


@contextmanager
def _statistics_known(kind: type, model: Any, arguments: dict[str, Any]) -> Iterator[None]:
    """Within a fit, compute the statistics of batch normalization at each evaluation point.

    Warns if the data of the fit cannot be read again for that.
    """
    names = ("batch_size", "validation_split")
    options = {name: arguments[name] for name in names if name in arguments}
    batches = sample_of(arguments.get("x"), **options)
    if has_strategy(model) or keras.distribution.distribution() is not None:
        batches, problem = None, "several devices share the batches"
    else:
        problem = f"got a {type(arguments.get('x')).__name__}"
    if batches is None:
        for layer in collecting_layers(model)[:1]:
            _warn(kind, layer, problem)
        yield
        return

    def recomputed() -> None:
        layers = collecting_layers(model)  # a model may create them in its first step
        try:
            if layers:
                recompute(model, layers, batches())
        except Exception as error:  # a model may train without being able to be called
            _recomputes.pop(model, None)
            _warn(kind, layers[0], f"{type(error).__name__}: {error}".partition("\n")[0])

    outer = _recomputes.get(model)  # of a fit around this one
    _recomputes[model] = recomputed
    try:
        yield
    finally:
        _recomputes.pop(model, None)
        if outer is not None:
            _recomputes[model] = outer


def _warn(kind: type, layer: Any, reason: str) -> None:
    warnings.warn(
        f"{kind.__name__} evaluates at an average of the weights, and the moving statistics of "
        f"{layer.name!r} could not be computed there from the training data ({reason}): they are "
        "those of the weights of the training. Train on arrays, a PyDataset, a tf.data.Dataset or "
        "a DataLoader, or use another normalization.",
        UserWarning,
        stacklevel=2,
    )
