"""The PyTorch loop: eager steps; numbers leave the device once a chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from keras import ops

from keras_lr.loops.base import check_updated, scalar_logs
from keras_lr.loops.data import Batches
from keras_lr.steering import BorrowedRate


class TorchLoop:
    def __init__(self, model: Any, rate: BorrowedRate, monitor: str) -> None:
        self._model = model
        self.rate = rate
        self._monitor = monitor
        self.eager = True
        self.stateless = False
        self.draws = True
        # A tensor that each rate is written to: torch.compile would specialise on a number.
        self._value = ops.convert_to_tensor(0.0, dtype="float32")
        self._step = torch.compile(model.train_step) if _compiles(model) else model.train_step
        self._test_step = torch.compile(model.test_step) if _compiles(model) else model.test_step

    def build(self, stream: Batches) -> None:
        """Do nothing: the first step creates what is missing, when it runs."""

    def read(self, variable: Any) -> np.ndarray | None:
        return np.asarray(ops.convert_to_numpy(variable.value))

    def start(self) -> None:
        self.rate.value = self._value
        self._model.reset_metrics()
        self._reset = _resetter(self._model)

    def store(self) -> None:
        """Do nothing: the variables of the model are the state."""

    def release(self) -> None:
        self._reset = lambda: None  # holds a copy of the metrics

    def train(self, stream: Batches, rates: np.ndarray) -> dict[str, np.ndarray]:
        model = self._model
        columns: dict[str, list[Any]] = {}
        model.train()
        for batch, rate in zip(stream.take(len(rates)), rates, strict=False):
            self._value.fill_(float(rate))
            logs = scalar_logs(self._step(batch), self._monitor)
            self._reset()
            for name, value in logs.items():
                columns.setdefault(name, []).append(_detached(value))
        return {name: _to_numpy(values) for name, values in columns.items()}

    def evaluate(self, batches: list[Any]) -> dict[str, float]:
        model, logs = self._model, {}
        model.eval()
        model.reset_metrics()
        with torch.no_grad():
            for batch in batches:
                logs = scalar_logs(self._test_step(batch), self._monitor, "test")
        result = {name: float(_detached(value)) for name, value in logs.items()}
        check_updated(model, self._monitor, result, self.read)
        model.reset_metrics()
        return result


def _resetter(model: Any) -> Callable[[], Any]:
    """`model.reset_metrics`; for Keras's own metrics, in one call for all variables."""
    if not all(type(metric).__module__.startswith("keras.") for metric in model.metrics):
        return model.reset_metrics
    variables = model.metrics_variables
    initial = [variable.value.detach().clone() for variable in variables]

    def reset() -> None:
        with torch.no_grad():
            torch._foreach_copy_([variable.value for variable in variables], initial)

    return reset if variables else model.reset_metrics


def _compiles(model: Any) -> bool:
    return bool(model.jit_compile) and not model.run_eagerly


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _to_numpy(values: list[Any]) -> np.ndarray:
    if all(isinstance(value, torch.Tensor) for value in values):
        return torch.stack(values).to("cpu", torch.float64).numpy()
    return np.array([float(value) for value in values])
