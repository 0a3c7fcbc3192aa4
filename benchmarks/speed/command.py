"""Measure the whole `keras-lr find` process, against the shortest script that does the same work.

    python benchmarks/speed/command.py --backend jax

The script imports Keras, loads the same model, trains 100 steps by `fit` and saves a picture. Whole
processes alternate, A B A B; medians of the ratios of their CPU and wall times. The first pair is
reported separately: it fills the disk cache, and on JAX our cache of compiled programs.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import row, tell

MARKS = {"tensorflow": 1.05, "jax": 0.6}
MAKE = """
import keras, numpy as np
layers = [keras.layers.Dense(64, activation="relu") for _ in range(2)]
layers.append(keras.layers.Dense(10, activation="softmax"))
model = keras.Sequential([keras.Input((32,)), *layers])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.save("model.keras")
x = np.random.default_rng(0).normal(size=(3200, 32)).astype("float32")
np.savez("model.npz", x=x, y=x[:, :10].argmax(axis=1))
"""
MINIMAL = """
import keras, matplotlib, numpy as np
matplotlib.use("agg")
import matplotlib.pyplot as plt
data = np.load("model.npz")
model = keras.saving.load_model("model.keras")
losses = []
class Record(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        losses.append(logs["loss"])
model.fit(data["x"], data["y"], verbose=0, callbacks=[Record()])
figure, axes = plt.subplots()
axes.plot(losses)
figure.savefig("minimal.png")
"""


def spent(command: list[str], folder: str, environment: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of a process, which must succeed."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backend",
        default=os.environ.get("KERAS_BACKEND", "tensorflow"),
        choices=["tensorflow", "jax", "torch"],
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    environment = {**os.environ, "KERAS_BACKEND": options.backend, "OMP_NUM_THREADS": "1"}
    ours = [str(Path(sys.executable).with_name("keras-lr")), "find", "model.keras"]
    ours += ["--stop-factor", "inf", "--plot", "ours.png"]  # 100 steps in both
    with tempfile.TemporaryDirectory() as folder:
        spent([sys.executable, "-c", MAKE], folder, environment)
        rows = []
        for _ in range(options.repeats + 1):
            minimal = spent([sys.executable, "-c", MINIMAL], folder, environment)
            found = spent(ours, folder, environment)
            rows.append([a / b for a, b in zip(found, minimal, strict=True)])
    name, mark = "keras-lr find", MARKS.get(options.backend)
    told = row("command", name, "over the minimal script", *zip(*rows[1:], strict=True), mark=mark)
    first = row("command", f"{name}, first run", "over the minimal script", *zip(rows[0]))
    tell({"part": "command", "backend": options.backend, "rows": [told, first]}, options.json)


if __name__ == "__main__":
    main()
