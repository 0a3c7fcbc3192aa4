"""Optimizers with a rate per layer and rates that adapt; each is made from one of Keras's."""

from keras_lr.optimizers.layerwise import LayerwiseLR

__all__ = ["LayerwiseLR"]
