"""The thresholds of all rules.

They were set with the runs on one half of the data sets in benchmarks/diagnosis. The other half
gave the counts of correct findings and false alarms.
"""

from keras_lr.diagnosis.result import FEWEST_ROWS

__all__ = ["FEWEST_ROWS"]

# Divergence: the loss ends above its minimum by this share of its fall and by this factor, or above
# its initial value. One high epoch may be chance; divergence lasts.
DIVERGED_SHARE = 0.5
DIVERGED_TIMES = 3.0
# A last loss of this many times all losses before it needs no second one.
DIVERGED_AT_ONCE = 3.0

# Oscillation: noise from epoch to epoch, as a share of the loss. The mean over an epoch averages
# the noise of its batches, so noise of this size comes from the updates.
OSCILLATION = 0.1
OSCILLATION_ROWS = 5.0  # few epochs give an uncertain median: with this many the threshold doubles
# Rows of steps have the noise of their batches, unless each evaluation follows this many of them.
FEW_BATCHES = 10
# Oscillation is harmless while the loss falls by this many times the noise in half the run, or if
# a lower rate then brought the loss below this share.
FALL_TO_NOISE = 2.5
RECOVERED = 0.5
# Converged: a loss below this share of its initial value, or a training metric above this value.
# Little can be gained, and noise that is large relative to the loss is harmless.
CONVERGED_LOSS = 0.03
CONVERGED_METRIC = 0.985
# A loss that changes by less than this share gets no updates: even a plateau has noise.
CONSTANT = 1e-5

# First updates that diverged: the first loss is this many times the second, or this many times the
# loss of the untrained model if it is known.
FIRST_LOSS = 30.0
FIRST_LOSS_KNOWN = 3.0

# A linear fall: the slope at the end is at least this share of the slope at the start, a parabola
# explains this share of the variance, and the loss keeps this share of its initial value. A curve
# with a lower ratio of slopes, down to BENT_SLOPE, gives a hint if the validation loss still falls.
LINEAR_SLOPE = 0.55
BENT_SLOPE = 0.3
LINEAR_FIT = 0.95
# Neither is reported if the loss falls by at least this share in each row: the log is too short to
# show the end of such a curve.
SLOW_FALL = 0.05
SMALL_FALL = 0.4

# A plateau: for this share of the run, and at least this many epochs, the loss falls by less than
# FLAT_FALL.
FLAT_SHARE = 0.4
FLAT_ROWS = 8
FLAT_FALL = 0.05
# A converged run also plateaus. If a lower rate would help, the plateau has at least this noise.
# With less noise the finding is a hint, and only after a plateau of this length.
FLAT_NOISE = 0.07
LONG_SHARE = 0.5
LONG_ROWS = 20

# Overfitting: the validation loss is above its minimum by this share and by this many times its
# noise, while the training loss fell by OVERFIT_FALL.
OVERFIT_RISE = 0.15
OVERFIT_NOISES = 2.5
OVERFIT_FALL = 0.1
# Smaller rises count if the loss rises in each of at least four rows. A noisy rise counts if
# Student's t of its slope is at least OVERFIT_TREND, or OVERFIT_TREND_GAP beside a standing gap. If
# a validation metric stays within METRIC_STAYS of its best, the loss has to rise to OVERFIT_CLEAR
# times its minimum.
OVERFIT_MONOTONE = 0.05
OVERFIT_TREND = 2.0
OVERFIT_TREND_GAP = 1.5
METRIC_STAYS = 0.005
OVERFIT_CLEAR = 1.5
OVERFIT_SURE = 3.0  # below this, such a rise is a hint
# A standing gap: the training loss ends below this share of the validation loss, which has not
# improved for this share of the run.
GAP = 0.7
GAP_SHARE = 0.35

# A jump of the validation loss: to this many times its values before and its first value; or noise
# of this size from one evaluation to the next.
JUMP_TIMES = 5.0
JUMP_NOISE = 0.3
# A validation metric of this value at each evaluation is suspicious.
PERFECT = 0.999

# The model never started to learn if the loss stays above this share of its first value.
NEVER_LEARNED = 0.9

# An explosion: the highest loss is this many times the median; the rest has this noise.
EXPLODED = 100.0
BOUNCING = 0.5

# A loss of reinforcement learning follows the size of the rewards: only this growth is divergence.
REWARDED_EXPLODED = 1e6

# Underfitting: no gap between training and validation loss, as a share of the validation loss.
NO_GAP = 0.15
UNDERFIT_LOSS = 0.15  # of the initial loss
UNDERFIT_METRIC = 0.88
UNDERFIT_NOISE = 0.03  # an underfitting model's loss plateaus with little noise

# A spike after a restart: the rise as a share of the fall before it, and the ratio of the losses.
SPIKE_SHARE = 0.1
SPIKE_TIMES = 1.4
# A rate that rises by this ratio from one epoch to the next starts a cycle.
RATE_RESTART = 3.0

# A schedule ended early: the rate is below this share of its maximum for this share of the run.
SPENT_RATE = 0.01
SPENT_SHARE = 0.3
# A schedule never decayed: the final rate is above this share of its maximum.
UNDECAYED = 0.5

# Batches of at least this size need a high rate, and so a warm-up (Goyal et al. 2017, arXiv
# 1706.02677, scale the rate from a batch size of 256).
LARGE_BATCH = 256
# A rate that starts above this share of its maximum had no warm-up.
FULL_START = 0.5

# Smaller ratios of batch sizes come from a partial last batch or from averaging.
BATCH_RATIO = 1.5
# The rate followed the batch size if its logarithmic change is this share of that of the batch
# size; square-root scaling has 0.5.
FOLLOWED = 0.25
