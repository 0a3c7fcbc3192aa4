"""Learning rates for Keras 3: find one, see why, and train with it.

Functions that draw are in `keras_lr.plotting`, which imports matplotlib when it draws.
"""

from keras_lr import optimizers, plotting, schedules
from keras_lr.callbacks import (
    CyclicLR,
    GradualUnfreeze,
    HalveOnDivergence,
    HalvingEvent,
    LRFinder,
    LRLogger,
    OneCycle,
    PlateauEvent,
    ReduceLROnPlateau,
    ScheduleLR,
    WarmUp,
)
from keras_lr.diagnosis import Diagnosis, Finding, diagnose
from keras_lr.fine_tuning import FineTuning, fine_tune
from keras_lr.presets import boost_head, discriminative, layer_decay, layer_groups
from keras_lr.preview import Preview, preview
from keras_lr.range_test import (
    Confirmation,
    NoSuggestion,
    RangeTest,
    Suggestion,
    SuggestionWarning,
    lr_find,
)
from keras_lr.schedules import scale_lr
from keras_lr.search import Search, SearchError, search

__version__ = "0.1.0"

__all__ = [
    "Confirmation",
    "CyclicLR",
    "Diagnosis",
    "FineTuning",
    "Finding",
    "GradualUnfreeze",
    "HalveOnDivergence",
    "HalvingEvent",
    "LRFinder",
    "LRLogger",
    "NoSuggestion",
    "OneCycle",
    "PlateauEvent",
    "Preview",
    "RangeTest",
    "ReduceLROnPlateau",
    "ScheduleLR",
    "Search",
    "SearchError",
    "Suggestion",
    "SuggestionWarning",
    "WarmUp",
    "boost_head",
    "diagnose",
    "discriminative",
    "layer_decay",
    "layer_groups",
    "fine_tune",
    "lr_find",
    "optimizers",
    "plotting",
    "preview",
    "scale_lr",
    "schedules",
    "search",
]
