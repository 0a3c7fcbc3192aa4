"""`Diagnose`: reports problems of the training while it runs."""

from __future__ import annotations

from typing import Any

from keras_lr._util import checks
from keras_lr.callbacks.base import SteeringCallback
from keras_lr.diagnosis import Diagnosis, Finding, diagnose
from keras_lr.steering import Length

_CHECKS = 200  # of a long run; more of them would take time that grows with its square
_SEVERE = {None: (), "error": ("error",), "warning": ("error", "warning")}


class Diagnose(SteeringCallback):
    """Report problems of the training while it runs, each once, with evidence and advice.

    After each epoch it applies `keras_lr.diagnose` to the epochs so far: the losses and metrics of
    the logs, and the learning rate. It reports an error or a warning that it has found after
    `patience` epochs in a row; NaN and infinity at once. Hints are in `diagnosis` only. A run of
    more than 200 epochs is checked after every 2nd, 3rd, ... epoch, about 200 times.

    Epochs count from 1, as in the progress output of Keras. It changes neither the rate nor the
    weights.

    Args:
        stop: "error" stops the training when an error is reported, "warning" also for a warning;
            None never stops it.
        patience: Checks in a row that must find a problem before it is reported, at least 1.
        verbose: 1 prints what is reported; 0 prints nothing.
        untrained_loss: Loss of the model before training, such as log(10) for 10 classes.
        optimizer: The optimizer whose rate is judged, if the model trains with several: itself, or
            its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Attributes:
        reported: A `Finding` for each problem that was reported in the last `fit`.
        diagnosis: The `Diagnosis` after the last check; None before the first.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument has the wrong type.

    >>> import keras, keras_lr, numpy as np
    >>> x = np.ones((64, 1), "float32")  # loss = weight ** 2: stable below a rate of 1
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(keras.optimizers.SGD(1.2), "mse")
    >>> watch = keras_lr.Diagnose(stop="error", verbose=0)
    >>> history = model.fit(x, 0 * x, epochs=40, verbose=0, callbacks=[watch])
    >>> watch.reported[0].name, len(history.epoch) < 40
    ('diverged', True)
    """

    def __init__(
        self,
        stop: str | None = None,
        patience: int = 3,
        verbose: int = 1,
        *,
        untrained_loss: float | None = None,
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        if stop not in _SEVERE:
            raise ValueError(f"stop must be 'error', 'warning' or None; got {stop!r}.")
        self.stop = stop
        self.patience = checks.count("patience", patience)
        self.verbose = checks.verbosity(verbose)
        if untrained_loss is not None:
            untrained_loss = checks.number("untrained_loss", untrained_loss)
        self.untrained_loss = untrained_loss
        self.reported: list[Finding] = []
        self.diagnosis: Diagnosis | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self.reported, self.diagnosis = [], None
        self._rows: list[dict[str, float]] = []
        self._found: dict[str, int] = {}
        super().on_train_begin(logs)

    def begin(self, length: Length) -> None:
        self._epochs = length.epochs

    def remember(self) -> dict[str, Any]:
        return {"rows": self._rows, "reported": [each.to_dict() for each in self.reported]}

    def recall(self, memory: dict[str, Any]) -> None:
        self._rows = [dict(row) for row in memory["rows"]]
        self.reported = [Finding(**each) for each in memory["reported"]]

    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        if "loss" not in logs:
            return
        row = {name: float(value) for name, value in logs.items() if _is_number(value)}
        self._rows.append({"epoch": epoch + 1, **row})
        if (epoch + 1) % (1 + (self._epochs or 0) // _CHECKS) and epoch + 1 != self._epochs:
            return
        self.diagnosis = diagnose(
            self._rows, total_epochs=self._epochs, untrained_loss=self.untrained_loss
        )
        self._found = {name: self._found.get(name, 0) + 1 for name in self.diagnosis.names}
        told = {finding.name for finding in self.reported}
        for finding in self.diagnosis:
            sure = finding.name == "not-a-number" or self._found[finding.name] >= self.patience
            if finding.severity != "hint" and sure and finding.name not in told:
                self._report(epoch, finding)

    def _report(self, epoch: int, finding: Finding) -> None:
        self.reported.append(finding)
        stops = finding.severity in _SEVERE[self.stop]
        if stops:
            self._unsynced_model.stop_training = True
        if self.verbose:
            print(
                f"\nEpoch {epoch + 1}: {finding.severity}, {finding.name}. {finding.evidence} "
                f"{finding.advice}" + (" The training stops." if stops else "")
            )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
