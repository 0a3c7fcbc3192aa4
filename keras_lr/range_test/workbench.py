"""A model on loan: run it from the same start as often as you like, and get it back untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lr.loops import CHUNK, Loop, keep_loop, make_loop
from keras_lr.loops.data import DataEnded
from keras_lr.range_test.stopping import first_divergence
from keras_lr.snapshot import Snapshot, reseed, seed_everything
from keras_lr.steering import BorrowedRate, SteeredFit, driven_optimizers, updates_every

Report = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Run:
    """One pass over a list of rates: what each step that counts reported."""

    learning_rates: np.ndarray
    logs: dict[str, np.ndarray]
    validation: dict[str, np.ndarray] | None
    stop_reason: str

    @property
    def losses(self) -> np.ndarray:
        return self.logs["loss"]


class Workbench:
    """Runs a borrowed model at given rates. Made by `borrow`, which also gives the model back.

    One step is one update of the weights: with gradient accumulation, several batches at one
    rate, and the mean of what they reported.
    """

    def __init__(
        self,
        model: Any,
        stream: Any,
        rate: BorrowedRate,
        snapshot: Snapshot,
        seed: int | None = None,
    ) -> None:
        self.stream = stream
        self._model, self._seed = model, seed
        self.ratios = rate.ratios
        self.steps_trained = 0
        self.snapshot_bytes = snapshot.nbytes
        self._snapshot = snapshot
        self.loop: Loop = make_loop(model, rate)
        self._every = updates_every(model.optimizer)
        # An optimizer that stands between two updates needs fewer batches for its next one.
        leaf = driven_optimizers(model.optimizer)[0]
        self._pending = int(keras.ops.convert_to_numpy(leaf._iterations)) % self._every
        self._fresh = True

    def run(
        self,
        learning_rates: np.ndarray,
        *,
        stop_factor: float | None = None,
        validation: list[Any] | None = None,
        validation_every: int = 1,
        report: Report | None = None,
    ) -> Run:
        """Train one step at each rate, from the model's starting point.

        Stops where the loss is not finite, where `first_divergence` says so, or where the data
        ends. Steps are counted in chunks, so some may be trained past the stop: they cost time
        and appear in `steps_trained`, but not in what is recorded.
        """
        self._rewind()
        total = len(learning_rates)
        batches = self._batches_of(total)
        rates = np.repeat(learning_rates, batches)
        ends = np.cumsum(batches)  # of each update, in batches
        stride = max(1, CHUNK // self._every) if validation is None else validation_every
        parts: list[dict[str, np.ndarray]] = []
        checks: list[tuple[int, dict[str, float]]] = []
        trained, reason = 0, "completed"
        while trained < len(rates):
            until = ends[min(int(np.searchsorted(ends, trained, "right")) + stride, total) - 1]
            until = min(until, trained + CHUNK)
            try:
                logs = self.loop.train(self.stream, rates[trained:until])
            except DataEnded:
                reason = "data_ended"
                break
            parts.append(logs)
            trained += len(logs["loss"])
            done = int(np.searchsorted(ends, trained, "right"))
            losses = _by_update(parts, "loss", ends[:done])
            if not np.all(np.isfinite(parts[-1]["loss"])):
                reason = "non_finite"
                break
            if report is not None and done:
                report(done, float(learning_rates[done - 1]), float(losses[-1]))
            if stop_factor is not None:
                more = done < total
                if first_divergence(losses, stop_factor, more_follow=more) is not None:
                    reason = "diverged"
                    break
            due = done % validation_every == 0 or done == total
            if validation is not None and due and done and trained == ends[done - 1]:
                checks.append((done, self.loop.evaluate(validation)))
        return self._record(learning_rates, ends, parts, checks, reason, stop_factor)

    def train(self, learning_rate: float, steps: int, held_out: list[Any]) -> float:
        """Held-out loss after `steps` updates at one rate; infinity if it diverged."""
        run = self.run(np.full(steps, learning_rate))
        if run.stop_reason == "data_ended":
            raise DataEnded
        if run.stop_reason == "non_finite":
            return float("inf")
        loss = self.loop.evaluate(held_out)["loss"]
        return loss if np.isfinite(loss) else float("inf")

    def start_loss(self, held_out: list[Any]) -> float:
        """Held-out loss of the weights that every run starts from."""
        self._rewind()
        return float(self.loop.evaluate(held_out)["loss"])

    def _rewind(self) -> None:
        if not self._fresh:
            self._snapshot.rewind()
        self._fresh = False
        if self._seed is not None:
            reseed(self._model, self._seed)
        self.loop.start()

    def _batches_of(self, updates: int) -> np.ndarray:
        batches = np.full(updates, self._every)
        batches[0] -= self._pending
        return batches

    def _record(
        self,
        learning_rates: np.ndarray,
        ends: np.ndarray,
        parts: list[dict[str, np.ndarray]],
        checks: list[tuple[int, dict[str, float]]],
        reason: str,
        stop_factor: float | None,
    ) -> Run:
        trained = sum(len(part["loss"]) for part in parts)
        done = int(np.searchsorted(ends, trained, "right"))
        self.steps_trained += done
        names = list(parts[0]) if parts else ["loss"]
        logs = {name: _by_update(parts, name, ends[:done]) for name in names}
        kept = done
        if reason == "non_finite":
            kept = int(np.argmin(np.isfinite(logs["loss"]))) if done else 0
            if done and np.all(np.isfinite(logs["loss"])):
                kept = done  # the update that broke off in the middle was not counted
        if stop_factor is not None:
            stop = first_divergence(logs["loss"][:kept], stop_factor)
            if stop is not None:
                kept, reason = stop + 1, "diverged"
        validation = None
        checks = [(step, values) for step, values in checks if step <= kept]
        if checks:
            at = np.array([step - 1 for step, _ in checks])
            validation = {"learning_rates": learning_rates[at]}
            for name in checks[0][1]:
                validation[name] = np.array([values[name] for _, values in checks])
        return Run(
            learning_rates[:kept],
            {name: values[:kept] for name, values in logs.items()},
            validation,
            reason,
        )


@contextmanager
def borrow(
    model: Any, make_stream: Callable[[], Any], seed: int | None, *, training: bool = False
) -> Iterator[Workbench]:
    """Lend `model` to the block; afterwards it is as it was, to the last bit.

    Args:
        training: Whether the model is in the middle of a `fit`, whose steering goes on after the
            block. Otherwise a steering that is still there is that of an interrupted `fit`.
    """
    if not training:
        SteeredFit.release(model)
    with SteeredFit.suspended(model), Snapshot(model).guarding() as snapshot:
        if seed is not None:
            seed_everything(seed)
        stream = make_stream()
        try:
            build(model, stream)
            check_trainable(model)
            snapshot.copy_values()
            with BorrowedRate(model.optimizer).installed() as rate:
                bench = Workbench(model, stream, rate, snapshot, seed)
                yield bench
                keep_loop(model, bench.loop)
        finally:
            stream.close()


def check_trainable(model: Any) -> None:
    """Refuse a model that has weights, and none that training would change.

    Raises:
        ValueError: If every layer is frozen.
    """
    if model.weights and not model.trainable_variables:
        raise ValueError(
            f"The model {model.name!r} must have trainable weights; got {len(model.weights)} "
            "weights, all frozen. Set trainable = True on the model or on a layer, and compile."
        )


def build(model: Any, stream: Any) -> None:
    """Create what `fit` would create: variables of the model, the optimizer and the metrics."""
    layers_built = all(layer.built for layer in model._flatten_layers())
    compiled = [part for part in (model._compile_metrics, model._compile_loss) if part is not None]
    if keras.backend.backend() == "tensorflow":
        # Variables that are distributed cannot be made by the first step, as others can.
        early = compiled if model._distribute_strategy is not None else []
        with model.distribute_strategy.scope():
            if not (layers_built and all(part.built for part in early)):
                model._symbolic_build(data_batch=stream.peek())
            elif not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
    elif not (layers_built and all(part.built for part in compiled)):
        model._symbolic_build(data_batch=stream.peek())
    else:
        model._symbolic_build()


def _by_update(parts: list[dict[str, np.ndarray]], name: str, ends: np.ndarray) -> np.ndarray:
    """The mean over the batches of each update."""
    if not len(ends):
        return np.empty(0)
    values = np.concatenate([part[name] for part in parts])[: ends[-1]]
    starts = np.concatenate([[0], ends[:-1]])
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, ends[-1]))
