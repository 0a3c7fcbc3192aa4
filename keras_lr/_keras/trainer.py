"""The trainer: what `compile` stored in a model, and how a step's data and logs pass through."""

from __future__ import annotations

from typing import Any

__all__ = [
    "VALIDATES",
    "autoconverted",
    "compile_arguments",
    "compiled_loss_and_metrics",
    "reduced_over_replicas",
    "synchronise",
    "torch_compiles",
]


# The argument by which `fit` says to `evaluate` that it validates, with data that it has cached.
VALIDATES = "_use_cached_eval_dataset"


def compiled_loss_and_metrics(model: Any) -> tuple[Any, Any]:
    """What `compile` made of the loss and the metrics; None where there are none."""
    return model._compile_loss, model._compile_metrics


def compile_arguments(model: Any) -> dict[str, Any]:
    """The arguments of `compile`; Keras keeps none where a model has a `compile` of its own."""
    return dict(getattr(getattr(model, "_compile_config", None), "config", {}))


def synchronise(model: Any) -> None:
    """Write JAX's training state to the variables, which have no values during an epoch."""
    write = getattr(model, "jax_state_sync", None)
    if write is not None:
        write()


def torch_compiles(model: Any) -> bool:
    """Whether Keras trains the model with `torch.compile`."""
    decide = getattr(model, "_use_torch_compile", None)  # of Keras 3.16
    return bool(model._should_torch_compile() if decide is None else decide())


def autoconverted(model: Any, step: Any) -> Any:
    """A step of TensorFlow in which empty optionals in a batch are None.

    A missing sample weight is one. Keras's trainer does the same.
    """
    convert = getattr(model, "_autoconvert_optionals", None)
    return step if convert is None else convert(step)


def reduced_over_replicas(logs: Any, strategy: Any) -> Any:
    """The logs of a step of TensorFlow, reduced over replicas as Keras's `fit` does it."""
    from keras.src.backend.tensorflow.trainer import reduce_per_replica

    return reduce_per_replica(logs, strategy, reduction="auto")
