"""Curves of the learning rate: a step in, a rate out."""

from keras_lr.schedules.base import ConstantSchedule
from keras_lr.schedules.cyclic import CyclicSchedule
from keras_lr.schedules.one_cycle import OneCycleSchedule
from keras_lr.schedules.warm_up import WarmUpSchedule

__all__ = [
    "ConstantSchedule",
    "CyclicSchedule",
    "OneCycleSchedule",
    "WarmUpSchedule",
]
