"""Compile a model whose class overrides `compile`: Keras leaves that to the user of the file."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import click

from .errors import visible

__all__ = ["compiled_as_saved", "missing_arguments"]

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@contextlib.contextmanager
def compiled_as_saved() -> Iterator[None]:
    """In the block, loading a model calls a `compile` of its class with what the file holds.

    Keras calls only its own `compile` and warns about any other. A task of KerasHub then keeps the
    optimizer that its constructor chose, in place of the one that the file names. A class that
    defines `compile_from_config` is left alone.
    """
    import keras

    from keras_lr._util.patching import replaced

    of_keras = keras.Model.compile_from_config

    def compile_from_config(self: Any, config: Any) -> None:
        if not _is_own(self) or not _compile(self, keras.saving.deserialize_keras_object(config)):
            of_keras(self, config)

    with replaced(keras.Model, "compile_from_config", compile_from_config):
        yield


def missing_arguments(model: Any) -> list[str]:
    """The required arguments of a `compile` of the model's class that no file holds."""
    if not _is_own(model):
        return []
    return [
        name
        for name, parameter in _parameters(type(model)).items()
        if parameter.default is parameter.empty and name not in _arguments_of_keras()
    ]


def _is_own(model: Any) -> bool:
    from keras_lr.loops.overridden_fit import overrides

    return overrides(model, "compile")


def _compile(model: Any, saved: dict[str, Any]) -> bool:
    """Call the model's own `compile`; False if it does not take what the file holds."""
    parameters = inspect.signature(type(model).compile).parameters.values()
    own = _parameters(type(model))
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        taken = saved
    else:
        taken = {name: value for name, value in saved.items() if name in own}
        # `jit_compile` is chosen for this backend in any case.
        left_out = set(saved) - set(taken) - {"jit_compile"}
        if any(_was_given(saved, name) for name in left_out):
            return False
    if missing_arguments(model):
        return False
    model.compile(**taken)
    if getattr(model, "optimizer", None) is not None and model.built:
        model.optimizer.build(model.trainable_variables)  # as Keras does, to load its state
    others = [name for name in own if name not in _arguments_of_keras()]
    if others:
        click.echo(
            visible(
                f"The compile of {type(model).__name__} is called with the optimizer, loss and "
                f"metrics of the file; these arguments have their defaults: {', '.join(others)}."
            ),
            err=True,
        )
    return True


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The named parameters of `compile`, without `self`."""
    signature = inspect.signature(kind.compile)  # type: ignore[attr-defined]
    named = [each for each in signature.parameters.values() if each.kind not in VARIADIC]
    return {each.name: each for each in named[1:]}


def _arguments_of_keras() -> dict[str, inspect.Parameter]:
    import keras

    return _parameters(keras.Model)


def _was_given(saved: dict[str, Any], name: str) -> bool:
    """Whether the saved value of this argument of Keras's `compile` differs from its default."""
    known = _arguments_of_keras().get(name)
    value = saved[name]
    return known is None or not (value is None or value == known.default)
