"""How the train function of each backend follows the curves; one file a backend."""

from __future__ import annotations

from typing import Any

import keras

from keras_lr.steering.backends.base import TrainFunctionPatch
from keras_lr.steering.backends.jax import JaxPatch
from keras_lr.steering.backends.tensorflow import TensorFlowPatch
from keras_lr.steering.backends.torch import TorchPatch
from keras_lr.steering.binding import Binding

__all__ = ["TrainFunctionPatch", "gains_from_threads", "make_patch"]

_SMALL = 64  # variables


def make_patch(model: Any, bindings: list[Binding], **options: Any) -> TrainFunctionPatch:
    """The patch of the train function for the backend that runs."""
    backend = keras.backend.backend()
    patches = {"tensorflow": TensorFlowPatch, "jax": JaxPatch, "torch": TorchPatch}
    if backend not in patches:
        raise RuntimeError(
            "Callbacks of keras_lr need the Keras backend tensorflow, jax or torch; got "
            f"{backend!r}. Set KERAS_BACKEND before Keras is imported."
        )
    return patches[backend](model, bindings, **options)


def gains_from_threads(model: Any) -> bool:
    """Whether Keras should call the hooks at the end of each batch in a thread, its default.

    A thread keeps an accelerator busy. For short steps on the host it costs more than it gains:
    half of the step of a small model.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        return any(v.value.device.type != "cpu" for v in model.trainable_variables[:1])
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu" or len(model.trainable_variables) > _SMALL
    return False
