"""Write the three notebooks for Colab, with their outputs: python examples/make_notebooks.py [NAME]

find_and_train.ipynb, fine_tune.ipynb and gan.ipynb need no file of this folder: they install the
package, make their data or take them from scikit-learn, and take minutes on a CPU. `make notebook`
runs them. The machinery is that of make_tour.py.
"""

import os
import sys

from make_tour import HERE, execute, notebook, save

INSTALL = """
>>>
# On Colab, this installs the package; the rest is there already.
import importlib.util

if importlib.util.find_spec("keras_lr") is None:
    %pip install -q keras-lr
"""
START = """
>>>
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import keras_lr

plt.rcParams["figure.dpi"] = 72
keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = images.reshape(-1, 8, 8, 1).astype("float32") / 16, labels.astype("int32")
x.shape
"""

FIND_AND_TRAIN = [
    """
# Find a learning rate and train with it

A small CNN on scikit-learn's digits: find the rate for a run of ten epochs with one-cycle, train,
compare with Keras's default rate, and check the run. It takes a minute on a CPU, on any backend
of Keras.
""",
    INSTALL,
    START.replace("import numpy as np\n", ""),
    """
>>>
def new_model(rate=1e-3):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.25),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


train, held_out = (x[:1400], y[:1400]), (x[1400:], y[1400:])
model = new_model()
""",
    """
## Find the rate

`lr_find` trains for a few hundred steps and restores the model. As the last line of a cell, the
test shows its picture and its answer.
""",
    """
>>>
test = keras_lr.lr_find(model, *train, policy="one-cycle", epochs=10, seed=0, verbose=0)
test
""",
    """
## Train

The schedule that the rate is for:
""",
    """
>>>
found = test.suggest()
one_cycle = keras_lr.OneCycle(max_lr=found.learning_rate)
keras_lr.preview(one_cycle, steps=found.test.planned.total_steps)
""",
    """
>>>
fit = {"epochs": 10, "validation_data": held_out, "verbose": 0}
history = model.fit(*train, callbacks=[one_cycle, keras_lr.LRLogger()], **fit)
usual = new_model().fit(*train, **fit)  # Adam at 1e-3, as Keras compiles it
for name, run in {"one-cycle at the found rate": history, "Adam at 1e-3": usual}.items():
    print(f"{name}: validation loss {run.history['val_loss'][-1]:.3f}")
""",
    """
## Check the run

`diagnose` reads the history: its problems with evidence, or that there are none.
""",
    """
>>>
keras_lr.diagnose(history)
""",
    """
A run at thirty times the rate, judged with the loss of an untrained model, the logarithm of the
number of classes:
""",
    """
>>>
import math

fast = new_model(30 * found.learning_rate)
keras_lr.diagnose(fast.fit(*train, **fit), untrained_loss=math.log(10))
""",
]

FINE_TUNE = [
    """
# Fine-tune with a multiplier for each layer

A network that knows the digits 0 to 4 learns 5 to 9 from ten images of each: the head learns at
the full rate, each layer before it at a smaller one, in one optimizer. It takes a minute on a
CPU, on any backend of Keras. A real task starts from `keras.applications` or KerasHub instead of
the first fit here.
""",
    INSTALL,
    START,
    """
>>>
old, new = y < 5, y >= 5
rng = np.random.default_rng(0)
few = np.concatenate([rng.choice(np.flatnonzero(y == digit), 10, False) for digit in range(5, 10)])
rest = np.setdiff1d(np.flatnonzero(new), few)

body = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="first"),
        keras.layers.Conv2D(32, 3, strides=2, activation="relu", name="second"),
        keras.layers.Flatten(),
        keras.layers.Dense(64, "relu", name="third"),
    ],
    name="body",
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
pretrained = keras.Sequential([body, keras.layers.Dense(5, name="old_head")])
pretrained.compile("adam", loss, metrics=["accuracy"])
pretrained.fit(x[old], y[old], epochs=10, verbose=0)
weights = body.get_weights()
print(f"accuracy on 0 to 4: {pretrained.evaluate(x[old], y[old], verbose=0)[1]:.3f}")
""",
    """
>>>
def with_new_head():
    keras.utils.set_random_seed(2)
    body.set_weights(weights)
    body.trainable = True
    return keras.Sequential([body, keras.layers.Dense(5, name="head")])


def train(model, optimizer, epochs=30):
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(x[few], y[few] - 5, epochs=epochs, batch_size=10, verbose=0)
    return model.evaluate(x[rest], y[rest] - 5, verbose=0)[1]
""",
    """
## Multipliers

`layer_decay` gives the head 1 and each block before it half of the next; `boost_head` and
`discriminative` are other recipes, and a dictionary of your own works too.
""",
    """
>>>
model = with_new_head()
multipliers = keras_lr.layer_decay(model, 0.5)
multipliers
""",
    """
The rate for the model with its multipliers:
""",
    """
>>>
adam = keras_lr.optimizers.LayerwiseLR(keras.optimizers.Adam(1e-3), multipliers)
model.compile(adam, loss, metrics=["accuracy"])
fifty = (x[few], y[few] - 5)
test = keras_lr.lr_find(model, *fifty, batch_size=10, total_steps=150, seed=0, verbose=0)
test
""",
    """
## Compare

The held-out accuracy after the same 30 epochs, with one rate for all layers, with the
multipliers, and with the body frozen (a multiplier of 0). One run each: the differences are
small, and other seeds change them; `examples/fine_tune_digits.py` compares the methods over many
networks.
""",
    """
>>>
rate = test.suggest().learning_rate
layerwise = keras_lr.optimizers.LayerwiseLR
accuracies = {
    "one rate": train(with_new_head(), keras.optimizers.Adam(rate)),
    "layer_decay 0.5": train(with_new_head(), layerwise(keras.optimizers.Adam(rate), multipliers)),
    "frozen body": train(with_new_head(), layerwise(keras.optimizers.Adam(rate), {"body/.*": 0.0})),
}
for name, accuracy in accuracies.items():
    print(f"{name:<16} {accuracy:.3f}")
""",
    """
## In one call

`fine_tune` is the recipe of fastai: the head alone, then all layers, in one cycle each. Its
default, `base_lr=2e-3`, is meant for large pretrained networks; on this small one it stays behind.
Pass the rate that you found as `base_lr`.
""",
    """
>>>
model = with_new_head()
model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"])
phases = keras_lr.fine_tune(model, *fifty, head_epochs=5, epochs=25, batch_size=10, verbose=0)
print(f"{model.evaluate(x[rest], y[rest] - 5, verbose=0)[1]:.3f}")
""",
]

GAN = [
    """
# A GAN with two optimizers

Name the optimizer for each callback and for the range test, by its attribute in the model: the
discriminator and the generator get their own rates and their own schedules. It takes a minute on
a CPU. The training step is for PyTorch; Keras's guide has it for TensorFlow and JAX.
""",
    INSTALL,
    START.replace("import os\n", 'import os\n\nos.environ["KERAS_BACKEND"] = "torch"', 1)
    .replace("import numpy as np\n", "import torch\n")
    .replace("import keras_lr\n", "import keras_lr\n\n%matplotlib inline")
    .replace("x, y = ", "x, _ = ", 1)
    .replace(', labels.astype("int32")', ", labels", 1)
    .replace("reshape(-1, 8, 8, 1)", "reshape(-1, 64)"),
    """
>>>
cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)


def network(inputs, outputs, last=None):
    dense = keras.layers.Dense
    layers = [dense(128, "leaky_relu"), dense(128, "leaky_relu"), dense(outputs, last)]
    return keras.Sequential([keras.Input((inputs,)), *layers])


class GAN(keras.Model):
    def __init__(self):
        super().__init__()
        self.generator, self.discriminator = network(16, 64, "sigmoid"), network(64, 1)
        self.built = True

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def descend(self, loss, network, optimizer):
        self.zero_grad()
        loss.backward()
        weights = network.trainable_weights
        with torch.no_grad():
            optimizer.apply([weight.value.grad for weight in weights], weights)

    def train_step(self, real):
        rows = real.shape[0]
        ones, zeros = keras.ops.ones((rows, 1)), keras.ops.zeros((rows, 1))
        made = self.generator(keras.random.normal((rows, 16)))
        d_loss = cross_entropy(0.9 * ones, self.discriminator(real))
        d_loss = d_loss + cross_entropy(zeros, self.discriminator(made.detach()))
        self.descend(d_loss, self.discriminator, self.d_optimizer)
        made = self.generator(keras.random.normal((rows, 16)))
        g_loss = cross_entropy(ones, self.discriminator(made))
        self.descend(g_loss, self.generator, self.g_optimizer)
        return {"d_loss": d_loss, "g_loss": g_loss}


gan = GAN()
adam = keras.optimizers.Adam
gan.compile(adam(2e-4, beta_1=0.5), adam(2e-4, beta_1=0.5))
""",
    """
## A rate for the discriminator

The losses of a GAN say little about its quality: take such a rate as an upper limit, and train
well below it. The curve of the discriminator is the more useful one.
""",
    """
>>>
test = keras_lr.lr_find(
    gan, x, optimizer="d_optimizer", monitor="d_loss", steps=100, budget=100, seed=0, verbose=0
)
test
""",
    """
## A schedule for each optimizer

Both warm up and decay; the generator has half of the discriminator's rate. `LRLogger` records the
rates of both.
""",
    """
>>>
limit = test.suggest().learning_rate
rate = min(limit / 10, 1e-3)
callbacks = [
    keras_lr.OneCycle(rate, cycle_momentum=False, optimizer="d_optimizer"),
    keras_lr.OneCycle(rate / 2, cycle_momentum=False, optimizer="g_optimizer"),
    d_log := keras_lr.LRLogger(optimizer="d_optimizer"),
    g_log := keras_lr.LRLogger(optimizer="g_optimizer"),
]
history = gan.fit(x, epochs=60, batch_size=64, callbacks=callbacks, verbose=0)

figure, (above, below) = plt.subplots(2, figsize=(7, 4), layout="constrained")
for log, name in ((d_log, "discriminator"), (g_log, "generator")):
    above.plot(log.history["learning_rate"], label=name)
above.set(xlabel="update", ylabel="learning rate")
above.legend()
for name in ("d_loss", "g_loss"):
    below.plot(history.history[name], label=name)
below.set(xlabel="epoch", ylabel="loss")
below.legend();
""",
    """
The digits of the generator:
""",
    """
>>>
made = keras.ops.convert_to_numpy(gan.generator(keras.random.normal((24, 16), seed=1)))
figure, axes = plt.subplots(2, 12, figsize=(7, 1.4), layout="constrained")
for image, panel in zip(made, axes.flat, strict=True):
    panel.imshow(image.reshape(8, 8), cmap="gray_r")
    panel.axis("off")
""",
]

NOTEBOOKS = {"find_and_train": FIND_AND_TRAIN, "fine_tune": FINE_TUNE, "gan": GAN}


def main():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    for name in sys.argv[1:] or NOTEBOOKS:
        save(execute(notebook(NOTEBOOKS[name]), timeout=1200), HERE / f"{name}.ipynb")


if __name__ == "__main__":
    main()
