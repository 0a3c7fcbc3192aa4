"""What tells one search from another: all that reaches `fit`, for those who join one."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_lr._keras.layers import inner_layers
from keras_lr._keras.optimizers import stored_rate
from keras_lr._keras.trainer import compile_arguments
from keras_lr.loops.data import is_array_data
from keras_lr.rate_search.described import Description, Unknown, content, digest
from keras_lr.steering import driven_optimizers
from keras_lr.steering.optimizers import current_rate, rate_ratios

_LOSSES = ("loss", "val_loss")


def of_model(model: Any, make: Callable[[], Any] | None, objective: str) -> dict[str, str]:
    """Layers, weights, optimizer, loss and metrics; names that Keras counts up do not matter.

    Metrics count where one of them is the objective. `run_eagerly` and `jit_compile`, which
    change how fast a step is computed and not what it computes, do not.

    Args:
        make: The function that makes a model for each run, whose weights say nothing then.

    Raises:
        ValueError: If a part of it can be told neither by a configuration nor by its code.
    """
    told = Description(model)
    layers = [
        layer for layer in inner_layers(model) if not isinstance(layer, keras.layers.InputLayer)
    ]
    compiled = compile_arguments(model)
    found = {
        "layers": _part("layers", lambda: [told.layer(each) for each in layers]),
        "connections": _part("connections", lambda: [told.graph(e) for e in [model, *layers]]),
        "code": _part("model", lambda: told.model(model)),
        "weights": _weights(model),
        "optimizer": _part("optimizer", lambda: _optimizer(told, model), model.optimizer),
        "loss": _loss(told, model.loss),
        "loss_weights": _part("loss_weights", lambda: told.of(compiled.get("loss_weights"))),
        "steps_per_execution": str(getattr(model, "steps_per_execution", 1)),
        "scaling": str([model.auto_scale_loss if _scales(model) else None, keras.config.floatx()]),
        "metrics": "not compared",
    }
    if objective not in _LOSSES:
        given = [compiled.get(name) for name in ("metrics", "weighted_metrics")]
        found["metrics"] = _part("metrics", lambda: told.of(given))
    if make is not None:
        found["weights"] = "made anew for each run"
        found["code"] += " " + _part("function that makes the model", lambda: told.of(make))
    if told.reads_code:
        found["Python"] = ".".join(platform.python_version_tuple()[:2])
    return found


def of_fit(
    fit_options: Mapping[str, Any], callbacks: Callable[[], list[Any]] | None
) -> dict[str, str]:
    """What else `fit` is called with."""
    # What a list in reach of a callback holds is often what it has noted so far.
    told = Description(lenient=True, passing=(list, dict, set))
    weights = fit_options.get("class_weight")
    found = {
        "class_weight": str(weights and {int(k): float(v) for k, v in sorted(weights.items())}),
        "shuffle": str(fit_options.get("shuffle")),
        "steps_per_epoch": str(fit_options.get("steps_per_epoch")),
        "callbacks": str(callbacks and _part("callbacks", lambda: told.of(callbacks))),
    }
    if told.reads_code:
        found["Python"] = ".".join(platform.python_version_tuple()[:2])
    return found


def of_data(training: tuple[Any, ...], validation: Any) -> dict[str, str]:
    """Rows and content of the arrays to train on and to judge by.

    Of a data set that brings its own batches it is what its constructor got, its code, the shapes
    and types of its batches and their number: not what files or a `tf.data` pipeline hold.
    """
    found = dict(zip(("rows", "content"), _data(training), strict=True))
    if validation is not None:
        found["judged by"] = " ".join(_data(validation))
    return found


def _part(name: str, describe: Callable[[], Any], shown: Any = None) -> str:
    try:
        told = digest(describe())
    except Unknown as error:
        raise ValueError(
            f"The {name} of a search with a record must have a configuration or code of Python; "
            f"got an object of the class {error}. Give that class a get_config(), or leave out "
            "storage."
        ) from error
    return told if shown is None else f"{type(shown).__name__} {told}"


def _scales(model: Any) -> bool:
    return hasattr(model.optimizer, "scale_loss") and hasattr(model, "auto_scale_loss")


def _weights(model: Any) -> str:
    """The values that a run starts from: weights, and the state of the optimizer but its rate."""
    state = _state(model.optimizer)
    return content([keras.ops.convert_to_numpy(each) for each in [*model.weights, *state]])


def _state(optimizer: Any) -> list[Any]:
    """The variables of an optimizer without its rates, which a schedule has none of."""
    leaves = [optimizer, *driven_optimizers(optimizer)]
    rates = {id(stored_rate(each)) for each in leaves}
    return [each for each in optimizer.variables if id(each) not in rates]


def _optimizer(told: Description, model: Any) -> Any:
    leaves = driven_optimizers(model.optimizer)
    ratios = rate_ratios([current_rate(leaf) for leaf in leaves]) if len(leaves) > 1 else ()
    return [
        told.optimizer(model.optimizer),
        [told.optimizer(leaf) for leaf in leaves],
        [[list(variable.shape) for variable in _state(leaf)] for leaf in leaves],
        [f"{ratio:.6g}" for ratio in ratios],
    ]


def _loss(told: Description, loss: Any) -> str:
    if loss is None or isinstance(loss, str):
        return str(loss)
    name = getattr(loss, "__name__", type(loss).__name__)
    return f"{name} {_part('loss', lambda: told.of(loss))}"


def _data(parts: Any) -> tuple[str, str]:
    leaves = [leaf for leaf in keras.tree.flatten(parts) if leaf is not None]
    if is_array_data(*leaves):
        arrays = [
            keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else np.asarray(leaf)
            for leaf in leaves
        ]
        # Which is x, y or sample_weight, and which input of the model.
        paths = [path for path, leaf in keras.tree.flatten_with_path(parts) if leaf is not None]
        return str(len(arrays[0])), digest([str(paths), content(arrays)])
    told = Description(lenient=True, sort=True)
    return "unknown", f"{type(leaves[0]).__name__} {digest([_batches(told, x) for x in leaves])}"


def _batches(told: Description, source: Any) -> Any:
    """A data set: of Keras, of torch, of TensorFlow, or whatever `fit` takes."""
    if hasattr(source, "element_spec"):
        known = getattr(source, "cardinality", None)
        return [str(source.element_spec), str(known and int(known()))]
    if hasattr(source, "dataset") and hasattr(source, "batch_size"):
        kind = type(getattr(source, "sampler", None)).__name__
        last = getattr(source, "drop_last", None)
        return [kind, last, source.batch_size, told.of(source.dataset)]
    return told.of(source)
