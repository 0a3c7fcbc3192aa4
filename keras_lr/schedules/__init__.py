"""Learning rate schedules: a step in, a learning rate out."""

from keras_lr.schedules.base import ConstantSchedule
from keras_lr.schedules.cyclic import CyclicSchedule
from keras_lr.schedules.flat_cosine import FlatCosineSchedule
from keras_lr.schedules.inverse_sqrt import InverseSqrtSchedule
from keras_lr.schedules.one_cycle import OneCycleSchedule
from keras_lr.schedules.ramps import ExponentialRampSchedule, LinearRampSchedule
from keras_lr.schedules.scaling import scale_lr
from keras_lr.schedules.sequential import SequentialSchedule
from keras_lr.schedules.slanted_triangular import SlantedTriangularSchedule
from keras_lr.schedules.step_decay import StepDecaySchedule
from keras_lr.schedules.warm_up import WarmUpSchedule
from keras_lr.schedules.warm_up_stable_decay import WarmUpStableDecaySchedule

__all__ = [
    "ConstantSchedule",
    "CyclicSchedule",
    "ExponentialRampSchedule",
    "FlatCosineSchedule",
    "InverseSqrtSchedule",
    "LinearRampSchedule",
    "OneCycleSchedule",
    "SequentialSchedule",
    "SlantedTriangularSchedule",
    "StepDecaySchedule",
    "WarmUpSchedule",
    "WarmUpStableDecaySchedule",
    "scale_lr",
]
