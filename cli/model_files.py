"""The file of a model, examined before Keras loads it and guarded while it does.

A file may be missing, damaged or hostile: it can carry code, ask for more memory than there is, or
make the HDF5 library read without end.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

from .errors import BadInput, one_line, visible
from .functions import is_function

__all__ = [
    "H5",
    "carried_code",
    "check_model_file",
    "is_endless",
    "limited_weights",
    "saved_by",
]

H5 = (".h5", ".hdf5")
# Layers whose config holds code or names a file that does.
_CARRIERS = {
    "TorchModuleWrapper": "a pickled PyTorch module",
    "TFSMLayer": "a TensorFlow SavedModel",
}
_HEADER = struct.Struct("<4sB3sQ")  # signature, version, three zeros, bytes of the whole collection
_OBJECT = struct.Struct("<HHIQ")  # index, references, zeros, bytes that follow


def _near(spec: str) -> str:
    """The model files beside a path that does not exist, those with a similar name first."""
    import difflib

    folder, name = os.path.split(spec)
    try:
        files = sorted(each for each in os.listdir(folder or ".") if each.endswith((".keras", *H5)))
    except OSError:
        return f" There is no folder {visible(folder)}."
    near = difflib.get_close_matches(name, files, n=3, cutoff=0.5) or files[:3]
    listed = ", ".join(visible(os.path.join(folder, each)) for each in near)
    return f" Its folder has {listed}." if near else " Its folder has no .keras or .h5 file."


def check_model_file(spec: str) -> None:
    """Check, without Keras, that the file exists and is of a kind that `load_model` reads.

    Raises:
        BadInput: If not.
    """
    if is_function(spec):
        return
    if spec.endswith(".weights.h5"):
        raise BadInput(f"{spec} holds weights only; save the whole model with model.save(...).")
    if not os.path.exists(spec):
        raise BadInput(f"The model {spec} does not exist.{_near(spec)}")
    if os.path.isfile(os.path.join(spec, "saved_model.pb")):
        raise BadInput(
            f"{spec} is a SavedModel, which has no layers to train (keras.layers.TFSMLayer only "
            "runs it). Save the original model with model.save('model.keras')."
        )
    if os.path.isdir(spec):
        raise BadInput(
            f"{spec} is a folder; MODEL must be a .keras file, an .h5 file or module:function."
        )
    if not os.path.isfile(spec) or not os.access(spec, os.R_OK):
        raise BadInput(f"The model {spec} cannot be read.")
    if not os.path.getsize(spec):
        raise BadInput(f"The model {spec} is an empty file.")
    if not spec.endswith((".keras", *H5)):
        raise BadInput(
            f"{spec} ends neither with .keras nor with .h5; save the model with model.save(...)."
        )
    if spec.endswith(".keras"):
        _check_archive(spec)


def _check_archive(spec: str) -> None:
    try:
        with zipfile.ZipFile(spec) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        with open(spec, "rb") as file:
            if file.read(4) == b"\x89HDF":
                raise BadInput(
                    f"{spec} is an HDF5 file; give it a name that ends with .h5."
                ) from error
        raise BadInput(f"{spec} is damaged or not a .keras file: {one_line(error)}") from error
    if "config.json" not in names:
        raise BadInput(f"{spec} is not a Keras model: it has no config.json.")
    needs = sum(entry.file_size for entry in entries)
    if needs > _memory():
        raise BadInput(f"{spec} unpacks to {needs / 1e9:.3g} GB, more than this machine's memory.")


def saved_by(spec: str) -> str:
    """The version of Keras that wrote the file; "" if the file does not name it."""
    try:
        if spec.endswith(H5):
            import h5py

            with h5py.File(spec, "r") as file:
                version = file.attrs.get("keras_version", "")
        else:
            with zipfile.ZipFile(spec) as archive:
                version = json.loads(archive.read("metadata.json")).get("keras_version", "")
    except (OSError, KeyError, ValueError, AttributeError, zipfile.BadZipFile):
        return ""
    version = version.decode() if isinstance(version, bytes) else str(version)
    return version if re.fullmatch(r"\d+(\.\d+)*\S{0,20}", version) else ""


# Code that runs when the file is loaded


def carried_code(path: str) -> str | None:
    """Name the kind of code that a model file runs when Keras loads it; None if it runs none.

    Keras refuses such files in its safe mode, but for `.h5` files only since 3.11.3, and the list
    of layers differs between its versions.

    Args:
        path: A `.keras` or `.h5` file. An unreadable one gives None: Keras explains what is wrong.
    """
    for config in _configs(path):
        for part in _dictionaries(config):
            found = _code_in(part)
            if found is not None:
                return found
    return None


def _code_in(part: dict[str, Any]) -> str | None:
    name = part.get("class_name")
    if not isinstance(name, str):
        return None
    name = name.rpartition(">")[2]  # a registered class is "package>name"
    if name == "__lambda__":
        return "a Lambda layer or another lambda"
    config = part.get("config")
    # Keras 2 wrote the marshalled function as a list, or for a named one its name.
    if name == "Lambda" and isinstance(config, dict):
        for entry in ("function", "output_shape", "mask"):
            if config.get(f"{entry}_type") == "lambda":
                return "a Lambda layer"
        if isinstance(config.get("function"), list):
            return "a Lambda layer"
    return _CARRIERS.get(name)


def _configs(path: str) -> Iterator[Any]:
    texts: list[Any] = []
    try:
        if path.endswith(".keras"):  # by the name, as Keras does: a file can be both
            with zipfile.ZipFile(path) as archive:
                texts.append(archive.read("config.json"))
        else:
            import h5py

            with h5py.File(path, "r") as file:
                texts += [file.attrs.get(name) for name in ("model_config", "training_config")]
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, NotImplementedError):
        pass
    for text in texts:
        try:
            yield json.loads(text)
        except (TypeError, ValueError, RecursionError):
            continue


def _dictionaries(config: Any) -> Iterator[dict[str, Any]]:
    """Every dictionary in a config, however deep."""
    left = [config]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            yield part
            left += part.values()
        elif isinstance(part, list):
            left += part


# Damage that HDF5 does not survive


def is_endless(path: str) -> bool:
    """Whether HDF5 would loop forever on the strings of an `.h5` file, deaf to Ctrl-C.

    HDF5 keeps strings in global heaps: collections of consecutive objects. The last object, of
    index 0, is the free space and holds its size. If damage sets that size to 0, HDF5 never
    advances.

    Source: HDF5 File Format Specification 3.0, section III.E.
    """
    with open(path, "rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return False
        with content:
            place = content.find(b"GCOL")
            while place >= 0:
                if _never_advances(content, place):
                    return True
                place = content.find(b"GCOL", place + 4)
    return False


def _never_advances(content: mmap.mmap, place: int) -> bool:
    if place + _HEADER.size > len(content):
        return False
    _, version, zeros, size = _HEADER.unpack_from(content, place)
    end = place + size
    if version != 1 or any(zeros) or end > len(content):
        return False
    place += _HEADER.size
    while place + _OBJECT.size <= end:
        index, _, _, size = _OBJECT.unpack_from(content, place)
        needed = _OBJECT.size + (size + 7) // 8 * 8 if index else size
        if not needed:
            return True
        place += needed
    return False


# Memory


@contextlib.contextmanager
def limited_weights(path: str) -> Iterator[None]:
    """In the block, refuse to create more weights than the file can hold.

    A tiny file may ask for terabytes. The states of a stateful RNN count too: their size grows
    with the batch size that the file names.
    """
    import keras

    layer, rnn = keras.layers.Layer, keras.layers.RNN
    add_weight = layer.add_weight
    kinds = [each for each in vars(keras.layers).values() if isinstance(each, type)]
    recurrent: dict[Any, Any] = {
        kind: vars(kind)["get_initial_state"]
        for kind in kinds
        if issubclass(kind, rnn) and "get_initial_state" in vars(kind)
    }
    left = 4 * _stored_bytes(path) + 2**20

    def counted(self: Any, shape: Any = None, *args: Any, **kwargs: Any) -> Any:
        sizes = shape if isinstance(shape, (tuple, list)) else (shape or 1,)
        elements = math.prod(int(size or 1) for size in sizes)
        take(elements, f"{self.name} asks for a weight of shape", shape)
        return add_weight(self, shape, *args, **kwargs)

    def take(elements: int, who: str, what: Any) -> None:
        nonlocal left
        left -= elements
        if left < 0:
            raise BadInput(
                f"The layer {who} {what}, far more than the file holds. The file is damaged; if "
                "you know that it is not, pass --trust."
            )

    def counting(get_initial_state: Any) -> Any:
        def counted(self: Any, batch_size: Any = None) -> Any:
            if self.stateful and isinstance(batch_size, int) and batch_size > 1:
                one = keras.tree.flatten(get_initial_state(self, 1))
                elements = batch_size * sum(math.prod(map(int, each.shape)) for each in one)
                take(elements, f"{self.name} asks for states for a batch of", batch_size)
            return get_initial_state(self, batch_size)

        return counted

    layer.add_weight = counted
    for kind, method in recurrent.items():
        kind.get_initial_state = counting(method)
    try:
        yield
    finally:
        layer.add_weight = add_weight
        for kind, method in recurrent.items():
            kind.get_initial_state = method


def _stored_bytes(path: str) -> int:
    if not zipfile.is_zipfile(path):
        return os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _memory() -> int:
    """Bytes of memory of this machine."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**40
