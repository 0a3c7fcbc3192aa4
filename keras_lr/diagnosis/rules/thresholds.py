"""Where rules draw their lines, all in one place.

They were set with the runs on one half of the data sets in benchmarks/diagnosis; what the rules
find and cry wolf at was counted on the other half.
"""

# Rows of a curve below which its shape says nothing.
FEWEST_ROWS = 6

# A loss that ends this share of its whole fall above its best, and this many times its best, or
# above where it began, has diverged. One epoch up is chance; divergence lasts.
DIVERGED_SHARE = 0.5
DIVERGED_TIMES = 3.0
# But one that is this many times all before needs no second one.
LEAP = 3.0

# Noise from epoch to epoch, as a share of the loss. A mean over an epoch's batches that still
# moves by this much was thrown about by the updates, not by the draw of the batches.
WILD = 0.1
WILD_ROWS = 5.0  # a median over few epochs is uncertain: so many epochs double the threshold
# It harms nothing while the loss falls by this many times the noise in half the run, or if a
# lower rate then brought the loss below this share.
GAINING = 2.5
RESCUED = 0.5
# A loss below this share of where it began, or a training metric above, has little left to gain,
# and its noise, though large beside it, does no harm.
CONVERGED_LOSS = 0.03
CONVERGED_METRIC = 0.985
# A loss that keeps its value to this share is not trained any more: even a plateau has noise.
FROZEN = 1e-5

# A first epoch this many times the second; or this many times an untrained model, if known.
BLOWN_UP = 30.0
BLOWN_UP_FROM = 3.0

# A straight line: its slope at the end is this share of the one at the beginning, a parabola
# explains this share of its variance, and the loss keeps this share of what it was. A curve that
# learns bends; one that bends a little is told as a hint, if the held-out loss falls on as well.
STRAIGHT = 0.55
BENT = 0.3
STEADY = 0.95
BARELY_FALLEN = 0.4

# A plateau: this share of the run, and this many epochs, in which the loss fell by less than
# this share.
FLAT_SHARE = 0.4
FLAT_ROWS = 8
FLAT_FALL = 0.05
# Flat is also a run that has learned what its data tell. One that could gain by a lower rate has
# noise of this share. With less, it is a hint, and only of a run that is flat for this long.
FLAT_NOISE = 0.07
LONG_SHARE = 0.5
LONG_ROWS = 20

# Held-out loss this share above its best, or this many times its noise, while the training loss
# went on falling by this share.
OVERFIT_RISE = 0.15
OVERFIT_NOISES = 2.5
OVERFIT_FALL = 0.1

# No gap between training and held-out loss, in shares of the held-out one.
NO_GAP = 0.15
UNDERFIT_LOSS = 0.15  # of the loss at the beginning
UNDERFIT_METRIC = 0.88
UNDERFIT_NOISE = 0.03  # what stands still for want of means does so quietly

# A jump where the run began again: this share of all that had been learned, and this ratio.
SPIKE_SHARE = 0.1
SPIKE_TIMES = 1.4
# A rate that rises by this ratio from one epoch to the next begins a cycle.
RATE_RESTART = 3.0

# A rate that is this share of its highest trains little, and for this share of the run.
SPENT_RATE = 0.01
SPENT_SHARE = 0.3
# What is left of the highest rate at the end of a schedule that hardly began.
UNDECAYED = 0.5

# From this size on, a batch needs a rate so high that it has to be warmed up to (Goyal et al.
# 2017, arXiv 1706.02677, scale from 256).
LARGE_BATCH = 256
# A rate that starts at this share of its highest was not warmed up.
FULL_START = 0.5

# A change of the batch size by less is the last batch, or an average.
BATCH_RATIO = 1.5
# The least share, in logarithms, of the batch's change that the rate follows: its root is 0.5.
FOLLOWED = 0.25
