"""Measure the memory of `lr_find` beside that of `fit`, in copies of the weights and slots.

    KERAS_BACKEND=jax python benchmarks/memory/range_test.py              # 100 million weights
    KERAS_BACKEND=torch python benchmarks/memory/range_test.py --weights 1e6

Four square Dense layers under Adam: weights and slots take three times the memory of the weights.
`fit` and `lr_find` run in a fresh process each. The peak is the resident memory of the process,
minus what it held before the model was made; on JAX also the peak of the live arrays, sampled at
each batch. The last rows are the live arrays of one process that runs both, which must not grow.
It measures host memory, so the numbers are meaningful if the model is on the CPU.

Prints a Markdown table. Needs about 5 times the memory of weights and slots.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from blocks import block
from cost import resident

STEPS, ROWS = 4, 16


def live():
    """Bytes of all arrays on JAX; None elsewhere."""
    import keras

    if keras.backend.backend() != "jax":
        return None
    import jax

    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())


def measured(what, weights):
    """Runs in its own process: `what` is "fit", "lr_find" or "both"."""
    import keras
    import numpy as np

    import keras_lr

    width = max(1, round((weights / 4) ** 0.5))
    peak = [0]

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return STEPS

        def __getitem__(self, index):
            peak[0] = max(peak[0], live() or 0)
            return np.ones((ROWS, width), "float32"), np.ones((ROWS, width), "float32")

    before = resident()
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(width, use_bias=False) for _ in range(4)]
    model = keras.Sequential([keras.Input((width,)), *dense])
    model.compile(keras.optimizers.Adam(1e-4), "mse")
    data = Batches()

    def fit():
        model.fit(data, verbose=0, shuffle=False)
        return live()

    def find():
        keras_lr.lr_find(model, data, steps=STEPS, end_lr=1e-6, shuffle=False, verbose=0)
        return live()

    found = {"state": 3 * 4 * width**2 * 4}
    if what == "both":
        found["live"] = [fit(), find(), fit(), find()]
    else:
        (fit if what == "fit" else find)()
        found["resident"] = resident() - before
        found["arrays"] = peak[0]
    return found


def in_a_process(what, weights):
    command = [sys.executable, __file__, "--weights", str(weights), "--only", what]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stderr[-4000:])
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=float, default=1e8, help="default 1e8")
    parser.add_argument("--only", choices=("fit", "lr_find", "both"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(options.only, options.weights)))
        return
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    fit, find = (in_a_process(what, options.weights) for what in ("fit", "lr_find"))
    state = fit["state"]
    lines = [
        f"| {backend}, {options.weights:,.0f} weights | `fit` | `lr_find` | difference |",
        "| --- | --- | --- | --- |",
    ]
    rows = [("peak of resident memory", "resident")]
    if backend == "jax":
        rows.append(("peak of live arrays", "arrays"))
    for title, name in rows:
        ours, theirs = find[name] / state, fit[name] / state
        lines.append(f"| {title} | {theirs:.2f} | {ours:.2f} | {ours - theirs:+.2f} |")
    if backend == "jax":
        first, found, again, last = (
            each / state for each in in_a_process("both", options.weights)["live"]
        )
        lines.append(f"| live arrays after each, in one process | {first:.3f} | {found:.3f} | |")
        lines.append(f"| and after each once more | {again:.3f} | {last:.3f} | |")
    print(block(f"memory-{backend}", lines))


if __name__ == "__main__":
    main()
