"""From what the user typed to a compiled model. The file is only ever read."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import click

from .carried_code import carried_code
from .errors import BadInput, one_line, visible
from .functions import call, is_function
from .hdf5 import is_endless
from .startup import hidden

__all__ = ["check_model_file", "load_model", "loss_name"]

H5 = (".h5", ".hdf5")
LINEAR = (None, "linear")
PROBABILITIES = {
    "binary_crossentropy": "BinaryCrossentropy",
    "binary_focal_crossentropy": "BinaryFocalCrossentropy",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "categorical_focal_crossentropy": "CategoricalFocalCrossentropy",
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
}


def check_model_file(spec: str) -> None:
    """What can be said without Keras: is there such a file, and is it of a kind that we read?"""
    if is_function(spec):
        return
    if spec.endswith(".weights.h5"):
        raise BadInput(f"{spec} holds weights only; save the whole model with model.save(...).")
    if not os.path.exists(spec):
        raise BadInput(f"The model {spec} does not exist.")
    if os.path.isfile(os.path.join(spec, "saved_model.pb")):
        raise BadInput(
            f"{spec} is a SavedModel, a program without layers to train (keras.layers.TFSMLayer "
            "runs it). Where the model is made, save it with model.save('model.keras')."
        )
    if os.path.isdir(spec):
        raise BadInput(
            f"{spec} is a folder; a model is a .keras file, an .h5 file or module:function."
        )
    if not os.path.isfile(spec) or not os.access(spec, os.R_OK):
        raise BadInput(f"The model {spec} cannot be read.")
    if not os.path.getsize(spec):
        raise BadInput(f"The model {spec} is an empty file.")
    if not spec.endswith((".keras", *H5)):
        raise BadInput(
            f"{spec} ends neither with .keras nor with .h5; save it with model.save(...)."
        )
    if spec.endswith(".keras"):
        _check_archive(spec)


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
    """Load or make the model, and compile it where that was asked for.

    Args:
        spec: A `.keras` or `.h5` file, or `module:function`.
        trust: Run code that the file carries (Lambda layers) and believe its sizes.
        optimizer: Name of the optimizer to compile with, instead of the one in the file.
        loss: Name of the loss to compile with.
        metrics: Names of the metrics to compile with.
        compiled: Whether it has to be compiled in the end.
        lean: Import no backend but the one in use; Keras imports TensorFlow for any `.h5` file.

    Raises:
        BadInput: If the file is damaged, unsafe, or not compiled and no names are given.
    """
    import keras

    import keras_lr  # noqa: F401  registers the classes that a file may name

    if is_function(spec):
        model = call(spec)
        if not isinstance(model, keras.Model):
            raise BadInput(
                f"{spec} returned a {type(model).__name__}; it must return a Keras model."
            )
    else:
        model = _read(spec, trust, lean, bool(optimizer and loss), compiled)
    if optimizer or loss or metrics:
        _compile(model, optimizer, loss, metrics)
    elif compiled and (not getattr(model, "compiled", False) or model.optimizer is None):
        raise BadInput(
            f"{spec} was saved without its optimizer and loss; name both, as in "
            "--optimizer adam --loss mse."
        )
    return model


def loss_name(loss: Any) -> str:
    """The usual name of a loss that was given as a name, an instance or a function."""
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


def _check_archive(spec: str) -> None:
    try:
        with zipfile.ZipFile(spec) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BadInput(f"{spec} is damaged or no .keras file: {one_line(error)}") from error
    if "config.json" not in names:
        raise BadInput(f"{spec} is no Keras model: it has no config.json.")
    needs = sum(entry.file_size for entry in entries)
    if needs > _memory():
        raise BadInput(f"{spec} unpacks to {_gigabytes(needs)}, more than this machine's memory.")


def _read(spec: str, trust: bool, lean: bool, recompiled: bool, compiled: bool) -> Any:
    import keras

    from keras_lr.optimizers.wrapper import public_optimizers

    check_model_file(spec)
    if spec.endswith(H5) and is_endless(spec):
        raise BadInput(f"{spec} is damaged: its strings cannot be read. Save the model again.")
    if not trust and (code := carried_code(spec)):
        raise _untrusted(spec, code)
    unused = ["tensorflow"] if lean and keras.backend.backend() != "tensorflow" else []
    try:
        with hidden(*unused), _weights_within(None if trust else _stored_bytes(spec)):
            model = keras.saving.load_model(
                spec,
                safe_mode=not trust,
                compile=not recompiled,
                custom_objects={
                    **public_optimizers(),
                    **(_old_names() if spec.endswith(H5) else {}),
                },
            )
            if spec.endswith(H5):
                _repair_optimizer(model, spec)
                if compiled and not recompiled:
                    _check_metrics(spec)
            if not recompiled:
                _choose_compiler(model)
    except BadInput:
        raise
    except Exception as error:
        text = one_line(error, 100_000)
        if not trust and any(word in text for word in ("safe_mode", "unsafe", "Lambda")):
            raise _untrusted(spec, "a Lambda layer") from error
        saved, here = _saved_by(spec), keras.__version__
        if _release(saved) > _release(here):
            raise BadInput(
                f"{spec} was saved by Keras {saved}, and Keras {here} cannot load it; "
                f"pip install -U keras. ({one_line(text, 200)})"
            ) from error
        bare = None if recompiled else _loaded_uncompiled(spec, trust, unused)
        if bare is not None and not compiled:
            told = f"The optimizer, loss or metrics of {spec} cannot be read and are left out."
            click.echo(visible(f"{told} ({one_line(text, 200)})"), err=True)
            return bare
        if bare is not None:
            by = f", which Keras {saved} saved," if saved else ""
            raise BadInput(
                f"The optimizer, loss or metrics of {spec}{by} cannot be read; name them, as in "
                f"--optimizer adam --loss mse. ({one_line(text, 200)})"
            ) from error
        if unknown := re.search(r"(?:Could not locate|Unknown layer)[^.]*", text):
            raise BadInput(
                f"{spec} uses a class that Keras does not know; pass --import with the module that "
                f"registers it, or make the model in a function and pass module:function. "
                f"({unknown[0]})"
            ) from error
        if isinstance(error, ValueError) and "File not found" in text:
            text = "it is cut short, or not of the kind that its name says."
        if isinstance(error, MemoryError):
            text = "it asks for more memory than there is."
        raise BadInput(f"{spec} could not be loaded: {one_line(text, 300)}") from error
    if model is None:
        raise BadInput(f"{spec} holds no model.")
    return model


def _untrusted(spec: str, code: str) -> BadInput:
    return BadInput(
        f"{spec} carries Python code ({code}), which runs when it is loaded; "
        "pass --trust if you trust whoever made it."
    )


def _saved_by(spec: str) -> str:
    """The version of Keras that wrote the file; "" if it does not say."""
    try:
        if spec.endswith(H5):
            import h5py

            with h5py.File(spec, "r") as file:
                version = file.attrs.get("keras_version", "")
        else:
            with zipfile.ZipFile(spec) as archive:
                version = json.loads(archive.read("metadata.json")).get("keras_version", "")
    except (OSError, KeyError, ValueError, AttributeError, zipfile.BadZipFile):
        return ""
    version = version.decode() if isinstance(version, bytes) else str(version)
    return version if re.fullmatch(r"\d+(\.\d+)*\S{0,20}", version) else ""


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _loaded_uncompiled(spec: str, trust: bool, unused: Sequence[str]) -> Any:
    """The model, if nothing but the compile state keeps the file from being loaded; else None."""
    import keras

    try:
        with hidden(*unused), _weights_within(None if trust else _stored_bytes(spec)):
            return keras.saving.load_model(spec, safe_mode=not trust, compile=False)
    except Exception:
        return None


def _old_names() -> dict[str, Any]:
    """The short names that old files use for losses and metrics, which Keras 3 does not find."""
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


def _stored_bytes(spec: str) -> int:
    if not zipfile.is_zipfile(spec):
        return os.path.getsize(spec)
    with zipfile.ZipFile(spec) as archive:
        return sum(entry.file_size for entry in archive.infolist())


@contextlib.contextmanager
def _weights_within(stored: int | None) -> Iterator[None]:
    """Refuse to make more weights than the file can hold: a tiny file may ask for terabytes.

    The states of a stateful RNN count too: they are as large as the batch that the file names.
    """
    import keras

    if stored is None:
        yield
        return
    layer, rnn = keras.layers.Layer, keras.layers.RNN
    add_weight = layer.add_weight
    kinds = [each for each in vars(keras.layers).values() if isinstance(each, type)]
    recurrent: dict[Any, Any] = {
        kind: vars(kind)["get_initial_state"]
        for kind in kinds
        if issubclass(kind, rnn) and "get_initial_state" in vars(kind)
    }
    left = 4 * stored + 2**20

    def counted(self: Any, shape: Any = None, *args: Any, **kwargs: Any) -> Any:
        sizes = shape if isinstance(shape, (tuple, list)) else (shape or 1,)
        elements = math.prod(int(size or 1) for size in sizes)
        take(elements, f"{self.name} asks for a weight of shape", shape)
        return add_weight(self, shape, *args, **kwargs)

    def take(elements: int, who: str, what: Any) -> None:
        nonlocal left
        left -= elements
        if left < 0:
            raise BadInput(
                f"The layer {who} {what}, far more than the file holds; the file is damaged, or "
                "pass --trust if it is right."
            )

    def counting(get_initial_state: Any) -> Any:
        def counted(self: Any, batch_size: Any = None) -> Any:
            if self.stateful and isinstance(batch_size, int) and batch_size > 1:
                one = keras.tree.flatten(get_initial_state(self, 1))
                elements = batch_size * sum(math.prod(map(int, each.shape)) for each in one)
                take(elements, f"{self.name} asks for states for a batch of", batch_size)
            return get_initial_state(self, batch_size)

        return counted

    layer.add_weight = counted
    for kind, method in recurrent.items():
        kind.get_initial_state = counting(method)
    try:
        yield
    finally:
        layer.add_weight = add_weight
        for kind, method in recurrent.items():
            kind.get_initial_state = method


def _choose_compiler(model: Any) -> None:
    """Forget what "auto" meant where the file was saved: it holds True or False.

    JAX without its compiler takes a hundred times longer for a step; XLA on TensorFlow and
    `torch.compile` take longer to compile than a range test takes to run.
    """
    import keras

    if getattr(model, "compiled", False) and not model.run_eagerly:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a layer that cannot be compiled stays as it is
            model.jit_compile = keras.backend.backend() == "jax"


def _check_metrics(spec: str) -> None:
    """Keras looks at the metrics of an `.h5` file no sooner than when it trains.

    Raises:
        BadInput: If it knows one of them no longer.
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
                f"The metrics of {spec}, which Keras {_saved_by(spec) or '2'} saved, cannot be "
                "read; name the rest, as in --optimizer adam --loss mse. "
                f"({one_line(error, 200)})"
            ) from error


def _repair_optimizer(model: Any, spec: str) -> None:
    """Give the model of an `.h5` file an optimizer that knows its weights.

    Keras 3 builds the optimizer of such a file for no variables at all, so that a later `fit`
    raises. A fresh one from the same configuration takes the saved state if it fits.
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
    import keras

    compiled = getattr(model, "compiled", False) and model.optimizer is not None
    if not compiled and not (optimizer and loss):
        missing = "--loss" if optimizer else "--optimizer" if loss else "--optimizer and --loss"
        raise BadInput(f"The model was saved without its optimizer and loss; add {missing}.")
    chosen: Any = model.optimizer if compiled else None
    if optimizer:
        chosen = _named(keras.optimizers, keras.optimizers.Optimizer, "optimizer", optimizer)
    measures: list[Any] = [
        name
        if name in ("accuracy", "acc", "crossentropy", "ce")
        else _named(keras.metrics, keras.metrics.Metric, "metric", name)
        for name in metrics
    ]
    try:
        model.compile(
            optimizer=chosen,
            loss=_loss(model, loss) if loss else model.loss,
            metrics=measures or None,
        )
    except Exception as error:
        raise BadInput(f"The model could not be compiled: {one_line(error)}") from error


def _loss(model: Any, name: str) -> Any:
    import keras

    loss = _named(keras.losses, keras.losses.Loss, "loss", name)
    known = loss_name(loss)
    if known not in PROBABILITIES or not _ends_linear(model):
        return loss
    click.echo(f"The model ends without softmax or sigmoid, so {name} takes logits.", err=True)
    return getattr(keras.losses, PROBABILITIES[known])(from_logits=True)


def _ends_linear(model: Any) -> bool:
    layers = getattr(model, "layers", None)
    last = getattr(layers[-1], "activation", "none") if layers else "none"
    return getattr(last, "__name__", last) in LINEAR


def _named(module: Any, kind: type, what: str, name: str) -> Any:
    """The optimizer, loss or metric of that name, or one line that lists the near ones."""
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


def _memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**40


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
