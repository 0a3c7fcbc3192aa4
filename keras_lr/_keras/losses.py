"""Losses: the arguments of those that are made of a function."""

from __future__ import annotations

__all__ = ["ARGUMENTS"]

# The attribute of a loss or a metric that holds the arguments of its function. Their
# configurations leave some of them out: that of `Huber` its delta.
ARGUMENTS = "_fn_kwargs"
