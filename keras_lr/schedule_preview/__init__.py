"""Show what a schedule or a list of callbacks does in a run, without training."""

from keras_lr.schedule_preview.result import KeyPoint, Preview
from keras_lr.schedule_preview.simulate import preview

__all__ = ["KeyPoint", "Preview", "preview"]
