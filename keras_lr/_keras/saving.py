"""Saving: objects that Keras saves with a model, and the names that it saves classes by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras.src.saving import object_registration
from keras.src.saving.keras_saveable import KerasSaveable

__all__ = ["Saveable", "save_under_name"]


class Saveable(KerasSaveable):
    """An attribute of a model that is saved and loaded with the weights, by two functions.

    Keras walks through the attributes of what it saves, but not into functions.

    Args:
        save, load: Functions of the store of this object.
    """

    def __init__(self, save: Callable[[Any], None], load: Callable[[Any], None]) -> None:
        self.save_own_variables = save
        self.load_own_variables = load

    def _obj_type(self) -> str:
        return "Loss"  # the kind decides only which attributes Keras looks at


def save_under_name(cls: type, name: str) -> None:
    """Have objects of a class saved under the registered name of another class, which loads them.

    Keras's public decorator would register the class for loading as well.
    """
    object_registration.GLOBAL_CUSTOM_NAMES[cls] = name
