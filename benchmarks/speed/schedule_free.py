"""Measure what Schedule-Free and scheduled attributes add to a training step.

    KERAS_BACKEND=jax python benchmarks/speed/schedule_free.py

With 20 and 200 variables: `ScheduleFree` against the optimizer that it wraps, as in `optimizers.py`
(chains of Dense(64)); and an attribute of the optimizer that a callback schedules against the same
optimizer without the callback, as in `callbacks.py` (chains of Dense(8)).
"""

from __future__ import annotations

import argparse

import callbacks
import keras
import numpy as np
import optimizers
from figures import row, tell

TABLE = "schedule-free"
AVERAGES = [name for name in optimizers.CONTENDERS if name.startswith("ScheduleFree")]
ATTRIBUTES = list(callbacks.PLAIN)


def averages(variables, steps, rounds):
    """The rows of `ScheduleFree`."""
    makers = {}
    for name in AVERAGES:
        plain, make, _ = optimizers.CONTENDERS[name]
        makers |= {plain: optimizers.PLAIN[plain], name: make}
    names = [f"dense_{index}" for index in range(variables // 2)]
    seconds, _ = optimizers.measure(makers, steps, rounds, names)
    for name in AVERAGES:
        plain, _, mark = optimizers.CONTENDERS[name]
        ratios = (seconds[name] / seconds[plain]).T
        yield row(TABLE, name, f"{variables} variables", *ratios, mark=mark)


def attributes(variables, steps, rounds):
    """The rows of scheduled attributes."""
    size = callbacks.Size(variables, steps)
    x, y = callbacks.data(size.steps)
    names = list(dict.fromkeys([*callbacks.PLAIN.values(), *ATTRIBUTES]))
    running = [
        (name, callbacks.contender(callbacks.CONTENDERS[name], size, x, y, epochs=2 + rounds))
        for name in [*names, *reversed(names)]  # earlier ones have better places in memory
    ]
    seconds = callbacks.in_turn(running, size.steps, rounds)
    for name in ATTRIBUTES:
        mark = callbacks._ATTRIBUTE[keras.backend.backend()]
        ratios = (seconds[name] / seconds[callbacks.PLAIN[name]]).T
        yield row(TABLE, name, f"{variables} variables", *ratios, mark=mark)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, help="of a burst; by default fewer for more layers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for variables in options.sizes:
        steps = options.steps or int(np.clip(1200 // variables, 20, 60))
        rows += averages(variables, steps, options.rounds)
        rows += attributes(variables, 3 * steps, options.rounds)
    tell({"part": TABLE, "backend": keras.backend.backend(), "rows": rows}, options.json)


if __name__ == "__main__":
    main()
