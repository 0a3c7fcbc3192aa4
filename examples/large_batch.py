"""Is a large batch at a linearly scaled rate, with a warm-up, as good as a small batch?

    python examples/large_batch.py                        # TensorFlow, or your Keras backend
    KERAS_BACKEND=jax python examples/large_batch.py --networks 30

Takes less than a minute on two CPU cores and writes no files. Needs keras-lr and scikit-learn.

Goyal et al. ("Accurate, large minibatch SGD", 2017) train ResNet-50 with batch sizes up to 8192 to
the same accuracy as with 256, in the same number of epochs. They multiply the rate by the ratio of
the batch sizes and warm up to it. Here, the rate is the best of a grid for the small batch. The
baseline is the best rate of the grid for the large batch, without warm-up.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from side_by_side import FOOT, Networks, head, judged, options, row

import keras_lr

SMALL, LARGE = 32, 512
EPOCHS = 6


def main():
    chosen = options(__doc__.splitlines()[0])
    begin = time.perf_counter()
    networks = Networks(chosen.networks, chosen.rates)
    print(head(chosen.networks))
    rate, small = networks.tuned(epochs=EPOCHS, batch_size=SMALL)
    print(row(f"batches of {SMALL}", EPOCHS, rate, small, chosen.rates), flush=True)

    large = {"epochs": EPOCHS, "batch_size": LARGE}
    scaled = keras_lr.scale_lr(rate, LARGE, SMALL)
    cold = networks.judge(scaled, **large)
    print(row(f"batches of {LARGE}, scaled", EPOCHS, scaled, cold), flush=True)
    warm_up = keras_lr.WarmUp(epochs=1, start_factor=SMALL / LARGE)
    warm = networks.judge(scaled, [warm_up], **large)
    print(row(f"batches of {LARGE}, scaled, warm-up", EPOCHS, scaled, warm), flush=True)
    rate, own = networks.tuned(**large)
    print(row(f"batches of {LARGE}, tuned", EPOCHS, rate, own, chosen.rates))
    print(FOOT)

    as_good = "as good as the small one, within a point"
    print(judged(f"The large batch, scaled and warmed up, {as_good}", warm, small, at_least=-1))
    print(judged("The scaled rate better with a warm-up", warm, cold))
    print(judged("The rule as good as tuning, within a point", warm, own, at_least=-1))
    print(f"{time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
