"""Cyclic rates in half of the epochs against a constant rate, and with bounds of a range test.

    python examples/cyclic.py                             # TensorFlow, or your Keras backend
    KERAS_BACKEND=jax python examples/cyclic.py --networks 30

Takes less than a minute on two CPU cores and writes no files. Needs keras-lr and scikit-learn.

Smith ("Cyclical learning rates", 2017) claims that a cyclic rate needs fewer steps than a constant
rate for the same accuracy, and that a range test gives its bounds without tuning. Here, the
constant rate is the best of a grid for its number of epochs. The same cycles also run with the best
upper bound of the same grid.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from side_by_side import FOOT, Networks, head, judged, options, row

import keras_lr

LONG, SHORT = 4, 2  # epochs
CYCLES = 2


def main():
    chosen = options(__doc__.splitlines()[0])
    begin = time.perf_counter()
    networks = Networks(chosen.networks, chosen.rates)
    half_cycle = SHORT * networks.steps_per_epoch // (2 * CYCLES)

    def cycles(rate):
        return [keras_lr.CyclicLR(base_lr=rate / 4, max_lr=rate, step_size=half_cycle)]

    print(head(chosen.networks))
    rate, constant = networks.tuned(epochs=LONG)
    print(row("constant", LONG, rate, constant, chosen.rates), flush=True)
    rate, short = networks.tuned(epochs=SHORT)
    print(row("constant", SHORT, rate, short, chosen.rates), flush=True)
    rate, tuned = networks.tuned(cycles, epochs=SHORT)
    print(row("cyclic, to", SHORT, rate, tuned, chosen.rates), flush=True)

    networks.reset()
    found = keras_lr.lr_find(networks.model, networks.x, networks.y, batch_size=64, seed=0)
    low, high = found.bounds()
    bounded = networks.judge(
        high, [keras_lr.CyclicLR(base_lr=low, max_lr=high, step_size=half_cycle)], epochs=SHORT
    )
    print(row(f"cyclic, range test: {low:.2g} to", SHORT, high, bounded))
    print(FOOT)

    half = "in half of the epochs as good as a constant rate, within a point"
    print(judged(f"Cyclic rates {half}", tuned, constant, at_least=-1))
    print(judged("Cyclic rates better than a constant rate if both are short", tuned, short))
    claim = "The range test's bounds as good as tuned ones, within a point"
    print(judged(claim, bounded, tuned, at_least=-1))
    print(f"{time.perf_counter() - begin:.0f} seconds.")


if __name__ == "__main__":
    main()
