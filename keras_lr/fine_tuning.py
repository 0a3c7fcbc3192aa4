"""`fine_tune`: train the head alone, then the whole model at rates that fall towards the input."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from keras_lr._util import checks
from keras_lr.callbacks.one_cycle import OneCycle
from keras_lr.optimizers.batch_norm import FrozenStatistics, owning_layers
from keras_lr.optimizers.multipliers import covered
from keras_lr.optimizers.presets import boost_head, discriminative
from keras_lr.optimizers.temporary_layerwise import TemporaryLayerwiseLR
from keras_lr.optimizers.variable_paths import paths_in
from keras_lr.steering import innermost_optimizers
from keras_lr.steering.optimizers import momentum_names

_HEAD_PCT_START = 0.99  # fastai's: the rate of a new head can climb in nearly all of phase 1
_PCT_START = 0.3
_DIV_FACTOR = 5.0


class FineTuning(NamedTuple):
    """The result of `fine_tune`: the Keras `History` of each phase; None for a skipped phase.

    Attributes:
        head: Of phase 1, the head alone.
        whole: Of phase 2, the whole model.
    """

    head: Any
    whole: Any

    def __repr__(self) -> str:
        both = (("head", self.head), ("whole", self.whole))
        phases = (_told(*phase) for phase in both if phase[1] is not None)
        return f"<FineTuning: {'; '.join(phases) or 'no epochs'}>"


def _told(name: str, history: Any) -> str:
    """A phase in words: "whole 5 epochs, loss 0.21"."""
    epochs, losses = len(history.epoch), history.history.get("loss")
    ended = f", loss {losses[-1]:.4g}" if losses else ""
    return f"{name} {epochs} epoch{'s' * (epochs != 1)}{ended}"


def fine_tune(
    model: Any,
    x: Any,
    y: Any = None,
    head_epochs: int = 1,
    epochs: int = 5,
    base_lr: float = 2e-3,
    *,
    head: Any = None,
    lr_mult: float = 100.0,
    callbacks: Iterable[Any] | None = None,
    **fit_options: Any,
) -> FineTuning:
    """Fine-tune a pretrained model with a new head, by the recipe of fastai.

    Phase 1 trains the head alone for `head_epochs`, in one cycle up to `base_lr`. Phase 2 trains
    the whole model for `epochs`, in one cycle up to `base_lr / 2` at the head and
    `base_lr / 2 / lr_mult` at the first layers, in equal ratios between the groups of
    `layer_groups`. Both phases cycle the momentum if the optimizer has one. Both use the same
    optimizer state: its averages of the body's gradients from phase 1 are ready for phase 2. Batch
    normalization outside of the head keeps its statistics in phase 1 (fastai updates them).

    Afterwards the model has the optimizer that it was compiled with, with its updated state and
    its own learning rate.

    Args:
        model: A compiled, built model; the layers of the body must be trainable.
        x: Inputs, or a data set, as in `fit`. If `y` is None, not a tuple: `fit` would take
            `(x, y)` as two inputs. Pass several inputs without targets as a list.
        y: Targets, as in `fit`.
        head_epochs: Epochs of phase 1; 0 skips it.
        epochs: Epochs of phase 2; 0 skips it.
        base_lr: Peak learning rate of the head, above 0; `lr_find` suggests one.
        head: The layers of the head: a layer, a name, a regular expression as in `LayerwiseLR`,
            or a list of these. None for the head that `boost_head` finds.
        lr_mult: Ratio between the rates of the head and the first group of layers; in [1, inf).
        callbacks: Callbacks for both phases; none that set the learning rate.
        fit_options: Other arguments of `fit`: `sample_weight`, `validation_data`, `batch_size`,
            `verbose`, ...

    Returns:
        A `FineTuning` with the `History` of both phases.

    Raises:
        TypeError: If an argument has the wrong type, or `x` is a tuple and `y` is None.
        ValueError: If an argument is out of range, a key covers no weights, the head is the whole
            model, or the length of the data is unknown.

    Sources: `fine_tune` of fastai (Howard and Gugger, "fastai: A Layered API for Deep Learning",
    2020), with its defaults; Howard and Ruder, "Universal Language Model Fine-tuning for Text
    Classification" (2018), sections 3.2 and 3.3, for the idea.

    >>> body = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(8)])
    >>> model = keras.Sequential([body, keras.layers.Dense(2)])
    >>> model.compile("adam", "mse")
    >>> x, y = keras.ops.ones((32, 4)), keras.ops.ones((32, 2))
    >>> phases = fine_tune(model, x, y, epochs=2, verbose=0)
    >>> len(phases.whole.history["loss"])
    2
    """
    head_epochs = checks.count("head_epochs", head_epochs, least=0)
    epochs = checks.count("epochs", epochs, least=0)
    base_lr = checks.number("base_lr", base_lr, above=0)
    lr_mult = checks.number("lr_mult", lr_mult, least=1)
    if "initial_epoch" in fit_options:
        raise TypeError(
            "fine_tune does not take initial_epoch; both of its phases start at epoch 0."
        )
    if isinstance(x, tuple) and y is None:
        raise TypeError(
            f"x must not be a tuple without y; got a tuple of {len(x)}. Pass the targets as y: "
            "fine_tune(model, x, y). Pass several inputs without targets as a list."
        )
    phases = _Phases(model, x, y, callbacks, fit_options)
    variables = model.trainable_variables
    paths = paths_in(model, variables)
    heads = {i for key in boost_head(model, head, 1.0) for i in covered(key, variables, paths)}
    body = [i for i in range(len(variables)) if i not in heads]
    if not body:
        raise ValueError(
            "fine_tune needs a body besides the head; got a head with all trainable weights. "
            "Pass the layers of the head as head, or make the body trainable."
        )

    layerwise = TemporaryLayerwiseLR(model, "fine_tune")
    own = layerwise.optimizer.multipliers
    try:
        first = second = None
        if head_epochs:
            layerwise.optimizer.multipliers = None
            layerwise.optimizer.gate(dict.fromkeys(body, 0.0))
            owners = owning_layers(model)
            trains = {id(owners[id(variables[index])]) for index in heads}
            with FrozenStatistics(each for each in owners.values() if id(each) not in trains):
                first = phases.fit(head_epochs, base_lr, pct_start=_HEAD_PCT_START)
            layerwise.optimizer.gate({})
        if epochs:
            layerwise.optimizer.multipliers = discriminative(model, 1.0 / lr_mult, 1.0)
            second = phases.fit(epochs, base_lr / 2, pct_start=_PCT_START, div_factor=_DIV_FACTOR)
        return FineTuning(first, second)
    finally:
        layerwise.optimizer.gate({})
        layerwise.optimizer.multipliers = own
        layerwise.restore()


class _Phases:
    """Fits one model on the same data, in one cycle each time."""

    def __init__(self, model: Any, x: Any, y: Any, callbacks: Any, options: Any) -> None:
        self._model, self._x, self._y = model, x, y
        self._callbacks = list(callbacks or ())
        self._options = dict(options)

    def fit(self, epochs: int, max_lr: float, **shape: Any) -> Any:
        optimizer = innermost_optimizers(self._model.optimizer)[0]
        cycles = any(float(getattr(optimizer, name)) for name in momentum_names(optimizer))
        cycle = OneCycle(max_lr, cycle_momentum=cycles, **shape)
        callbacks = [cycle, *self._callbacks]
        return self._model.fit(
            self._x, self._y, epochs=epochs, callbacks=callbacks, **self._options
        )
