"""The learning-rate range test: run it, save it, read a suggestion from it."""

from keras_lr.range_test.find import lr_find
from keras_lr.range_test.gradient_noise import NoiseScale, noise_scale
from keras_lr.range_test.planned_run import PlannedRun, transfer_lr
from keras_lr.range_test.probes import Probes
from keras_lr.range_test.result import RangeTest
from keras_lr.range_test.suggestion import NoSuggestion, Suggestion, SuggestionWarning
from keras_lr.range_test.warm_up_search import WarmUpSearch, WarmUpTrial, find_warmup

__all__ = [
    "NoSuggestion",
    "NoiseScale",
    "PlannedRun",
    "Probes",
    "RangeTest",
    "Suggestion",
    "SuggestionWarning",
    "WarmUpSearch",
    "WarmUpTrial",
    "find_warmup",
    "lr_find",
    "noise_scale",
    "transfer_lr",
]
