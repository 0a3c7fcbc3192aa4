"""Write examples/tour.ipynb, with its outputs: python examples/make_tour.py [NOTEBOOK]

The cells of the notebook are in this file, so that changes to them are readable. `make notebook`
runs it. Needs nbclient, nbformat and ipykernel, and the requirements of the examples.
"""

import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

CELLS = [
    """
# A tour of keras-lr

Find a learning rate, plot the test, train with the rate, use layer-wise rates, and diagnose a run.
Each cell runs in seconds on a CPU, on TensorFlow, JAX or PyTorch. The outputs are from JAX.
""",
    """
>>>
import math
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
from digits_model import digits, small_cnn

import keras_lr

%matplotlib inline
%config InlineBackend.figure_formats = ["png"]
plt.rcParams["figure.dpi"] = 72
keras.utils.set_random_seed(0)
x, y = digits()
model = small_cnn()  # with batch normalization, dropout and Adam
x.shape, model.count_params()
""",
    """
## Find a rate

`lr_find` finds the rate for a run that you plan: here ten epochs with one-cycle. It trains for 200
steps, first at rising rates, then at a few constant ones, and restores the model.
""",
    """
>>>
plan = {"policy": "one-cycle", "epochs": 10, "budget": 200}
test = keras_lr.lr_find(model, x, y, batch_size=32, **plan, seed=0, verbose=0)
found = test.suggest()
print(f"{found.learning_rate:.2g}, between {found.low:.2g} and {found.high:.2g}")
print(found.reason)
""",
    """
>>>
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
test.plot(axes);
""",
    """
## Train with it

One cycle raises the rate to its maximum and lowers it again, while the momentum mirrors it.
`LRLogger` records both for each update.
""",
    """
>>>
history = model.fit(
    x,
    y,
    epochs=10,
    batch_size=32,
    validation_split=0.2,
    verbose=0,
    callbacks=[keras_lr.OneCycle(max_lr=found.learning_rate), log := keras_lr.LRLogger()],
)
[round(accuracy, 3) for accuracy in history.history["val_accuracy"]]
""",
    """
>>>
figure, (above, below) = plt.subplots(2, figsize=(7, 4), sharex=True, layout="constrained")
above.plot(log.history["learning_rate"])
above.set_ylabel("learning rate")
below.plot(log.history["momentum"])
below.set(ylabel="momentum (beta_1)", xlabel="update");
""",
    """
## Preview a schedule

`preview` computes the rates of a schedule or of a list of callbacks without training, with the code
that training uses.
""",
    """
>>>
decay = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=1000)
shown = keras_lr.preview([decay, keras_lr.WarmUp(steps=100)], steps=1000)
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
shown.plot(axes);
""",
    """
## Layer-wise rates and a plateau

The last layer trains at the optimizer's rate, each layer before it at half the rate of the next.
`ReduceLROnPlateau` halves all of them when the loss plateaus.
""",
    """
>>>
multipliers = keras_lr.layer_decay(model, 0.5)
model.compile(
    keras_lr.optimizers.LayerwiseLR(keras.optimizers.Adam(found.learning_rate), multipliers),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
plateau = keras_lr.ReduceLROnPlateau("loss", factor=0.5, patience=1, restore_best_weights=True)
history = model.fit(x, y, epochs=5, batch_size=32, verbose=0, callbacks=[plateau])
print(multipliers)
print([float(f"{rate:.2g}") for rate in history.history["learning_rate"]])
""",
    """
## Diagnose a run

This run uses thirty times the rate. `diagnose` finds the problem in its log, if it knows the loss
of an untrained model: the logarithm of the number of classes.
""",
    """
>>>
keras.utils.set_random_seed(0)
model = small_cnn()
model.optimizer.learning_rate = 30 * found.learning_rate
history = model.fit(x, y, epochs=12, batch_size=32, validation_split=0.2, verbose=0)
print(keras_lr.diagnose(history, batch_size=32, untrained_loss=math.log(10)))
""",
    """
## Confirm by training

A search trains at several rates and refines around the best. This search is short and keeps its
record in memory. With `storage="digits.sqlite3"` you could stop and resume it.
""",
    """
>>>
best = keras_lr.search(
    small_cnn(),
    x,
    y,
    epochs=1,
    fine_rounds=1,
    points=3,
    final_seeds=2,
    batch_size=32,
    verbose=0,
)
print(f"{best.learning_rate:.2g}, between {best.low:.2g} and {best.high:.2g}")
print(best.python())
""",
    """
>>>
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
keras_lr.plotting.plot_search_rates(best, axes);
""",
]


def notebook(texts=CELLS):
    """A notebook without outputs; a text that begins with ">>>" is a cell of code."""
    from nbformat import v4

    cells = []
    for number, text in enumerate(cell.strip() for cell in texts):
        code = text.startswith(">>>\n")
        make = v4.new_code_cell if code else v4.new_markdown_cell
        cells.append(make(text.removeprefix(">>>\n"), id=f"cell-{number}"))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def execute(book, timeout=600):
    """Run the cells in the folder of the examples, and remove what depends on the machine.

    Raises:
        CellExecutionError: If a cell fails.
    """
    from nbclient import NotebookClient

    client = NotebookClient(book, timeout=timeout, resources={"metadata": {"path": str(HERE)}})
    client.execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    book.metadata.pop("language_info", None)
    book.metadata["language_info"] = {"name": "python"}
    return book


def shape(book):
    """Source of each cell, and the types of its outputs."""
    return [
        (
            cell.source,
            [sorted(out.get("data", {out.output_type: None})) for out in cell.get("outputs", ())],
        )
        for cell in book.cells
    ]


def save(book, path):
    """Write a notebook, unless it has the path of a folder of this machine."""
    import nbformat

    nbformat.write(book, path)
    text = path.read_text(encoding="utf-8")
    if any(str(folder) in text for folder in (HERE.parent, Path.home(), tempfile.gettempdir())):
        sys.exit(f"{path} contains the path of a folder of this machine.")
    print(f"Saved {path}, {path.stat().st_size / 1000:.0f} kB.")


def main():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "tour.ipynb"
    save(execute(notebook(), timeout=1200), path)


if __name__ == "__main__":
    main()
