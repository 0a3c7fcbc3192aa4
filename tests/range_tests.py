"""Range tests for the tests of their pictures."""

import json
from pathlib import Path

import numpy as np

from keras_lr.range_test.probes import Probes

# Recorded by lr_find(x, y, seed=0, stop_factor=None) on small models; names say which.
REAL = json.loads((Path(__file__).parent / "data" / "range_tests.json").read_text(encoding="utf-8"))

# A curve that falls halfway at 1e-3 and is back up at 0.3.
RATES = np.geomspace(1e-7, 10, 100)
FALLS = 2 - 1.5 / (1 + (1e-3 / RATES) ** 1.5) + (RATES / 0.3) ** 2


def probes(**changes):
    """Short runs at five rates: one cut off, two trained longer than the others."""
    made = {
        "learning_rates": [1e-2, 1.0, 30.0, 5e-2, 0.15],
        "losses": [0.9, 2.9, float("inf"), 0.4, 0.35],
        "steps": [100, 100, 100, 200, 200],
        "start": 2.2,
        "rows": 300,
        "cost": 600,
        "centre": -1.0,
    }
    return Probes(**{**made, **changes})
