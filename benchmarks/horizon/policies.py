"""The policies of the planned runs: multipliers of the peak rate for each update."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "suggestion"))

import runs


def constant(updates: int) -> np.ndarray:
    return runs.constant(1.0, updates)


def one_cycle(updates: int) -> np.ndarray:
    return runs.one_cycle(1.0, updates)


def cosine(updates: int) -> np.ndarray:
    """Linear warm-up over 5 %, then half a cosine to zero."""
    i, up = np.arange(updates), int(0.05 * updates)
    return np.where(i < up, (i + 1) / up, (1 + np.cos(np.pi * (i - up) / (updates - up))) / 2)


def wsd(updates: int) -> np.ndarray:
    """Linear warm-up over 5 %, one rate until 80 %, then linear to zero."""
    i, up, down = np.arange(updates), int(0.05 * updates), int(0.8 * updates)
    return np.minimum(np.minimum((i + 1) / up, 1), (updates - i) / (updates - down))


POLICIES = {"constant": constant, "one-cycle": one_cycle, "cosine": cosine, "wsd": wsd}
