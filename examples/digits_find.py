"""Find a learning rate for a small CNN on scikit-learn's digits, then train with it.

    python examples/digits_find.py                        # TensorFlow, or your Keras backend
    KERAS_BACKEND=jax python examples/digits_find.py

Takes less than a minute on two CPU cores. Writes range_test.png and range_test.json to the
current folder. Needs keras-lr and scikit-learn.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from digits_model import digits, small_cnn

import keras_lr
from keras_lr.plotting import save_range_test_plot

EPOCHS = 20


def main() -> None:
    keras.utils.set_random_seed(0)
    x, y = digits()
    train, held_out = (x[:1400], y[:1400]), (x[1400:], y[1400:])
    model = small_cnn()

    begin = time.perf_counter()
    plan = {"policy": "constant", "epochs": EPOCHS, "budget": 200}  # enough for a ramp as well
    test = keras_lr.lr_find(model, *train, batch_size=32, validation_data=held_out, seed=0, **plan)
    found = test.suggest()
    print(f"{test.training_steps} steps in {time.perf_counter() - begin:.1f} s: {test.stop_reason}")
    print(f"learning rate {found.learning_rate:.2g}, between {found.low:.2g} and {found.high:.2g}")
    print(f"planned run: {found.run}")
    print(found.reason)
    for warning in found.warnings:
        print(f"warning: {warning}")
    save_range_test_plot(test, "range_test.png")
    test.save("range_test.json")

    # lr_find restored the model: the same weights, and an optimizer at step 0.
    model.optimizer.learning_rate = found.learning_rate
    model.fit(*train, batch_size=32, epochs=EPOCHS, verbose=0)
    _, accuracy = model.evaluate(*held_out, verbose=0)
    print(f"validation accuracy after {EPOCHS} epochs: {accuracy:.3f}")


if __name__ == "__main__":
    main()
