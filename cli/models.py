"""Load the model that the command line names, and compile it. The file is only read."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import json
import re
import warnings
from collections.abc import Sequence
from typing import Any

import click

from .errors import BadInput, one_line, visible
from .functions import call, is_function
from .logits import gives_logits
from .model_files import (
    H5,
    carried_code,
    check_model_file,
    is_endless,
    limited_weights,
    saved_by,
)
from .own_compile import compiled_as_saved, missing_arguments
from .startup import hidden

__all__ = ["load_model", "loss_name"]

KEPT = ("loss_weights", "run_eagerly", "steps_per_execution", "jit_compile", "auto_scale_loss")
PROBABILITIES = {
    "binary_crossentropy": "BinaryCrossentropy",
    "binary_focal_crossentropy": "BinaryFocalCrossentropy",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "categorical_focal_crossentropy": "CategoricalFocalCrossentropy",
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
}


def load_model(
    spec: str,
    *,
    trust: bool = False,
    optimizer: str | None = None,
    loss: str | None = None,
    metrics: Sequence[str] = (),
    compiled: bool = True,
    lean: bool = True,
) -> Any:
    """Load the model or make it by the user's function, and compile it with the given names.

    Args:
        spec: A `.keras` or `.h5` file, or `module:function`.
        trust: Run code that the file carries (Lambda layers), and do not limit its weights.
        optimizer: Name of the optimizer to compile with; None keeps the one in the file.
        loss: Name of the loss to compile with.
        metrics: Names of the metrics to compile with.
        compiled: Whether to refuse a model that is not compiled in the end.
        lean: Import only the backend in use; Keras imports TensorFlow for any `.h5` file.

    Raises:
        BadInput: If the file is damaged, unsafe, or not compiled and no names are given.
    """
    import keras

    import keras_lr  # noqa: F401  registers the classes that a file may name

    if is_function(spec):
        model = call(spec)
        if not isinstance(model, keras.Model):
            raise BadInput(f"{spec} returned {type(model).__name__}; it must return a Keras model.")
    else:
        model = _read(spec, trust, lean, bool(optimizer and loss), compiled)
    if optimizer or loss or metrics:
        _compile(model, optimizer, loss, metrics)
        if not is_function(spec):
            _choose_compiler(model)
    elif compiled and not _is_compiled(model):
        if not is_function(spec) and (lost := missing_arguments(model)):
            raise BadInput(
                f"{spec} does not hold what {type(model).__name__}.compile takes: "
                f"{', '.join(lost)}. Pass module:function with a function that returns the "
                "compiled model, or define get_compile_config and compile_from_config in the class."
            )
        raise BadInput(
            f"{spec} was saved without its optimizer and loss; name both, as in "
            "--optimizer adam --loss mse."
        )
    if compiled and (frozen := _quantized(model)):
        shown = ", ".join(frozen[:5]) + (f" and {len(frozen) - 5} more" if frozen[5:] else "")
        click.echo(
            f"The kernels of {shown} are quantized and do not train. Train the model "
            "before it is quantized, or call enable_lora on the layers.",
            err=True,
        )
    return model


def _quantized(model: Any) -> list[str]:
    """The layers whose kernels are integers, without LoRA weights beside them."""
    found = []
    for layer in getattr(model, "layers", ()):
        if layer.trainable and getattr(layer, "quantization_mode", None) in ("int8", "int4"):
            if not getattr(layer, "lora_enabled", False):
                found.append(visible(layer.name))
        found += _quantized(layer)
    return found


def _is_compiled(model: Any) -> Any:
    """Whether the model has an optimizer; Keras marks some models without one as compiled."""
    return getattr(model, "compiled", False) and getattr(model, "optimizer", None) is not None


def loss_name(loss: Any) -> str:
    """The full snake_case name of a loss of Keras, given as a name, an instance or a function.

    "" for any other loss, and for several.
    """
    import keras

    if loss is None or isinstance(loss, (dict, list, tuple)):
        return ""
    if not isinstance(loss, str):
        kind = loss if inspect.isfunction(loss) else type(loss)
        loss = kind.__name__
    full = {"bce": "binary_crossentropy", "mse": "mean_squared_error", "mae": "mean_absolute_error"}
    if loss in full:
        return full[loss]
    name = "".join(f"_{c.lower()}" if c.isupper() else c for c in loss).lstrip("_")
    return name if hasattr(keras.losses, loss) or hasattr(keras.losses, name) else ""


def _read(spec: str, trust: bool, lean: bool, recompiled: bool, compiled: bool) -> Any:
    """Load a file, without its compile state if that alone cannot be read and may be left out."""
    check_model_file(spec)
    if spec.endswith(H5) and is_endless(spec):
        raise BadInput(f"{spec} is damaged: its strings cannot be read. Save the model again.")
    if not trust and (code := carried_code(spec)):
        raise _untrusted(spec, code)
    load = functools.partial(_load, spec, trust, lean, compiled)
    try:
        model = load(compile=True)
    except Exception as error:
        refused = error if isinstance(error, BadInput) else _refused(spec, trust, error)
        if refused and not recompiled:
            raise refused from error.__cause__ if refused is error else error
        model = None
        with contextlib.suppress(Exception):
            model = load(compile=False)
        if model is None:
            raise (refused or _unreadable(spec, error)) from error
        left_out, reason = f"The optimizer, loss or metrics of {spec}", one_line(error, 200)
        if compiled and not recompiled:
            saved = saved_by(spec)
            by = f", saved by Keras {saved}," if saved else ""
            raise BadInput(
                f"{left_out}{by} cannot be read; name them, as in --optimizer adam --loss mse. "
                f"({reason})"
            ) from error
        click.echo(visible(f"{left_out} cannot be read and are left out. ({reason})"), err=True)
    if model is None:
        raise BadInput(f"{spec} does not hold a model.")
    return model


def _load(spec: str, trust: bool, lean: bool, compiled: bool, *, compile: bool) -> Any:
    import keras

    from keras_lr.optimizers.wrapper import public_optimizers

    unused = ["tensorflow"] if lean and keras.backend.backend() != "tensorflow" else []
    known = {**public_optimizers(), **(_old_names() if spec.endswith(H5) else {})}
    limit = contextlib.nullcontext() if trust else limited_weights(spec)
    with hidden(*unused), limit, compiled_as_saved():
        model = keras.saving.load_model(
            spec, safe_mode=not trust, compile=compile, custom_objects=known
        )
        if spec.endswith(H5) and compile:
            _repair_optimizer(model, spec)
            if compiled:
                _check_metrics(spec)
        if compile:
            _choose_compiler(model)
    return model


def _refused(spec: str, trust: bool, error: Exception) -> BadInput | None:
    """The message for a file that Keras refuses to load at all."""
    import keras

    text = one_line(error, 100_000)
    if not trust and any(word in text for word in ("safe_mode", "unsafe", "Lambda")):
        return _untrusted(spec, "a Lambda layer")
    saved, here = saved_by(spec), keras.__version__
    if _release(saved) > _release(here):
        return BadInput(
            f"{spec} was saved by Keras {saved}, and Keras {here} cannot load it; "
            f"pip install -U keras. ({one_line(text, 200)})"
        )
    return None


def _unreadable(spec: str, error: Exception) -> BadInput:
    """The message for a file that does not load without its compile state either."""
    text = one_line(error, 100_000)
    if unknown := re.search(r"(?:Could not locate|Unknown layer)[^.]*", text):
        return BadInput(
            f"{spec} uses a class that Keras does not know. Pass --import with the module that "
            "registers the class by @keras.saving.register_keras_serializable(), or pass "
            f"module:function with a function that makes the model. ({unknown[0]})"
        )
    if "No model config found" in text:
        return BadInput(
            f"{spec} holds no model (No model config found), perhaps weights only; save the whole "
            "model with model.save(...)."
        )
    if isinstance(error, ValueError) and "File not found" in text:
        text = "it is cut short, or its content does not match its file name extension."
    if isinstance(error, MemoryError):
        text = "it needs more memory than this machine has."
    return BadInput(f"{spec} could not be loaded: {one_line(text, 300)}")


def _untrusted(spec: str, code: str) -> BadInput:
    return BadInput(
        f"{spec} carries Python code ({code}), which runs when the file is loaded; "
        "pass --trust if you trust its author."
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _old_names() -> dict[str, Any]:
    """Short names of losses and metrics in old files, which Keras 3 does not find."""
    import keras

    names = {
        "mse": "mean_squared_error",
        "mae": "mean_absolute_error",
        "mape": "mean_absolute_percentage_error",
        "msle": "mean_squared_logarithmic_error",
        "bce": "binary_crossentropy",
        "kld": "kl_divergence",
    }
    short = {old: getattr(keras.losses, name) for old, name in names.items()}
    return {**short, **{old.upper(): function for old, function in short.items()}}


def _choose_compiler(model: Any) -> None:
    """Replace the file's `jit_compile`, which is what "auto" meant where the model was saved.

    On JAX a step without compilation takes a hundred times longer. XLA on TensorFlow and
    `torch.compile` take longer to compile than a range test takes to run.
    """
    import keras

    if getattr(model, "compiled", False) and not model.run_eagerly:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a layer that cannot be compiled stays as it is
            model.jit_compile = keras.backend.backend() == "jax"


def _check_metrics(spec: str) -> None:
    """Check the metrics of an `.h5` file, which Keras reads only when it trains.

    Raises:
        BadInput: If this version of Keras does not know one of them.
    """
    import h5py
    import keras

    with h5py.File(spec, "r") as file:
        training = json.loads(file.attrs.get("training_config", "{}"))

    def check(metrics: Any) -> None:
        if isinstance(metrics, dict) and "class_name" not in metrics:
            metrics = list(metrics.values())
        if isinstance(metrics, list):
            for each in metrics:
                check(each)
        elif metrics not in ("accuracy", "acc", "crossentropy", "ce", None):
            keras.metrics.get(metrics)

    for kind in ("metrics", "weighted_metrics"):
        try:
            check(training.get(kind))
        except Exception as error:
            raise BadInput(
                f"The metrics of {spec}, saved by Keras {saved_by(spec) or '2'}, cannot be "
                "read; compile without them, as by --optimizer adam --loss mse. "
                f"({one_line(error, 200)})"
            ) from error


def _repair_optimizer(model: Any, spec: str) -> None:
    """Rebuild the optimizer of an `.h5` file for the weights of the model.

    Keras 3 builds it with an empty list of variables, so that a later `fit` raises. The new
    optimizer has the same configuration, and takes the saved state if the shapes agree.
    """
    import h5py
    import numpy as np

    broken = getattr(model, "optimizer", None)
    if broken is None or not broken.built:
        return
    optimizer = type(broken).from_config(broken.get_config())
    optimizer.build(model.trainable_variables)
    with h5py.File(spec, "r") as file:
        group = file.get("optimizer_weights")
        names = [] if group is None else list(group.attrs.get("weight_names", ()))
        values = [np.asarray(group[name]) for name in names]
    shapes = [tuple(variable.shape) for variable in optimizer.variables]
    if shapes == [value.shape for value in values]:
        optimizer.set_weights(values)
    model.optimizer = optimizer


def _compile(model: Any, optimizer: str | None, loss: str | None, metrics: Sequence[str]) -> None:
    """Compile with these names; what no name replaces stays as it is."""
    import keras

    from keras_lr._keras.trainer import compile_arguments

    compiled = _is_compiled(model)
    if not compiled and not (optimizer and loss):
        missing = "--loss" if optimizer else "--optimizer" if loss else "--optimizer and --loss"
        raise BadInput(f"The model was saved without its optimizer and loss; add {missing}.")
    chosen: Any = model.optimizer if compiled else None
    if optimizer:
        chosen = _named(keras.optimizers, keras.optimizers.Optimizer, "optimizer", optimizer)
    several = len(getattr(model, "output_names", None) or ())
    measures: list[Any] = [_measures(metrics) for _ in range(several)]
    if several < 2:
        measures = _measures(metrics)
    before = compile_arguments(model) if compiled else {}
    kept = {name: before[name] for name in KEPT if before.get(name) is not None}
    try:
        losses = _loss(model, loss) if loss else model.loss
        weights = kept.get("loss_weights")
        if loss and isinstance(weights, dict):  # then Keras wants as many losses
            losses = dict.fromkeys(weights, losses)
        elif loss and isinstance(weights, (list, tuple)):
            losses = [losses] * len(weights)
        if metrics and before.get("weighted_metrics") is not None:
            kept["weighted_metrics"] = before["weighted_metrics"]
        elif not metrics and loss and _other_labels(model, loss_name(losses)):
            metrics, measures = ("none",), []
        # Without metrics, Keras keeps those of before.
        model.compile(optimizer=chosen, loss=losses, metrics=measures if metrics else None, **kept)
    except Exception as error:
        raise BadInput(f"The model could not be compiled: {one_line(error)}") from error


def _other_labels(model: Any, loss: str) -> bool:
    """Whether the metrics of the file take labels in another form than the new loss, and say so.

    The sparse losses and metrics take integers, the other categorical ones one-hot rows.
    """
    import keras

    from keras_lr._keras.trainer import compile_arguments

    forms = {True: "integers", False: "one-hot rows"}
    if "categorical_" not in loss:
        return False
    sparse = loss.startswith("sparse_")
    for metric in keras.tree.flatten(compile_arguments(model).get("metrics")):
        name = metric if isinstance(metric, str) else getattr(metric, "name", "")
        if "categorical_" in name and name.startswith("sparse_") is not sparse:
            click.echo(
                f"The metrics of the file are left out: {visible(name)} takes {forms[not sparse]} "
                f"as labels, {loss} {forms[sparse]}. Name others with --metric.",
                err=True,
            )
            return True
    return False


def _measures(names: Sequence[str]) -> list[Any]:
    """New metrics of these names, for one output."""
    import keras

    return [
        name
        if name in ("accuracy", "acc", "crossentropy", "ce")
        else _named(keras.metrics, keras.metrics.Metric, "metric", name)
        for name in names
    ]


def _loss(model: Any, name: str) -> Any:
    import keras

    loss = _named(keras.losses, keras.losses.Loss, "loss", name)
    known = loss_name(loss)
    if known not in PROBABILITIES:
        return loss
    logits = gives_logits(model)
    if logits is None:
        click.echo(
            f"The layers do not say whether the output is probabilities or logits: {name} takes "
            "probabilities. For logits, compile the model with from_logits=True.",
            err=True,
        )
    if not logits:
        return loss
    click.echo(f"The output has no softmax or sigmoid: {name} takes logits.", err=True)
    return getattr(keras.losses, PROBABILITIES[known])(from_logits=True)


def _named(module: Any, kind: type, what: str, name: str) -> Any:
    """The optimizer, loss or metric of that name; the error for another name lists similar ones."""
    try:
        found = module.get(name)
    except Exception as error:
        names = sorted(
            _snake(key)
            for key, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, kind) and value is not kind
        )
        near = difflib.get_close_matches(_snake(name), names, n=3, cutoff=0.5) or names
        raise BadInput(f"No {what} is called {name!r}; try {', '.join(near)}.") from error
    return found


def _snake(name: str) -> str:
    if name.isupper():
        return name.lower()
    pairs = zip(name, name[1:] + " ", strict=True)
    text = "".join(f"_{c.lower()}" if c.isupper() and n.islower() else c.lower() for c, n in pairs)
    return text.lstrip("_")
