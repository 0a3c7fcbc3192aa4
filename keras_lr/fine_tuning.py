"""`fine_tune`: first the head alone, then the whole model at rates that fall towards the input."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from keras_lr._util import checks
from keras_lr.callbacks.one_cycle import OneCycle
from keras_lr.optimizers.batch_norm import FrozenStatistics, owning_layers
from keras_lr.optimizers.borrowed import LentMultipliers
from keras_lr.optimizers.multipliers import covered
from keras_lr.optimizers.paths import paths_in
from keras_lr.optimizers.presets import boost_head, discriminative
from keras_lr.steering import innermost_optimizers
from keras_lr.steering.optimizers import momentum_names

_HEAD_PCT_START = 0.99  # of the first phase climbs: a new head has nothing to lose
_PCT_START = 0.3
_DIV_FACTOR = 5.0


class FineTuning(NamedTuple):
    """What `fine_tune` gives back: Keras's `History` of each phase; None for one left out."""

    head: Any
    whole: Any


def fine_tune(
    model: Any,
    data: Any,
    head_epochs: int = 1,
    epochs: int = 5,
    base_lr: float = 2e-3,
    *,
    head: Any = None,
    lr_mult: float = 100.0,
    callbacks: Iterable[Any] = (),
    **fit_options: Any,
) -> FineTuning:
    """Fine-tune a pretrained model with a new head, by the recipe of fastai.

    Phase 1 trains the head alone for `head_epochs`, one cycle up to `base_lr`. Phase 2 trains
    everything for `epochs`, one cycle up to `base_lr / 2` at the head and `lr_mult` times less at
    the first layers, in equal ratios between the groups of `layer_groups`. Both cycle the momentum
    where the optimizer has one. The optimizer is not made anew in between: its averages of the
    body's gradients, collected during phase 1, are ready for phase 2. Batch normalisation outside
    of the head keeps its statistics in phase 1 (fastai trains it) and moves them in phase 2.

    Afterwards the model has the optimizer that it was compiled with, with all its state and the
    rate that it had.

    Args:
        model: A compiled model with its weights; the layers of the body are to be trainable.
        data: `(x, y)` or `(x, y, sample_weight)`, or whatever else `fit` takes as `x`.
        head_epochs: Epochs of phase 1; 0 leaves it out.
        epochs: Epochs of phase 2; 0 leaves it out.
        base_lr: Peak rate of the head, above 0; `lr_find` suggests one.
        head: The layers of the head: a layer, a name, a regular expression as in `LayerwiseLR`,
            or a list of these. By default what `boost_head` finds.
        lr_mult: Ratio between the rates of the head and the first group of layers, at least 1.
        callbacks: Further callbacks for both phases; not such as set the rate.
        fit_options: Further arguments of `fit`: `validation_data`, `batch_size`, `verbose`, ...

    Returns:
        A `FineTuning` with the `History` of both phases.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If an argument is out of its range, a key covers no weights, the head is all
            of the model, or the length of the data is unknown.

    Source: `fine_tune` of fastai (Howard and Gugger, "fastai: A Layered API for Deep Learning",
    2020), with its defaults; Howard and Ruder (2018), sections 3.2 and 3.3, for the idea.

    >>> body = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(8)])
    >>> model = keras.Sequential([body, keras.layers.Dense(2)])
    >>> model.compile("adam", "mse")
    >>> x, y = keras.ops.ones((32, 4)), keras.ops.ones((32, 2))
    >>> phases = fine_tune(model, (x, y), epochs=2, verbose=0)
    >>> len(phases.whole.history["loss"])
    2
    """
    head_epochs = checks.count("head_epochs", head_epochs, least=0)
    epochs = checks.count("epochs", epochs, least=0)
    base_lr = checks.number("base_lr", base_lr, above=0)
    lr_mult = checks.number("lr_mult", lr_mult, least=1)
    refused = sorted({"x", "y", "initial_epoch"} & set(fit_options))
    if refused:
        raise TypeError(
            f"fine_tune sets {', '.join(refused)} of fit itself; got {', '.join(refused)}. Pass "
            "the training data as data."
        )
    phases = _Phases(model, data, callbacks, fit_options)
    variables = model.trainable_variables
    paths = paths_in(model, variables)
    heads = {i for key in boost_head(model, head, 1.0) for i in covered(key, variables, paths)}
    body = [i for i in range(len(variables)) if i not in heads]
    if not body:
        raise ValueError(
            "fine_tune needs a body besides the head; got a head with all weights that train. "
            "Name the head's layers, or make the body trainable."
        )

    lent = LentMultipliers(model, "fine_tune")
    own = lent.optimizer.multipliers
    try:
        first = second = None
        if head_epochs:
            lent.optimizer.multipliers = None
            lent.optimizer.gate(dict.fromkeys(body, 0.0))
            owners = owning_layers(model)
            trains = {id(owners[id(variables[index])]) for index in heads}
            with FrozenStatistics(each for each in owners.values() if id(each) not in trains):
                first = phases.fit(head_epochs, base_lr, pct_start=_HEAD_PCT_START)
            lent.optimizer.gate({})
        if epochs:
            lent.optimizer.multipliers = discriminative(model, 1.0 / lr_mult, 1.0)
            second = phases.fit(epochs, base_lr / 2, pct_start=_PCT_START, div_factor=_DIV_FACTOR)
        return FineTuning(first, second)
    finally:
        lent.optimizer.gate({})
        lent.optimizer.multipliers = own
        lent.give_back()


class _Phases:
    """Fits one model on the same data, one cycle each."""

    def __init__(self, model: Any, data: Any, callbacks: Iterable[Any], options: Any) -> None:
        self._model = model
        self._data = data if isinstance(data, tuple) else (data,)
        self._callbacks = list(callbacks)
        self._options = dict(options)
        if len(self._data) == 3:
            self._options["sample_weight"] = self._data[2]
            self._data = self._data[:2]

    def fit(self, epochs: int, max_lr: float, **shape: Any) -> Any:
        leaf = innermost_optimizers(self._model.optimizer)[0]
        cycles = any(float(getattr(leaf, name)) for name in momentum_names(leaf))
        cycle = OneCycle(max_lr, cycle_momentum=cycles, **shape)
        callbacks = [cycle, *self._callbacks]
        return self._model.fit(*self._data, epochs=epochs, callbacks=callbacks, **self._options)
