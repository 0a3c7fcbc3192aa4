"""Training loops, one for each backend: one step a batch, at a rate that is set for each step.

All three have the same methods (`Loop`). `train` trains on a stream and returns the values of each
batch (the logs of Keras are running means), `evaluate` evaluates fixed batches. The backends make
a step cheap in different ways: TensorFlow and JAX fuse up to `CHUNK` steps into one call of the
compiled graph, and no backend waits for a number before the chunk is done.
"""

from keras_lr.loops.base import CHUNK, Loop
from keras_lr.loops.kept import keep_loop, loop_dependencies, make_loop

__all__ = ["CHUNK", "Loop", "keep_loop", "loop_dependencies", "make_loop"]
