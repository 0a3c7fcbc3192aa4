"""Callbacks for `model.fit`."""

from keras_lr.callbacks.cyclic_lr import CyclicLR
from keras_lr.callbacks.final_decay import cooldown
from keras_lr.callbacks.gradual_unfreeze import GradualUnfreeze
from keras_lr.callbacks.halve_on_divergence import HalveOnDivergence, HalvingEvent
from keras_lr.callbacks.live_diagnosis import Diagnose
from keras_lr.callbacks.lr_finder import LRFinder
from keras_lr.callbacks.lr_logger import LRLogger
from keras_lr.callbacks.one_cycle import OneCycle
from keras_lr.callbacks.plateau_rule import PlateauRule
from keras_lr.callbacks.reduce_lr_on_plateau import PlateauEvent, ReduceLROnPlateau
from keras_lr.callbacks.schedule_hyperparameter import ScheduleHyperparameter
from keras_lr.callbacks.schedule_lr import ScheduleLR
from keras_lr.callbacks.warm_up import WarmUp
from keras_lr.callbacks.warm_up_stable_decay import WarmUpStableDecay

__all__ = [
    "CyclicLR",
    "Diagnose",
    "GradualUnfreeze",
    "HalveOnDivergence",
    "HalvingEvent",
    "LRFinder",
    "LRLogger",
    "OneCycle",
    "PlateauEvent",
    "PlateauRule",
    "ReduceLROnPlateau",
    "ScheduleHyperparameter",
    "ScheduleLR",
    "WarmUp",
    "WarmUpStableDecay",
    "cooldown",
]
