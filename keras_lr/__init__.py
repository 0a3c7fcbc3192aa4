"""Learning rates for Keras 3: find one, and see why."""

from keras_lr.callbacks import LRFinder
from keras_lr.range_test import (
    Confirmation,
    NoSuggestion,
    RangeTest,
    Suggestion,
    SuggestionWarning,
    lr_find,
)

__version__ = "0.1.0"

__all__ = [
    "Confirmation",
    "LRFinder",
    "NoSuggestion",
    "RangeTest",
    "Suggestion",
    "SuggestionWarning",
    "lr_find",
]
