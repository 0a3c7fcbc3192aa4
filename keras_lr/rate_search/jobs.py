"""What a search runs: settings, jobs, and how they ended."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property

# Of a setting, besides the rate.
DIMENSIONS = ("momentum", "beta_2", "batch_size", "weight_decay", "warmup", "policy")
_LATER = ("beta_2", "rate_decay")  # not in the keys of searches of earlier versions
POLICIES = ("constant", "one-cycle", "cosine", "wsd")


@dataclass(frozen=True)
class Setting:
    """The hyperparameters that a search chooses.

    Attributes:
        learning_rate: The rate; the largest one if the policy changes it.
        momentum: `SGD.momentum`, `Adam.beta_1`, ...; None keeps that of the compiled model.
        batch_size: Rows of a batch; None if the data set brings its own batches.
        warmup: Share of the run that warms up, in [0, 1).
        policy: "constant", "one-cycle", "cosine" or "wsd" (constant, then linear to 0 over the last
            20 % of the run).
        beta_2: That of Adam and its kin; None keeps that of the compiled model.
        rate_decay: Learning rate x weight decay, the share by which an update at that rate
            shrinks the weights; None keeps the weight decay of the compiled model.
    """

    learning_rate: float
    momentum: float | None = None
    batch_size: int | None = None
    warmup: float = 0.0
    policy: str = "constant"
    beta_2: float | None = None
    rate_decay: float | None = None

    @property
    def weight_decay(self) -> float | None:
        """The weight decay of the optimizer; None keeps that of the compiled model.

        >>> Setting(0.01, rate_decay=2e-4).weight_decay
        0.02
        """
        if self.rate_decay is None:
            return None
        return float(f"{self.rate_decay / self.learning_rate:.3g}")

    @property
    def variant(self) -> Setting:
        """The setting without its rate: the same at a rate of 1, also in `rate_decay`."""
        return replace(self, learning_rate=1.0)


@dataclass(frozen=True)
class Job:
    """One run to do: a setting, a seed, a share of the data, a number of epochs.

    Attributes:
        round: The round that asks for the run. Two rounds that ask for the same run share it.
        setting: The hyperparameters.
        seed: Seed of the order of the data, of dropout, and of a new model's weights.
        fraction: Share of the training rows, in (0, 1].
        epochs: Epochs to train.
    """

    round: str
    setting: Setting
    seed: int
    fraction: float
    epochs: int

    @cached_property
    def key(self) -> str:
        """The name of the run: equal in every process and in every round.

        >>> Job("coarse", Setting(0.1), 0, 1.0, 3).key == Job("fine 1", Setting(0.1), 0, 1.0, 3).key
        True
        """
        values = {each.name: getattr(self.setting, each.name) for each in fields(Setting)}
        for name in _LATER:
            if values[name] is None:
                del values[name]
        text = "/".join(f"{name}={value}" for name, value in values.items())
        return f"{text}/seed={self.seed}/rows={self.fraction}/epochs={self.epochs}"


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: The job.
        ended: "finished"; "behind" if it was stopped early because other runs were better at
            that epoch; "diverged".
        value: The objective after the last epoch that was trained; NaN if the run diverged.
        history: The logs of each epoch, by name.
        seconds: Duration of the run.
        number: The number of its trial in the study.
        worker: The process that trained it, as HOST:PID; "" if it is unknown.
    """

    job: Job
    ended: str
    value: float
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    number: int = -1
    worker: str = field(default="", compare=False)

    @property
    def epochs(self) -> int:
        """Epochs that were completed."""
        return max((len(values) for values in self.history.values()), default=0)
