"""Install a wheel with one backend of Keras alone, and run its commands there.

    python -m pip wheel . --no-deps -w dist
    python .github/wheel_alone.py dist/keras_lr-*.whl torch        # or tensorflow, jax, none
    python .github/wheel_alone.py dist/keras_lr-*.whl torch torch==2.13.0   # more for pip

With "none" it checks that the command line says in one line what to install.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")
MODEL = """
import keras, numpy as np
x = np.random.default_rng(0).normal(size=(512, 8)).astype("float32")
y = x[:, :4].argmax(axis=1)
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.save("model.keras")
np.savez("model.npz", x=x, y=y)
history = model.fit(x, y, epochs=8, verbose=0, callbacks=[keras.callbacks.CSVLogger("log.csv")])
import keras_lr
model.fit(x, y, epochs=1, verbose=0, callbacks=[keras_lr.OneCycle(max_lr=0.01)])
"""
COMMANDS = (
    ("find", "model.keras", "--report", "find.html", "--plot", "find.png"),
    ("layers", "model.keras"),
    ("preview", "one-cycle", "--max-lr", "0.1", "--steps", "100"),
    ("diagnose", "log.csv"),
)


def main(wheel: str, backend: str, *more: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "venv", with_pip=True)
        python = home / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "KERAS_BACKEND")}
        clean["KERAS_HOME"] = str(home / "keras")

        def run(*arguments: str, code: int = 0, **more_env: str) -> str:
            shown = " ".join(arguments if len(arguments[-1]) < 200 else arguments[:-1])
            print("==", shown, flush=True)
            done = subprocess.run(
                [python, *arguments],
                cwd=home,
                env={**clean, **more_env},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if code else None,
                text=True,
            )
            if done.returncode != code:
                sys.exit(f"{done.stdout}{done.stderr or ''}\nexit {done.returncode}: {shown}")
            return done.stderr if code else done.stdout

        extra = "" if backend == "none" else f"[{backend}]"
        run("-m", "pip", "install", "--quiet", f"{Path(wheel).resolve()}{extra}", *more)
        run("-m", "pip", "check")
        found = f"import importlib.util as u; print(*[n for n in {BACKENDS} if u.find_spec(n)])"
        assert run("-c", found).split() == ([] if extra == "" else [backend])  # noqa: S101
        run("-m", "keras_lr_cli", "--help")
        if backend == "none":
            line = run("-m", "keras_lr_cli", *COMMANDS[2], code=2)
            assert line.count("\n") == 1 and "pip install tensorflow" in line, line  # noqa: S101
            print(line)
            return
        run("-c", MODEL, KERAS_BACKEND=backend)
        for command in COMMANDS:
            print(run("-m", "keras_lr_cli", *command).splitlines()[0])
    print(f"The wheel works with {backend} alone.")


if __name__ == "__main__":
    main(*sys.argv[1:])
