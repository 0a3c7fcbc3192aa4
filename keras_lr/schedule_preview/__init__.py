"""What a schedule or a stack of callbacks would do in a run, without training."""

from keras_lr.schedule_preview.simulate import Preview, preview

__all__ = ["Preview", "preview"]
