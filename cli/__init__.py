"""The `keras-lr` command. Importing this package imports click, but neither Keras nor NumPy."""

from .commands import main

__all__ = ["main"]
