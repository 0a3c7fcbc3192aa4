"""Losses and metrics: the arguments that those made of a function keep."""

from __future__ import annotations

__all__ = ["ARGUMENTS"]

# The attribute of a loss or a metric that holds the arguments of its function. Their
# configurations leave some of them out: that of `Huber` its delta.
ARGUMENTS = "_fn_kwargs"
