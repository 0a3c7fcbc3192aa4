"""What a range test can answer with: a `Suggestion`, or `NoSuggestion`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_lr.range_test.result import RangeTest


@dataclass(frozen=True)
class Suggestion:
    """A learning rate to train with, and the reason for it.

    `print` shows it as a sentence; notebooks show the picture of the range test too.

    Attributes:
        learning_rate: The rate, above 0.
        low: Lower end of the interval that holds the best rate in about 85% of cases (measured
            by benchmarks/suggestion and benchmarks/horizon); at most `learning_rate`.
        high: Its upper end; at least `learning_rate`.
        method: Name of the rule.
        reason: One sentence: where the rate comes from.
        warnings: What makes the answer less certain, one sentence each.
        run: The planned run in words, "one-cycle, 10,000 updates"; "" if none is planned.
        landmarks: The rates where the reason finds the loss halfway down, near its lowest, and
            halfway back up if it came back; empty if the reason names none.
        test: The `RangeTest` that it was read from, for pictures; None if it was made by hand.
    """

    learning_rate: float
    low: float
    high: float
    method: str
    reason: str
    warnings: tuple[str, ...] = ()
    run: str = ""
    landmarks: tuple[float, ...] = ()
    test: RangeTest | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return "\n".join(
            [f"{self.answer()} {self.reason}", *map("Warning: {}".format, self.warnings)]
        )

    def _repr_html_(self) -> str:
        """The picture and the sentence, which notebooks show."""
        from keras_lr.range_test.report import fragment

        return fragment(self.test, self)

    def answer(self) -> str:
        """The rate, the run that it is for, and its interval, in a sentence.

        >>> print(Suggestion(0.01, 0.003, 0.03, "auto", "", run="cosine").answer())
        Learning rate 0.01 for cosine; best between 0.003 and 0.03 in about 85% of cases.
        >>> Suggestion(0.01, 0.01, 0.01, "valley", "").answer()
        'Learning rate 0.01.'
        """
        text = f"Learning rate {self.learning_rate:.3g}" + (f" for {self.run}" if self.run else "")
        if self.low < self.high:
            text += f"; best between {self.low:.3g} and {self.high:.3g}"
            text += " in about 85% of cases" if self.method == "auto" else ""
        return f"{text}."

    def python(self, model: Any, optimizer: str | None = None, *, compiled: bool = True) -> str:
        """A line of Python that sets this rate.

        Args:
            model: The model of the range test, compiled.
            optimizer: Name of the optimizer, as in `lr_find`.
            compiled: Whether the line changes the model's optimizer. If not, and if that one has
                a schedule, the line makes an optimizer to compile with.
        """
        from keras_lr._keras.optimizers import has_schedule

        rate = self.learning_rate
        if optimizer and optimizer != "optimizer":
            return f"model.{optimizer}.learning_rate = {rate:.3g}"
        if hasattr(model.optimizer, "optimizers"):  # the rate is that of the fastest group
            rates = [float(part.learning_rate) for part in model.optimizer.optimizers]
            if not any(rates):
                return f"# give the fastest group of the optimizer the rate {rate:.3g}"
            return (
                "for part in model.optimizer.optimizers: "
                f"part.learning_rate = float(part.learning_rate) * {rate / max(rates):.3g}"
            )
        inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        if not compiled or has_schedule(inner):
            return f"optimizer = keras.optimizers.{type(inner).__name__}(learning_rate={rate:.3g})"
        path = "model.optimizer" if inner is model.optimizer else "model.optimizer.inner_optimizer"
        return f"{path}.learning_rate = {rate:.3g}"


class NoSuggestion(ValueError):
    """The curve supports no suggestion; the message says why and what to do about it."""


class SuggestionWarning(UserWarning):
    """Something makes a suggestion less certain; issued by `RangeTest.suggest`."""
