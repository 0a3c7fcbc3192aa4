"""Learning rates for Keras 3: find one, see why, and train with it.

`keras_lr.plotting` holds the functions that draw; it is imported when it is first used.
"""

import importlib
from typing import Any

from keras_lr import optimizers, schedules
from keras_lr.callbacks import (
    CyclicLR,
    Diagnose,
    GradualUnfreeze,
    HalveOnDivergence,
    HalvingEvent,
    LRFinder,
    LRLogger,
    OneCycle,
    PlateauEvent,
    PlateauRule,
    ReduceLROnPlateau,
    ScheduleHyperparameter,
    ScheduleLR,
    WarmUp,
    WarmUpStableDecay,
    cooldown,
)
from keras_lr.diagnosis import Diagnosis, Finding, diagnose
from keras_lr.fine_tuning import FineTuning, fine_tune
from keras_lr.optimizers.decay_mask import no_weight_decay
from keras_lr.optimizers.presets import boost_head, discriminative, layer_decay, layer_groups
from keras_lr.range_test import (
    NoiseScale,
    NoSuggestion,
    PlannedRun,
    Probes,
    RangeTest,
    Suggestion,
    SuggestionWarning,
    WarmUpSearch,
    WarmUpTrial,
    find_warmup,
    lr_find,
    noise_scale,
    transfer_lr,
)
from keras_lr.rate_search import Answer, Search, SearchError, Setting, search
from keras_lr.schedule_preview import Preview, preview
from keras_lr.schedules import scale_lr

__version__ = "0.2.0"

__all__ = [
    "Answer",
    "CyclicLR",
    "Diagnose",
    "Diagnosis",
    "FineTuning",
    "Finding",
    "GradualUnfreeze",
    "HalveOnDivergence",
    "HalvingEvent",
    "LRFinder",
    "LRLogger",
    "NoSuggestion",
    "NoiseScale",
    "OneCycle",
    "PlannedRun",
    "PlateauEvent",
    "PlateauRule",
    "Preview",
    "Probes",
    "RangeTest",
    "ReduceLROnPlateau",
    "ScheduleHyperparameter",
    "ScheduleLR",
    "Search",
    "SearchError",
    "Setting",
    "Suggestion",
    "SuggestionWarning",
    "WarmUp",
    "WarmUpSearch",
    "WarmUpStableDecay",
    "WarmUpTrial",
    "boost_head",
    "cooldown",
    "diagnose",
    "discriminative",
    "layer_decay",
    "layer_groups",
    "find_warmup",
    "fine_tune",
    "lr_find",
    "no_weight_decay",
    "noise_scale",
    "optimizers",
    "plotting",
    "preview",
    "scale_lr",
    "schedules",
    "search",
    "transfer_lr",
]


def __getattr__(name: str) -> Any:
    if name == "plotting":
        return importlib.import_module("keras_lr.plotting")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
