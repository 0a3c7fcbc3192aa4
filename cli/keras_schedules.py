"""The signatures of Keras's schedules, with the types and the help that Keras leaves out.

`keras-lr preview` reads its options from these classes. Nobody creates them; a test compares
their arguments and defaults with those of Keras.
"""

from __future__ import annotations

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "PolynomialDecay",
]


class CosineDecay:
    """Decay along half a cosine.

    Args:
        initial_learning_rate: Learning rate of the first step.
        decay_steps: Steps of the decay; the rest of the run by default.
        alpha: The last rate as a share of the first.
        warmup_target: Climb to this rate before the decay.
        warmup_steps: Steps of that climb.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None: ...


class CosineDecayRestarts:
    """Decay along half a cosine, over and over.

    Args:
        initial_learning_rate: Learning rate of the first step.
        first_decay_steps: Steps of the first decay.
        t_mul: Ratio of the lengths of a decay and the one before it.
        m_mul: Ratio of the first rates of a decay and the one before it.
        alpha: The lowest rate as a share of the first.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
    ) -> None: ...


class _DecayByRate:
    """Decay by a rate for every so many steps.

    Args:
        initial_learning_rate: Learning rate of the first step.
        decay_steps: Steps after which the decay rate has been applied once.
        decay_rate: Strength of the decay.
        staircase: Decay once every decay_steps instead of at each step.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
    ) -> None: ...


class ExponentialDecay(_DecayByRate): ...


class InverseTimeDecay(_DecayByRate): ...


class PolynomialDecay:
    """Decay along a power of the steps left.

    Args:
        initial_learning_rate: Learning rate of the first step.
        decay_steps: Steps of the decay; the whole run by default.
        end_learning_rate: Learning rate after the decay.
        power: Exponent of the decay; 1 is a straight line.
        cycle: Start a new decay when one ends.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 1e-4,
        power: float = 1.0,
        cycle: bool = False,
    ) -> None: ...
