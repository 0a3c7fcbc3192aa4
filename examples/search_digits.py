"""Search the learning rate of a small CNN by training, then read the record without training.

    python examples/search_digits.py                      # TensorFlow, or your Keras backend
    KERAS_BACKEND=jax python examples/search_digits.py

Takes about a minute on two CPU cores. Writes search_digits.sqlite3 and search_digits.html to
the current folder. Needs keras-lr, scikit-learn and optuna. You can stop it with Ctrl-C and start
it again: it resumes after the completed runs.
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
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each run")
    parser.add_argument("--final-seeds", type=int, default=3, help="seeds of the last round")
    chosen = parser.parse_args()

    keras.utils.set_random_seed(0)
    x, y = digits()
    train, held_out = (x[:1400], y[:1400]), (x[1400:], y[1400:])
    model = small_cnn()
    options = {"epochs": chosen.epochs, "final_seeds": chosen.final_seeds, "storage": RECORD}

    for title in ("Searched", "Read from the record"):
        begin = time.perf_counter()
        best = keras_lr.search(model, *train, batch_size=32, verbose=0, **options)
        print(f"{title}: {len(best.outcomes)} runs, {time.perf_counter() - begin:.1f} s.")
    print(f"learning rate {best.learning_rate:.2g}, between {best.low:.2g} and {best.high:.2g}")
    for warning in best.warnings:
        print(f"warning: {warning}")
    print(best.python())
    print(f"Saved {best.report('search_digits.html').name} and {RECORD}.")

    # The search restored the model: the same weights, and an optimizer at step 0.
    model.optimizer.learning_rate = best.learning_rate
    model.fit(*train, batch_size=32, epochs=5, verbose=0)
    _, accuracy = model.evaluate(*held_out, verbose=0)
    print(f"validation accuracy after 5 epochs: {accuracy:.3f}")


if __name__ == "__main__":
    main()
