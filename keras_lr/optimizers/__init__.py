"""Optimizers with a learning rate for each layer, and with learning rates that adapt."""

from keras_lr.optimizers.adaptive_gains import AdaptiveGains
from keras_lr.optimizers.hypergradient import Hypergradient
from keras_lr.optimizers.layerwise import LayerwiseLR
from keras_lr.optimizers.prodigy import Prodigy
from keras_lr.optimizers.schedule_free import ScheduleFree

__all__ = ["AdaptiveGains", "Hypergradient", "LayerwiseLR", "Prodigy", "ScheduleFree"]
