"""The learning-rate range test: run it, keep it, read it."""

from keras_lr.range_test.confirm import Confirmation
from keras_lr.range_test.find import lr_find
from keras_lr.range_test.result import RangeTest
from keras_lr.range_test.rules import NoSuggestion, Suggestion, SuggestionWarning

__all__ = [
    "Confirmation",
    "NoSuggestion",
    "RangeTest",
    "Suggestion",
    "SuggestionWarning",
    "lr_find",
]
