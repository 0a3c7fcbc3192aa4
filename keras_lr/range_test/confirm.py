"""Short runs at constant rates that confirm, or correct, what the ramp suggests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Confirmation:
    learning_rates: list[float]
    losses: list[float]
    steps: list[int]
