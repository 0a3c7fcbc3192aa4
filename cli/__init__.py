"""The `keras-lr` command. Importing it loads click and nothing heavier."""

from .commands import main

__all__ = ["main"]
