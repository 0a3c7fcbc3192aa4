"""A folder with one sub-folder for each class, of images or of text, on any backend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click

from .errors import BadInput, one_line, visible
from .models import loss_name

__all__ = ["LISTED", "labels_for", "listed", "load_folder"]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
DEFAULT_SIZE = 224
LISTED = 12
NO_CLASS = (".", "__MACOSX")  # a zip of macOS holds the latter
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


def load_folder(
    folder: str, model: Any, batch_size: int, classes: Sequence[str] | None = None
) -> tuple[Any, Any, list[str]]:
    """Images as a `PyDataset` that reads them batch by batch, text as one array of strings.

    Classes are the sub-folders in alphabetical order, as in the loaders of Keras. Labels are
    integers for a sparse loss, one-hot rows for a categorical one, 0.0 or 1.0 for a binary one.

    Args:
        folder: It.
        model: The compiled model.
        batch_size: Images in a batch.
        classes: Those of the training data, of which held-out data may lack some.

    Returns:
        The images or texts, the labels of texts, and the classes.
    """
    found = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(NO_CLASS)
    )
    if found and SPLITS.issuperset(name.lower() for name in found):
        raise BadInput(
            f"{folder} holds {', '.join(found)}, which are parts of a data set and not classes; "
            f"pass one of them, as in {os.path.join(folder, found[0])}."
        )
    names_of = found if classes is None else list(classes)
    if unknown := [name for name in found if name not in names_of]:
        raise BadInput(
            f"{folder} has the class {unknown[0]}, which is not a class of the training data: "
            f"{listed(names_of)}."
        )
    files: list[tuple[str, int]] = []
    for label, name in enumerate(names_of):
        for place, folders, names in os.walk(os.path.join(folder, name)):
            folders.sort()
            kept = sorted(each for each in names if not each.startswith("."))
            files += [(os.path.join(place, each), label) for each in kept]
    images = [item for item in files if item[0].lower().endswith(IMAGES)]
    texts = [item for item in files if item[0].lower().endswith(".txt")]
    if not images and not texts:
        raise BadInput(
            f"{folder} must hold one folder for each class, with images or .txt files; "
            f"it has {_what_is_in(folder, found)}."
        )
    used = images or texts
    if others := sorted({path for path, _ in files}.difference(path for path, _ in used)):
        more = "1 other file is" if len(others) == 1 else f"{len(others)} other files are"
        example = visible(os.path.relpath(others[0], folder))
        click.echo(f"{visible(folder)}: {more} left out, such as {example}.", err=True)
    codes = [label for _, label in used]
    labels = labels_for(codes, len(names_of), folder, model)
    if classes is None:
        counts = [f"{visible(n)}={i} ({codes.count(i)})" for i, n in enumerate(names_of)]
        kind = "images" if images else "texts"
        click.echo(f"{visible(folder)}: {kind} of {listed(counts)}", err=True)
    if images:
        return _images([path for path, _ in images], labels, model, batch_size), None, names_of
    return _texts([path for path, _ in texts], folder, model), labels, names_of


def _what_is_in(folder: str, found: Sequence[str]) -> str:
    """What a folder without classes has, for a message."""
    if found:
        return f"{len(found)} folder{'s' * (len(found) > 1)} and no such files in them"
    own = [name for name in os.listdir(folder) if name.lower().endswith((*IMAGES, ".txt"))]
    if not own:
        return "no folders"
    return f"{len(own)} such files and no folders; pass the folder that holds the classes"


def listed(names: Sequence[str]) -> str:
    """Names with commas between them; the first ones of many."""
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def labels_for(codes: list[int], classes: int, source: str, model: Any) -> Any:
    """Class indices in the form that the loss of the model takes.

    Args:
        codes: The class of each example.
        classes: The number of classes.
        source: Where the classes come from, for messages.
        model: The compiled model.

    Raises:
        BadInput: If the model has fewer classes.
    """
    import numpy as np

    outputs = getattr(model, "outputs", None) or []
    width = outputs[0].shape[-1] if len(outputs) == 1 else None
    loss = _loss_kind(model.loss)
    array = np.asarray(codes, dtype="int32")
    if loss.startswith("binary") and width in (1, None):
        if classes != 2:
            raise BadInput(f"{source} has {classes} classes; a model with {loss} has two.")
        return array.astype("float32")[:, None]
    if width is not None and classes > width:
        raise BadInput(f"{source} has {classes} classes but the model has only {width} outputs.")
    if loss.startswith("sparse"):
        return array
    if not loss:
        click.echo(
            f"{visible(source)}: the loss of the model is not one of Keras; it gets a one-hot row "
            "for each example.",
            err=True,
        )
    return np.eye(width or classes, dtype="float32")[array]


def _loss_kind(loss: Any) -> str:
    """The name of the loss, or of the loss of Keras from which its class is derived."""
    kinds = [loss_name(loss), *(loss_name(kind.__name__) for kind in type(loss).__mro__)]
    return next((kind for kind in kinds if kind not in ("", "loss")), "")


def _images(paths: list[str], labels: Any, model: Any, batch_size: int) -> Any:
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise BadInput("Reading images needs Pillow; pip install pillow.") from error
    import keras
    import numpy as np

    inputs = getattr(model, "inputs", None) or []
    shape = tuple(inputs[0].shape[1:]) if len(inputs) == 1 else ()
    if len(shape) != 3:
        raise BadInput(f"The folder holds images; the model takes {_shape_of(inputs)}.")
    first = keras.config.image_data_format() == "channels_first"
    channels, *size = shape if first else (shape[2], shape[0], shape[1])
    mode = {1: "grayscale", 3: "rgb", 4: "rgba", None: "rgb"}.get(channels)
    if mode is None:
        raise BadInput(f"The model takes images with {channels} channels; files have 1, 3 or 4.")
    height, width = (length or DEFAULT_SIZE for length in size)
    if None in size:
        click.echo(f"The model takes any size; images are read at {height} x {width}.", err=True)

    class Images(keras.utils.PyDataset):
        """Read the images of a batch when the batch is needed."""

        def __init__(self) -> None:
            super().__init__()
            self.problem: BadInput | None = None  # TensorFlow wraps what is raised below
            self.order = np.random.default_rng(0).permutation(len(paths))

        def __len__(self) -> int:
            return -(-len(paths) // batch_size)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            chosen = self.order[index * batch_size : (index + 1) * batch_size]
            return np.stack([self.read(paths[i]) for i in chosen]), labels[chosen]

        def read(self, path: str) -> Any:
            try:
                image = keras.utils.load_img(path, color_mode=mode, target_size=(height, width))
                return keras.utils.img_to_array(image)  # which may be the first to read it
            except Exception as error:
                reason = one_line(error).partition(" <_io")[0]
                self.problem = BadInput(f"{path} is not a readable image: {reason}")
                raise self.problem from error

    return Images()


def _texts(paths: list[str], folder: str, model: Any) -> Any:
    import keras
    import numpy as np

    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or inputs[0].dtype != "string":
        raise BadInput(
            f"{folder} holds text but the model takes {_shape_of(inputs)}; add a TextVectorization "
            "layer to the model (TensorFlow), or pass module:function with tokenized data."
        )
    if keras.backend.backend() != "tensorflow":
        raise BadInput("Only TensorFlow feeds text to a model; pass --backend tensorflow.")
    texts = []
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as file:
            texts.append(file.read())
    return np.asarray(texts, dtype=object)


def _shape_of(inputs: Any) -> str:
    shapes = [f"{tuple(tensor.shape)} of {tensor.dtype}" for tensor in inputs]
    return ", ".join(shapes) or "an input of unknown shape"
