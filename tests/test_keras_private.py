"""The canary: every private part of Keras that `keras_lr/_keras` uses, and what breaks without it.

A change of Keras shows here first, by name. Nothing outside `_keras` may use a private part.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


class Row(NamedTuple):
    name: str
    of: str  # an example below, or a module of Keras
    breaks: str  # what does not work without it
    backend: str = ""  # where it exists; "" for all
    since: tuple[int, int] = (0, 0)  # the first version of Keras with it
    until: tuple[int, int] = (99, 0)  # the last one


ROWS = [
    # optimizers.py
    Row("_learning_rate", "optimizer", "setting a rate for one fit without tracking it"),
    Row("_iterations", "optimizer", "counting batches under gradient accumulation"),
    Row("_momentums", "optimizer", "AdaptiveGains and Hypergradient on Adam and RMSprop"),
    Row("_velocities", "optimizer", "ScheduleFree on Adam"),
    Row("_m", "adamax", "AdaptiveGains on Adamax"),
    Row("_accumulators", "ftrl", "multipliers of 0 in a LayerwiseLR of Ftrl"),
    Row("_linears", "ftrl", "multipliers of 0 in a LayerwiseLR of Ftrl"),
    Row("_trainable_variables", "optimizer", "LayerwiseLR of an optimizer that is built"),
    Row("_get_variable_index", "optimizer", "finding the multiplier of a variable"),
    Row("_backend_update_step", "optimizer", "Hypergradient and Prodigy"),
    Row("_apply_weight_decay", "optimizer", "weight decay at the rate of each layer"),
    Row("_use_weight_decay", "optimizer", "weight decay at the rate of each layer"),
    Row("_get_current_learning_rate", "optimizer", "weight decay at the rate of each layer"),
    Row("_parallel_update_step", "optimizer", "fused steps with multipliers", "torch"),
    Row("_all_reduce_sum_gradients", "optimizer", "Hypergradient on replicas", "tensorflow"),
    Row("_distributed_tf_update_step", "optimizer", "Prodigy on TensorFlow", "tensorflow"),
    # layers.py
    Row("_flatten_layers", "model", "finding the layers of a model"),
    Row("_trainable_variables", "layer", "the paths of variables by the structure of the model"),
    Row("_non_trainable_variables", "layer", "the paths of variables, batch statistics"),
    Row("_functional", "model", "blocks and fingerprints of a Sequential"),
    Row("_nodes_by_depth", "functional", "blocks and fingerprints of functional models"),
    Row("_keras_history", "tensor", "blocks and fingerprints of functional models"),
    Row("_inbound_nodes", "layer", "blocks of functional models; restoring what was built"),
    # building.py
    Row("_symbolic_build", "model", "building a model before a range test"),
    # trainer.py
    Row("_compile_loss", "model", "building the loss; reusing a compiled loop"),
    Row("_compile_metrics", "model", "building the metrics; reusing a compiled loop"),
    Row("_compile_config", "model", "the fingerprint of a search; telling records from optimizers"),
    Row("_should_torch_compile", "model", "rates on torch.compile", "torch", until=(3, 15)),
    Row("_use_torch_compile", "model", "rates on torch.compile", "torch", since=(3, 16)),
    Row("_autoconvert_optionals", "model", "batches without a sample weight", "tensorflow"),
    Row("_use_cached_eval_dataset", "source", "models that override evaluate"),
    Row("reduce_per_replica", "keras.src.backend.tensorflow.trainer", "training", "tensorflow"),
    # callbacks.py
    Row("_model", "callback", "reading the model in a fit on JAX without a copy of its state"),
    Row("_history", "callback list", "keeping the history after our callbacks"),
    Row("_progbar", "callback list", "keeping the progress bar after our callbacks"),
    Row("_async_train", "callback list", "the speed of small models"),
    # epochs.py
    Row("TFEpochIterator", "keras.src.backend.tensorflow.trainer", "drawing data", "tensorflow"),
    Row("JAXEpochIterator", "keras.src.backend.jax.trainer", "drawing data", "jax"),
    Row("TorchEpochIterator", "keras.src.backend.torch.trainer", "drawing data", "torch"),
    Row("_get_iterator", "epoch iterator", "drawing the batches that fit would draw"),
    Row("data_adapter", "epoch iterator", "drawing the batches that fit would draw"),
    Row("num_batches", "data adapter", "knowing the length of an epoch"),
    Row(
        "GeneratorDataAdapter",
        "keras.src.trainers.data_adapters.generator_data_adapter",
        "telling data that cannot start again",
    ),
    Row(
        "train_validation_split",
        "keras.src.trainers.data_adapters.array_slicing",
        "models whose fit passes validation_split on",
    ),
    # saving.py
    Row("object_registration", "keras.src.saving", "loading saved optimizers of ours"),
    Row(
        "GLOBAL_CUSTOM_NAMES",
        "keras.src.saving.object_registration",
        "loading saved optimizers of ours",
    ),
    Row("KerasSaveable", "keras.src.saving.keras_saveable", "resuming a killed run"),
    Row("_obj_type", "saveable", "resuming a killed run"),
    # metrics.py, losses.py
    Row("_direction", "metric", "mode='auto' of the plateau callbacks"),
    Row("_flat_metrics", "compiled metrics", "mode='auto' for the metric of an output"),
    Row("_flat_weighted_metrics", "compiled metrics", "mode='auto' for the metric of an output"),
    Row("_fn_kwargs", "loss", "telling two searches with other losses apart"),
    # replicas.py
    Row("_distribute_strategy", "model", "building under a strategy", "tensorflow"),
    # object_graph.py, python_state.py, values.py: the state of a model
    Row("Node", "keras.src.ops.node", "walking over a model without its graph"),
    Row("Tracker", "keras.src.utils.tracking", "restoring what was built"),
    Row("stored_ids", "tracker", "restoring what was built"),
    Row("_tracker", "layer", "restoring what was built"),
    Row("_outbound_nodes", "layer", "restoring what was built"),
    Row("_build_shapes_dict", "layer", "restoring what was built"),
    Row("_parent_path", "layer", "walking over a model and not out of it"),
    Row("_losses_override", "model", "a second run on the same model"),
    Row("_eval_epoch_iterator", "model in fit", "walking over a model and not into its data"),
    Row("_jax_state", "model in fit", "walking over a model and not into its state", "jax"),
    Row("_jax_state_synced", "model in fit", "a second run on the same model", "jax"),
    Row("_value", "variable", "restoring variables on JAX; the memory of a range test"),
    # random_state.py
    Row("global_state", "keras.src.backend.common", "restoring random generators"),
    Row("global_seed_generator", "global state", "restoring random generators"),
    Row("global_seed_generator", "keras.src.random.seed_generator", "short runs of equal noise"),
    Row("global_random_seed", "global state", "restoring random generators"),
    Row("object_name_uids", "global state", "the names of layers made after a range test"),
]


class Source:
    """One of our modules, with the classes that it defines."""

    def __init__(self, path: Path) -> None:
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.module = ".".join(parts).replace("cli.", "keras_lr_cli.")
        self.private = self.module.startswith("keras_lr._keras.")
        self.text = path.read_text()
        self.tree = ast.parse(self.text)
        self.classes = {n.name: n for n in ast.walk(self.tree) if isinstance(n, ast.ClassDef)}
        self.imports: dict[str, str] = {}  # local name: what it stands for, with dots
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                if getattr(node, "level", 0):
                    prefix = f"keras_lr_cli.{prefix}"  # relative imports are in cli/ only
                for each in node.names:
                    self.imports[each.asname or each.name] = prefix + each.name

    def is_of_others(self, node: ast.Attribute) -> bool:
        """Whether an attribute is one of torch, TensorFlow, JAX ...: `torch._foreach_add_`."""
        root = self.imports.get(ast.unparse(node.value).split(".")[0], "keras")
        return root.split(".")[0] not in ("keras", "keras_lr", "keras_lr_cli")


def is_private(name: str) -> bool:
    return re.fullmatch(r"_[a-z]\w*", name) is not None


@functools.cache
def sources() -> dict[str, Source]:
    paths = [*(ROOT / "keras_lr").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    return {source.module: source for source in map(Source, sorted(paths))}


@functools.cache
def names_of_keras() -> frozenset[str]:
    """The private names in the source of the running Keras."""
    found = set()
    for path in (Path(keras.__file__).parent / "src").rglob("*.py"):
        if not path.name.endswith("_test.py"):
            found |= set(re.findall(r"(?<![\w])_[a-z]\w*", path.read_text()))
    return frozenset(found)


@functools.cache
def names_of_class(kind: type) -> frozenset[str]:
    """The private names that a class of Keras and its bases in Keras define."""
    found: set[str] = set()
    for each in kind.__mro__:
        if each.__module__.startswith("keras."):
            found |= vars(each).keys()
            with contextlib.suppress(OSError):  # a class that no statement defines
                found |= assigned(ast.parse(textwrap.dedent(inspect.getsource(each))))
    if issubclass(kind, keras.optimizers.Optimizer):
        found |= names_in("optimizers/base_optimizer.py", "backend/*/optimizer.py")
        found |= names_in("backend/torch/optimizers/torch_*optimizer.py")
    return frozenset(filter(is_private, found))


@functools.cache
def names_of_optimizers() -> frozenset[str]:
    """The private names that any optimizer of Keras defines, on any backend."""
    patterns = ("optimizers/*.py", "backend/*/optimizer.py", "backend/torch/optimizers/*.py")
    return frozenset(filter(is_private, names_in(*patterns)))


def names_in(*patterns: str) -> set[str]:
    root = Path(keras.__file__).parent / "src"
    files = [path for pattern in patterns for path in root.glob(pattern)]
    assert files, f"Keras has moved {patterns}"
    return set().union(*(assigned(ast.parse(path.read_text())) for path in files))


def assigned(tree: ast.AST) -> set[str]:
    """The attributes that code sets on `self`, the names of its methods, and class attributes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "made"):
                found.add(node.attr)
        elif isinstance(node, ast.Call):
            # self._keep(name, value) and object.__setattr__(self, name, value)
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if called in ("_keep", "__setattr__"):
                found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
        elif isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    found.add(each.name)
                elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                    found.add(each.target.id)
                elif isinstance(each, ast.Assign):
                    targets = [t.id for t in each.targets if isinstance(t, ast.Name)]
                    found |= set(targets)
                    if targets == ["__slots__"]:
                        found |= set(ast.literal_eval(each.value))
    return {name for name in found if isinstance(name, str)}


def written(node: ast.expr) -> str:
    return ast.unparse(node)


def bases(module: str, name: str) -> tuple[list[tuple[str, str]], set[str]]:
    """A class of ours with its bases in our code, and the private names of its bases in Keras."""
    ours, theirs = named_bases(module, name)
    if not theirs and any(each == "OptimizerHooks" for _, each in ours):
        theirs = set(names_of_optimizers())  # it may go before any optimizer
    return ours, theirs


def named_bases(module: str, name: str) -> tuple[list[tuple[str, str]], set[str]]:
    source, ours, theirs = sources()[module], [(module, name)], set()
    for base in source.classes[name].bases:
        text = ast.unparse(base)
        root, _, rest = text.partition(".")
        full = ".".join(filter(None, [source.imports.get(root, f"{module}.{root}"), rest]))
        owner, _, kind = full.rpartition(".")
        if full.startswith("keras."):
            theirs |= names_of_class(functools.reduce(getattr, full.split(".")[1:], keras))
        elif owner in sources() and kind in sources()[owner].classes:
            found = named_bases(owner, kind)
            ours += found[0]
            theirs |= found[1]
    return ours, theirs


def own_names(module: str, name: str) -> set[str]:
    """The names that a class or its bases in our code define, without those of Keras."""
    ours, theirs = bases(module, name)
    return set().union(*(assigned(sources()[m].classes[c]) for m, c in ours)) - theirs


def uses(source: Source) -> Iterator[tuple[str, int]]:
    """The private names of Keras in a module: attributes, strings, methods that override one.

    A name counts as ours where a class of the module defines it; on `self`, where the class itself
    or a base of it does. A name that the class's bases in Keras define is never ours.
    """
    owned = {name: own_names(source.module, name) for name in source.classes}
    local = {n.name for n in source.tree.body if isinstance(n, ast.FunctionDef)}
    local = local.union(*owned.values())

    def visit(node: ast.AST, own: set[str]) -> Iterator[tuple[str, int]]:
        if isinstance(node, ast.ClassDef):
            own = owned[node.name]
            overridden = assigned(node) & bases(source.module, node.name)[1]
            yield from ((name, node.lineno) for name in overridden)
        elif isinstance(node, ast.Attribute):
            itself = re.match(r"(self|cls|super\(.*\))$", ast.unparse(node.value))
            if not (node.attr in (own if itself else local) or source.is_of_others(node)):
                yield node.attr, node.lineno
        elif isinstance(node, ast.keyword):
            yield node.arg or "", node.value.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value not in local:
                yield node.value, node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".endswith"):
            return
        for child in ast.iter_child_nodes(node):
            yield from visit(child, own)

    for name, line in visit(source.tree, local):
        if is_private(name) and name in names_of_keras():
            yield name, line


def imported(source: Source) -> Iterator[tuple[str, str, int]]:
    """`(module, name, line)` of what a module imports from `keras.src`, or writes out."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("keras.src."):
            yield from ((str(node.module), each.name, node.lineno) for each in node.names)
        elif isinstance(node, ast.Import):
            found = [each.name for each in node.names if each.name.startswith("keras.src")]
            yield from ((name, "", node.lineno) for name in found)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "keras.src":
            yield "keras.src", "", node.lineno


# The static part


def test_only_the_package_for_it_uses_private_parts_of_keras():
    found = []
    for source in sources().values():
        if not source.private:
            found += [f"{source.module}:{line} {name}" for name, line in uses(source)]
            found += [f"{source.module}:{line} {name}" for name, _, line in imported(source)]
    assert not found, "move these into keras_lr/_keras"


def test_the_table_names_every_private_part_that_is_used():
    rows = {row.name for row in ROWS}
    modules = {(row.of, row.name) for row in ROWS if row.of.startswith("keras.")}
    for source in sources().values():
        if source.private:
            missing = {name for name, _ in uses(source)} - rows
            assert not missing, f"{source.module} uses names without a row: {missing}"
            missing = {(module, name) for module, name, _ in imported(source)} - modules
            assert not missing, f"{source.module} imports without a row: {missing}"


def test_every_row_is_used():
    words = set()
    for source in sources().values():
        if source.private:
            words |= set(re.findall(r"\w+", source.text))
    assert [row.name for row in ROWS if row.name not in words] == []


def test_the_scan_sees_private_parts_of_keras(tmp_path, monkeypatch):
    code = """
        import keras
        import torch
        from keras.src import ops

        class Ours:
            def __init__(self):
                self._value = 0

            def look(self, model):
                return self._value + model._value + model._flatten_layers() + torch._foreach_add

        class Theirs(keras.callbacks.Callback):
            def __init__(self):
                self._model = None
                self._ours_alone = getattr(self, "_history")
    """
    known = sources()  # of the real folder: they are kept
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "keras_lr" / "example.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(code))
    source = Source(path)
    monkeypatch.setitem(known, source.module, source)
    assert {name for name, _ in uses(source)} == {"_flatten_layers", "_model", "_history"}
    assert [name for _, name, _ in imported(source)] == ["ops"]


def test_names_of_hooks_are_not_names_of_keras():
    hooks = own_names("keras_lr._keras.optimizers", "OptimizerHooks")
    hooks |= own_names("keras_lr._keras.callbacks", "Callback")
    assert {"_fused_step", "_unsynced_model"} <= hooks
    assert not hooks & names_of_keras()


# The running Keras


def example(of: str) -> Any:
    """An object that should have the private part."""
    if of.startswith("keras."):
        return importlib.import_module(of)
    return globals()[f"make_{of.replace(' ', '_')}"]()


def made() -> keras.Sequential:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


make_model = made


def make_functional() -> Any:
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(1)(inputs))


def make_layer() -> Any:
    return make_functional().layers[-1]


def make_tensor() -> Any:
    return make_functional().outputs[0]


def make_tracker() -> Any:
    return make_layer()._tracker


def make_variable() -> Any:
    return keras.Variable(1.0)


def built(optimizer: Any) -> Any:
    optimizer.build([make_variable()])
    return optimizer


def make_optimizer() -> Any:
    return built(keras.optimizers.Adam())


def make_adamax() -> Any:
    return built(keras.optimizers.Adamax())


def make_ftrl() -> Any:
    return built(keras.optimizers.Ftrl())


def make_callback() -> Any:
    return keras.callbacks.Callback()


def make_callback_list() -> Any:
    return keras.callbacks.CallbackList([], add_history=True, add_progbar=True, model=made())


def make_metric() -> Any:
    return keras.metrics.BinaryAccuracy()


def make_compiled_metrics() -> Any:
    model = made()
    model.evaluate(np.zeros((4, 2)), np.zeros((4, 1)), verbose=0)
    return model._compile_metrics


def make_loss() -> Any:
    return keras.losses.Huber(delta=2.0)


def make_saveable() -> Any:
    from keras.src.saving.keras_saveable import KerasSaveable

    return KerasSaveable


def make_epoch_iterator() -> Any:
    from keras_lr._keras.epochs import Epochs

    arrays = np.zeros((4, 2)), np.zeros((4, 1))
    return Epochs(made(), *arrays, batch_size=2, steps_per_epoch=None, shuffle=False)._iterator


def make_data_adapter() -> Any:
    return make_epoch_iterator().data_adapter


def make_global_state() -> Any:
    """The names under which Keras keeps state for the whole process."""
    from keras.src.backend.common import global_state

    keras.utils.set_random_seed(0)
    keras.random.uniform(())
    made()
    return SimpleNamespace(**vars(global_state.GLOBAL_STATE_TRACKER))


def make_source() -> Any:
    """The names in the source of Keras, for arguments."""
    return SimpleNamespace(**dict.fromkeys(names_of_keras()))


def make_model_in_fit() -> Any:
    """All attributes that a model has at some time in a fit."""
    model, seen = made(), {}

    def note(*_: Any, **__: Any) -> None:
        seen.update(vars(model))

    class Watch(keras.callbacks.Callback):
        on_train_batch_end = on_test_end = on_epoch_end = staticmethod(note)

    arrays = np.zeros((4, 2)), np.zeros((4, 1))
    model.fit(*arrays, validation_data=arrays, epochs=2, callbacks=[Watch()], verbose=0)
    return SimpleNamespace(**seen)


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.of} {row.name}" for row in ROWS])
def test_keras_has(row):
    if row.backend and row.backend != keras.backend.backend():
        pytest.skip(f"is there on {row.backend} only")
    version = tuple(map(int, keras.__version__.split(".")[:2]))
    if not row.since <= version <= row.until:
        pytest.skip(f"is there in other versions of Keras than {keras.__version__}")
    assert hasattr(example(row.of), row.name), f"Without it: {row.breaks}"
