"""The fingerprint of a search: hashes of the model, the data and the arguments of `fit`."""

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
from keras_lr.rate_search.canonical import Canonical, Unknown, content, digest
from keras_lr.steering import innermost_optimizers
from keras_lr.steering.optimizers import current_rate, rate_ratios

_LOSSES = ("loss", "val_loss")


def of_model(model: Any, make: Callable[[], Any] | None, objective: str) -> dict[str, str]:
    """Hashes of layers, weights, optimizer, loss and metrics; names that Keras numbers are ignored.

    Metrics count only if one of them is the objective. `run_eagerly` and `jit_compile` do not
    count, because they change the speed of a step and not its result.

    Args:
        make: The function that makes a model for each run; then the weights are not compared.

    Raises:
        ValueError: If a part has neither a configuration nor readable code.
    """
    canonical = Canonical(model)
    found = _structure(canonical, model)
    found.update(weights=_weights(model), metrics="not compared")
    if objective not in _LOSSES:
        found["metrics"] = _metrics(canonical, model)
    if make is not None:
        found["weights"] = "made anew for each run"
        found["code"] += " " + _part("function that makes the model", lambda: canonical.of(make))
    if canonical.reads_code:
        found["Python"] = ".".join(platform.python_version_tuple()[:2])
    return found


def of_structure(model: Any) -> dict[str, str]:
    """As `of_model` without the weights, and with all metrics.

    Raises:
        ValueError: If a part has neither a configuration nor readable code.
    """
    canonical = Canonical(model)
    return {**_structure(canonical, model), "metrics": _metrics(canonical, model)}


def _structure(canonical: Canonical, model: Any) -> dict[str, str]:
    layers = [
        layer for layer in inner_layers(model) if not isinstance(layer, keras.layers.InputLayer)
    ]
    compiled = compile_arguments(model)
    return {
        "layers": _part("layers", lambda: [canonical.layer(each) for each in layers]),
        "connections": _part("connections", lambda: [canonical.graph(e) for e in [model, *layers]]),
        "code": _part("model", lambda: canonical.model(model)),
        "optimizer": _part("optimizer", lambda: _optimizer(canonical, model), model.optimizer),
        "loss": _loss(canonical, model.loss),
        "loss_weights": _part("loss_weights", lambda: canonical.of(compiled.get("loss_weights"))),
        "steps_per_execution": str(getattr(model, "steps_per_execution", 1)),
        "scaling": str([model.auto_scale_loss if _scales(model) else None, keras.config.floatx()]),
    }


def _metrics(canonical: Canonical, model: Any) -> str:
    compiled = compile_arguments(model)
    given = [compiled.get(name) for name in ("metrics", "weighted_metrics")]
    return _part("metrics", lambda: canonical.of(given))


def of_fit(
    fit_options: Mapping[str, Any], callbacks: Callable[[], list[Any]] | None
) -> dict[str, str]:
    """Hashes of the further arguments of `fit`."""
    # A collection that a callback refers to often holds what it has recorded so far.
    canonical = Canonical(lenient=True, transient=(list, dict, set))
    weights = fit_options.get("class_weight")
    found = {
        "class_weight": str(weights and {int(k): float(v) for k, v in sorted(weights.items())}),
        "shuffle": str(fit_options.get("shuffle")),
        "steps_per_epoch": str(fit_options.get("steps_per_epoch")),
        "callbacks": str(callbacks and _part("callbacks", lambda: canonical.of(callbacks))),
    }
    if canonical.reads_code:
        found["Python"] = ".".join(platform.python_version_tuple()[:2])
    return found


def of_data(training: tuple[Any, ...], validation: Any) -> dict[str, str]:
    """Rows and hashes of the training and validation data.

    A data set that brings its own batches is represented by the arguments of its constructor, its
    code, and the shapes, types and number of its batches, but not by the content of its files or
    of a `tf.data` pipeline.
    """
    found = dict(zip(("rows", "content"), _data(training), strict=True))
    if validation is not None:
        found["judged by"] = " ".join(_data(validation))
    return found


def _part(name: str, describe: Callable[[], Any], shown: Any = None) -> str:
    try:
        found = digest(describe())
    except Unknown as error:
        raise ValueError(
            f"In a search with a record the {name} must have a configuration or Python code; got "
            f"an object of the class {error}. Give that class a get_config(), or leave out storage."
        ) from error
    return found if shown is None else f"{type(shown).__name__} {found}"


def _scales(model: Any) -> bool:
    return hasattr(model.optimizer, "scale_loss") and hasattr(model, "auto_scale_loss")


def _weights(model: Any) -> str:
    """A hash of the weights and of the state of the optimizer, without its rate."""
    state = _state(model.optimizer)
    return content([keras.ops.convert_to_numpy(each) for each in [*model.weights, *state]])


def _state(optimizer: Any) -> list[Any]:
    """The variables of an optimizer without its learning rates."""
    optimizers = [optimizer, *innermost_optimizers(optimizer)]
    rates = {id(stored_rate(each)) for each in optimizers}
    return [each for each in optimizer.variables if id(each) not in rates]


def _optimizer(canonical: Canonical, model: Any) -> Any:
    inner = innermost_optimizers(model.optimizer)
    ratios = rate_ratios([current_rate(each) for each in inner]) if len(inner) > 1 else ()
    return [
        canonical.optimizer(model.optimizer),
        [canonical.optimizer(each) for each in inner],
        [[list(variable.shape) for variable in _state(each)] for each in inner],
        [f"{ratio:.6g}" for ratio in ratios],
    ]


def _loss(canonical: Canonical, loss: Any) -> str:
    if loss is None or isinstance(loss, str):
        return str(loss)
    name = getattr(loss, "__name__", type(loss).__name__)
    return f"{name} {_part('loss', lambda: canonical.of(loss))}"


def _data(parts: Any) -> tuple[str, str]:
    leaves = [leaf for leaf in keras.tree.flatten(parts) if leaf is not None]
    if is_array_data(*leaves):
        arrays = [
            keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else np.asarray(leaf)
            for leaf in leaves
        ]
        # The paths distinguish x, y and sample_weight, and the inputs of the model.
        paths = [path for path, leaf in keras.tree.flatten_with_path(parts) if leaf is not None]
        return str(len(arrays[0])), digest([str(paths), content(arrays)])
    canonical = Canonical(lenient=True, sort=True)
    return (
        "unknown",
        f"{type(leaves[0]).__name__} {digest([_batches(canonical, x) for x in leaves])}",
    )


def _batches(canonical: Canonical, source: Any) -> Any:
    """The canonical form of a data set of Keras, torch, TensorFlow, or another kind."""
    if hasattr(source, "element_spec"):
        known = getattr(source, "cardinality", None)
        return [str(source.element_spec), str(known and int(known()))]
    if hasattr(source, "dataset") and hasattr(source, "batch_size"):
        kind = type(getattr(source, "sampler", None)).__name__
        last = getattr(source, "drop_last", None)
        return [kind, last, source.batch_size, canonical.of(source.dataset)]
    return canonical.of(source)
