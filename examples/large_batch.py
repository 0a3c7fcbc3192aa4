"""A large batch with its rate scaled in proportion: as good as a small one, given a warm-up?

    python examples/large_batch.py                        # TensorFlow, or what Keras is set to
    KERAS_BACKEND=jax python examples/large_batch.py --networks 30

Takes less than a minute on two CPU cores and writes nothing. Needs scikit-learn beside keras-lr.

Goyal et al. ("Accurate, large minibatch SGD", 2017) train ResNet-50 with batches of up to 8192 as
well as with 256, in as many epochs, by a rate that is k times higher where the batch is k times
larger, and a warm-up to it. Here the rate is the best of several for the small batch. That which is
best for the large batch, without a rule and without a warm-up, stands beside it.
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

    as_good = "as good as the small one, to a point"
    print(judged(f"The large batch, scaled and warmed up, {as_good}", warm, small, at_least=-1))
    print(judged("The scaled rate better with a warm-up", warm, cold))
    print(judged("The rule as good as tuning, to a point", warm, own, at_least=-1))
    print(f"{time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
