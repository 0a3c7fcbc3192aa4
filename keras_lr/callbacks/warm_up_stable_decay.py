"""`WarmUpStableDecay`: hold the rate, and decide during the run when it decays."""

from __future__ import annotations

import time
import warnings
from typing import Any

from keras_lr._util import checks
from keras_lr._util.files import check_writable
from keras_lr.callbacks.base import SteeringCallback, monitored
from keras_lr.callbacks.plateau_rule import PlateauRule
from keras_lr.schedules import WarmUpStableDecaySchedule
from keras_lr.steering import Length, Plan

_NEVER = 2**31  # the length of a run without a known end
_SECONDS = 1.0  # between two looks for the file


class WarmUpStableDecay(SteeringCallback):
    """Warm up, hold `max_lr`, and decay when the run says so; then stop the training.

    The rates are those of `WarmUpStableDecaySchedule`, so the length of the run need not be known
    when it begins. The decay begins with the first of these:

    - `decay_now` is called, by a callback of yours or from a signal handler;
    - `minutes` have passed since `fit` began;
    - the metric `monitor` has not improved for `patience` epochs;
    - the file `file` exists, as after `touch` in a shell;
    - `decay_steps` updates of the `fit` are left.

    In the first four cases the training stops after the last update of the decay, and the training
    step is compiled once more when the decay begins.

    Args:
        max_lr: Learning rate between warm-up and decay; above 0.
        warmup_steps: Updates of the climb, at least 0.
        decay_steps: Updates of the decay, at least 1. By default a tenth of the run: of the `fit`,
            or a ninth of the updates before the decay if it begins earlier.
        decay: Shape of the decay, `"1-sqrt"`, `"linear"` or `"cosine"`.
        start_lr: Learning rate of the first update if there is a warm-up; in [0, `max_lr`].
        min_lr: Learning rate to which the decay leads; in [0, `max_lr`].
        minutes: Minutes of the `fit` before the decay begins, above 0; None for no limit. A resumed
            run goes on with what was left of them at its backup.
        monitor: Name of a metric in the logs of an epoch, such as `"val_loss"`; None for none.
        patience: Epochs without an improvement of the metric; at least 1.
        min_delta: An improvement is better than the best value by more than this; at least 0.
        mode: `"min"` if lower values of the metric are better, `"max"` if higher ones are;
            `"auto"`: the direction of the metric.
        file: Path of the file, which is looked for once a second; None for none. It must not exist
            when the `fit` begins.
        checkpoint: Path of a `.keras` file to which the model is saved when the decay begins, with
            its optimizer; None for none. Load it to extend the run (`fit` with this callback and
            `warmup_steps=0`), or to decay it anew (`cooldown`).
        couple_weight_decay: Whether the product of rate and weight decay is constant, that of the
            compiled optimizer: a rate ten times as large decays a tenth as much. Otherwise the
            weight decay is constant, and the product follows the rate, as in Keras. See Wang and
            Aitchison, 2024 (arXiv 2405.13698), whose averaging time of the weights, 1 / (rate x
            decay) updates, it keeps. The logs get `weight_decay`.
        optimizer: The optimizer to steer, if the model trains with several: the optimizer itself,
            or its name in the model, such as `"d_optimizer"` or `"optimizers[0]"`.

    Attributes:
        decay_begun_at: The update, from 0, at which the decay began by one of the first four; None
            before.

    Raises:
        ValueError, TypeError: If an argument is out of its range or of the wrong kind; when `fit`
            begins, if another callback sets the rate, warm-up and decay do not fit into the run, or
            the file exists.

    Sources: Hu et al., "MiniCPM", 2024 (arXiv 2404.06395), section 4.2; Hägele et al., "Scaling
    laws and compute-optimal training beyond fixed training durations", 2024 (arXiv 2405.18392).

    >>> import keras, keras_lr, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> policy = keras_lr.WarmUpStableDecay(0.01, decay="linear")
    >>> when = keras.callbacks.LambdaCallback(
    ...     on_epoch_end=lambda epoch, logs: epoch == 2 and policy.decay_now(steps=8))
    >>> history = model.fit(x, x.sum(axis=1), epochs=100, batch_size=16, verbose=0,
    ...                     callbacks=[policy, when])
    >>> [round(lr, 5) for lr in history.history["learning_rate"]]
    [0.01, 0.01, 0.01, 0.00625, 0.00125]
    """

    roles = ("schedule",)
    retraces = True

    def __init__(
        self,
        max_lr: float,
        warmup_steps: int = 0,
        decay_steps: int | None = None,
        *,
        decay: str = "1-sqrt",
        start_lr: float = 0.0,
        min_lr: float = 0.0,
        minutes: float | None = None,
        monitor: str | None = None,
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str = "auto",
        file: Any = None,
        checkpoint: Any = None,
        couple_weight_decay: bool = False,
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.warmup_steps = checks.count("warmup_steps", warmup_steps, 0)
        if decay_steps is not None:
            decay_steps = checks.count("decay_steps", decay_steps)
        self.decay_steps = decay_steps
        self._shape: dict[str, Any] = {
            "max_lr": max_lr,
            "decay": decay,
            "start_lr": start_lr,
            "min_lr": min_lr,
        }
        self._schedule(_NEVER, decay_steps or 1)  # refuses bad values now
        if minutes is not None:
            minutes = checks.number("minutes", minutes, above=0)
        self.minutes = minutes
        self.monitor = None if monitor is None else checks.log_entry("monitor", monitor)
        self._rule = PlateauRule(
            patience=checks.count("patience", patience),
            min_delta=min_delta,
            mode=mode,
            monitor=self.monitor or "val_loss",
        )
        self.file = None if file is None else checks.file_path("file", file)
        if checkpoint is not None:
            checkpoint = checks.file_path("checkpoint", checkpoint)
        self.checkpoint = checkpoint
        if self.checkpoint is not None and self.checkpoint.suffix != ".keras":
            raise ValueError(f"checkpoint must end in .keras; got {str(checkpoint)!r}.")
        self._saved = False
        self._couple(couple_weight_decay)
        self.decay_begun_at: int | None = None
        self._running = False
        self._asked: int | None = None
        self._due = False
        self._automatic = self._end = _NEVER  # updates at which a decay begins and ends
        self._deadline = self._look_at = float("inf")
        self._begun = self._passed = 0.0  # seconds: when this process began, and of earlier ones

    def decay_now(self, steps: int | None = None) -> None:
        """Begin the decay with the next batch.

        Args:
            steps: Updates of the decay, at least 1; by default those of `decay_steps`.

        Raises:
            ValueError: If `steps` is below 1, no `fit` is running, or the decay has begun, also the
                one that ends with the `fit`.
        """
        if steps is not None:
            steps = checks.count("steps", steps)
        if not self._running:
            raise ValueError("decay_now must be called during a fit; got no running fit.")
        begun = self.decay_begun_at
        if begun is None and self._updates() >= self._automatic:
            begun = self._automatic
        if begun is not None:
            raise ValueError(
                f"The decay can begin only once; got decay_now after it began at update {begun}."
            )
        self._asked, self._due = steps, True

    def plan(self, length: Length) -> Plan:
        if length.total is None:
            return Plan(self._schedule(_NEVER, 1))
        return Plan(self._schedule(length.total, self._decay_within(length.total)))

    def follows(self, length: Length) -> dict[str, Any]:
        return {}  # a longer run holds the rate for longer

    def begin(self, length: Length) -> None:
        self._running, self.decay_begun_at, self._due, self._asked = True, None, False, None
        self._rule.reset()
        self._saved = False
        if self.checkpoint is not None:
            check_writable(self.checkpoint)
        self._automatic = self._end = _NEVER
        if length.total is not None:
            self._automatic = length.total - self._decay_within(length.total)
        now = time.monotonic()
        self._begun, self._passed = now, 0.0
        self._deadline = float("inf") if self.minutes is None else now + 60 * self.minutes
        self._look_at = float("inf") if self.file is None else now
        if self.file is not None and self.file.exists():
            raise ValueError(
                f"file must not exist when the fit begins; got {str(self.file)!r}. Delete it, or "
                "pass another name."
            )

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_begin(batch, logs)
        if self.decay_begun_at is None and self._is_due():
            self._begin_decay()
        if self.checkpoint is None or self._saved:
            return
        begin = self._automatic if self.decay_begun_at is None else self.decay_begun_at
        if self._updates() + self._unsynced_model.steps_per_execution > begin:
            self._saved = True
            self.model.save(self.checkpoint)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._end < _NEVER and self._updates() >= self._end:
            self._unsynced_model.stop_training = True

    def judge(self, epoch: int, logs: dict[str, Any]) -> None:
        if self.monitor is None or self.decay_begun_at is not None:
            return
        value = monitored(logs, self.monitor, "WarmUpStableDecay")
        if value is None:
            return
        self._rule.look_up_direction(self._unsynced_model)
        if self._rule.observe(value).action == "reduce":
            self._due = True

    def remember(self) -> dict[str, Any]:
        decay = None if self.decay_begun_at is None else [self.decay_begun_at, self._end]
        passed = self._passed + time.monotonic() - self._begun
        return {
            "decay": decay,
            "rule": self._rule.state(),
            "saved": self._saved,
            "passed": passed,
        }

    def recall(self, memory: dict[str, Any]) -> None:
        self._rule.load(memory["rule"])
        self._saved = bool(memory["saved"])
        self._passed = memory.get("passed", 0.0)
        self._deadline -= self._passed
        if memory["decay"] is not None:
            self.decay_begun_at, self._end = memory["decay"]
            self._follow_decay()

    def leave(self) -> None:
        self._running = False

    def _schedule(self, total: int, decay_steps: int) -> WarmUpStableDecaySchedule:
        return WarmUpStableDecaySchedule(
            total_steps=total,
            warmup_steps=self.warmup_steps,
            decay_steps=decay_steps,
            **self._shape,
        )

    def _decay_within(self, total: int) -> int:
        """Updates of the decay of a run of so many updates."""
        return self.decay_steps or max(1, total // 10)

    def _updates(self) -> int:
        return self._session.updates_of(self._steered)

    def _is_due(self) -> bool:
        if self._due:
            return True
        now = time.monotonic()
        if now >= self._look_at and self.file is not None:
            self._look_at = now + _SECONDS
            self._due = self.file.exists()
        self._due = self._due or now >= self._deadline
        return self._due

    def _begin_decay(self) -> None:
        now = self._updates()
        if now >= self._automatic:
            return  # the decay that ends with the fit has begun
        begin = max(now, self.warmup_steps)
        steps = self._asked or self.decay_steps or max(1, begin // 9)
        total = self._steered.length.total
        if total is not None and begin + steps > total:
            warnings.warn(
                f"The decay should end within the fit; got {steps} updates from update {begin} on, "
                f"and this fit makes {total}.",
                UserWarning,
                stacklevel=2,
            )
        self.decay_begun_at, self._end = begin, begin + steps
        self._follow_decay()
        self._session.retrace()

    def _follow_decay(self) -> None:
        """Replace the schedule by one that decays in this stretch; it is the same before."""
        assert self.decay_begun_at is not None  # noqa: S101
        self._steered.replace_schedule(self._schedule(self._end, self._end - self.decay_begun_at))
