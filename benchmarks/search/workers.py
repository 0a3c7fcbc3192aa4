"""How much faster two workers are than one, on runs of about ten seconds.

    python benchmarks/search/workers.py    # on an idle machine with two cores at least

The searches alternate, each in a new record; the ratio is that of the medians of their times, from
the start of the command to its end. Each process has one thread, which torch keeps to; JAX starts
two more on a machine with two cores, so that one worker alone keeps 1.3 cores busy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
THREADS = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
EPOCHS = 3


def write(folder: Path, seconds: float) -> None:
    """A model and as many rows as train for so many seconds."""
    os.environ.update(THREADS)
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(128, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss)
    model.save(folder / "model.keras")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12_800, 64)).astype("float32")
    y = np.argmax(x @ rng.normal(size=(64, 10)), axis=1)
    model.fit(x[:320], y[:320], verbose=0)  # compiles
    began = time.perf_counter()
    model.fit(x, y, epochs=EPOCHS, verbose=0)
    times = max(1, round(seconds / (time.perf_counter() - began)))
    np.savez(folder / "train.npz", x=np.tile(x, (times, 1)), y=np.tile(y, times))


def search(folder: Path, workers: int, name: str) -> float:
    began = time.perf_counter()
    words = [
        *(sys.executable, "-m", "keras_lr_cli", "search", "model.keras", "--data", "train.npz"),
        *("--epochs", str(EPOCHS), "--fraction", "1", "--quiet"),
        *("--workers", str(workers), "--storage", name),
    ]
    subprocess.run(words, cwd=folder, check=True, env={**os.environ, **THREADS})
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of one run")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    times: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, options.seconds)
        for turn in range(options.turns):
            for workers, found in times.items():
                found.append(search(folder, workers, f"{workers}-{turn}.sqlite3"))
                print(f"{workers} workers: {found[-1]:.0f} s", file=sys.stderr, flush=True)
    one, two = (statistics.median(found) for found in times.values())
    print(f"Two workers take {two:.0f} s, one {one:.0f} s: {one / two:.2f} times as fast.")


if __name__ == "__main__":
    main()
