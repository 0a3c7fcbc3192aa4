"""Search for the rate of a small CNN by training it, and read the record again without training.

    python examples/search_digits.py                      # TensorFlow, or what Keras is set to
    KERAS_BACKEND=jax python examples/search_digits.py

Takes about a minute on two CPU cores. Writes search_digits.sqlite3 and search_digits.html to
the current folder. Needs scikit-learn and optuna beside keras-lr. Stop it with Ctrl-C and start it
again: it goes on from the runs that have ended.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from digits_model import digits, small_cnn

import keras_lr

RECORD = "search_digits.sqlite3"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2, help="of each run")
    parser.add_argument("--final-seeds", type=int, default=3, help="seeds of the last round")
    chosen = parser.parse_args()

    keras.utils.set_random_seed(0)
    x, y = digits()
    train, held_out = (x[:1400], y[:1400]), (x[1400:], y[1400:])
    model = small_cnn()
    settings = {"epochs": chosen.epochs, "final_seeds": chosen.final_seeds, "storage": RECORD}

    for title in ("Searched", "Asked again, and read from the record"):
        begin = time.perf_counter()
        best = keras_lr.search(model, *train, batch_size=32, verbose=0, **settings)
        print(f"{title}: {len(best.outcomes)} runs, {time.perf_counter() - begin:.1f} s.")
    print(f"learning rate {best.learning_rate:.2g}, between {best.low:.2g} and {best.high:.2g}")
    for warning in best.warnings:
        print(f"warning: {warning}")
    print(best.python())
    print(f"Wrote {best.report('search_digits.html').name} and {RECORD}.")

    # The model is as it was: the same weights, and an optimizer that never made a step.
    model.optimizer.learning_rate = best.learning_rate
    model.fit(*train, batch_size=32, epochs=5, verbose=0)
    _, accuracy = model.evaluate(*held_out, verbose=0)
    print(f"held-out accuracy after 5 epochs: {accuracy:.3f}")


if __name__ == "__main__":
    main()
