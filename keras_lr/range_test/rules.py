"""From a recorded curve to a `Suggestion`: chooses the rule and applies it to every repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from keras_lr.range_test import smoothing
from keras_lr.range_test.curve_rule import RAISE_END, STILL_FALLING, TooUneven, curve_rule
from keras_lr.range_test.landmarks import FEWEST_POINTS, NOT_FINITE
from keras_lr.range_test.other_rules import OTHER_RULES, Rule
from keras_lr.range_test.smoothing import checked
from keras_lr.range_test.suggestion import NoSuggestion, Suggestion

METHODS: Mapping[str, Rule] = {"auto": curve_rule, "curve": curve_rule, **OTHER_RULES}


def suggest(
    learning_rates: Any,
    losses: Any,
    method: str = "auto",
    *,
    validation: Mapping[str, Any] | None = None,
    stop_reason: str = "",
    batch_size: int | None = None,
) -> Suggestion:
    """A learning rate from a recorded range test.

    Our own rule, "curve", looks for three landmarks of the smoothed curve: where the loss has
    done half of its fall, where nearly all of it, and where it has lost half again. Noise or an
    odd curve can misplace any one of them; their geometric mean moves little. A rate that is
    too high takes some updates to show in the loss, while the ramp goes on, so the landmarks
    are read a few steps early. A whole training run tolerates about half of that mean.

    Args:
        learning_rates: Rates of the steps, increasing, shape (steps,).
        losses: True batch losses, shape (steps,) or (repeats, steps). Losses after one that is
            not finite are ignored. Several repeats give the median of their answers, and an
            interval that holds all of theirs.
        method: "auto" or "curve" for our rule. The other names of `METHODS` are rules of other
            libraries, on the same true batch losses, with their own smoothing, trimming and stop
            rule, and with their own errors.
        validation: "learning_rates" and "loss" of a held-out sample along the ramp; "auto" and
            "curve" then weigh that curve like the one of the batches.
        stop_reason: Why the record ended, as in `RangeTest`; "" if that is unknown.
        batch_size: Examples in a batch. If the losses are too uneven, the message names the
            batch size that would do; without this, as a multiple of the present one.

    Raises:
        NoSuggestion: If the curve supports no suggestion. The message says why: no step
            recorded, a loss that was never finite, data that ended too soon, too few steps, a
            constant loss, a flat curve, losses that are too uneven.
        ValueError: If there is no such method, or shapes do not fit.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; the methods are: {', '.join(METHODS)}.")
    rates, rows = checked(learning_rates, losses)
    refusal = too_short(rows, stop_reason)
    if refusal is not None:
        raise refusal
    rule = METHODS[method]
    try:
        with np.errstate(all="ignore"):
            found = _over_repeats(method, rule, rates, rows)
            if method in ("auto", "curve"):
                found = replace(_with_validation(found, validation), method=method)
    except TooUneven as error:
        raise TooUneven(error.factor, batch_size) from None
    except NoSuggestion as error:
        raise (_data_ended(rates) if stop_reason == "data_ended" else error) from None
    if stop_reason == "data_ended":
        # The smoother sees no shape in a record that is narrower than its neighbourhood.
        narrow = np.log10(rates[-1] / rates[0]) < 2.0 * smoothing.BANDWIDTH
        if narrow or STILL_FALLING in found.warnings:
            raise _data_ended(rates)
        notes = [note for note in found.warnings if not note.endswith(RAISE_END)]
        return replace(found, warnings=(str(_data_ended(rates)), *notes))
    return found


def _over_repeats(name: str, rule: Rule, rates: np.ndarray, rows: np.ndarray) -> Suggestion:
    """The median of the repeats' answers in ln lr, and an interval that holds all of them."""
    found, refused = [], None
    for losses in rows:
        try:
            found.append(rule(rates, losses))
        except NoSuggestion as error:
            refused = error
    if not found:
        assert refused is not None  # noqa: S101
        raise refused
    if len(rows) == 1:
        return found[0]
    answers = [one.learning_rate for one in found]
    middle = float(np.exp(np.median(np.log(answers))))
    notes = list(dict.fromkeys(note for one in found for note in one.warnings))
    if len(found) < len(rows):
        notes.append(f"{len(rows) - len(found)} of {len(rows)} repeats support no suggestion.")
    if max(answers) > 10 * min(answers):
        notes.append("The repeats disagree by more than a decade.")
    return Suggestion(
        middle,
        min([one.low for one in found] + [middle]),
        max([one.high for one in found] + [middle]),
        name,
        f"The suggestion is the median of {len(found)} repeats, which gave {min(answers):.2g} to "
        f"{max(answers):.2g}.",
        tuple(notes),
    )


def _with_validation(found: Suggestion, validation: Mapping[str, Any] | None) -> Suggestion:
    """The geometric mean of the batches' answer and the held-out sample's."""
    if validation is None or validation.get("loss") is None:
        return found
    rates, rows = checked(validation["learning_rates"], validation["loss"])
    try:
        held_out = _over_repeats("curve", curve_rule, rates, rows)
    except NoSuggestion:
        return found
    rate = float(np.sqrt(found.learning_rate * held_out.learning_rate))
    return replace(
        found,
        learning_rate=rate,
        low=min(found.low, held_out.low, rate),
        high=max(found.high, held_out.high, rate),
        reason=f"{found.reason} It is averaged with {held_out.learning_rate:.2g}, the suggestion "
        "of the held-out loss.",
    )


def too_short(losses: Any, stop_reason: str) -> NoSuggestion | None:
    """Why a record is too short, or constant, for any rule; None if it is neither."""
    rows = np.atleast_2d(np.asarray(losses, float))
    counts = np.cumprod(np.isfinite(rows), axis=1).sum(axis=1).astype(int)  # up to the first NaN
    steps = int(counts.max(initial=0))
    if steps == 0 and (rows.shape[1] or stop_reason == "non_finite"):
        return NoSuggestion(NOT_FINITE)
    if steps == 0:
        return NoSuggestion("The range test recorded no step. Check that the data has batches.")
    if stop_reason == "non_finite" and steps < FEWEST_POINTS:
        return NoSuggestion(
            f"The loss was no longer finite after {steps} steps, at rates that hardly change the "
            "weights. Check the data for NaN, infinity and very large values, or begin at a "
            "lower start_lr."
        )
    kept = rows[int(counts.argmax()), :steps]
    if steps >= FEWEST_POINTS and np.ptp(kept) == 0.0:
        return NoSuggestion(
            f"The curve is flat: the loss is {kept[0]:.6g} at every step. Check that the loss "
            "depends on trainable weights: that layers are trainable, that gradients reach them, "
            "and that not all sample weights are zero."
        )
    return None


def _data_ended(rates: np.ndarray) -> NoSuggestion:
    return NoSuggestion(
        f"The data ended after {len(rates)} steps, at a learning rate of {rates[-1]:.2g}, so "
        "higher rates were never tried. Pass data that can be repeated (arrays, a data set, an "
        "endless generator), or take fewer steps."
    )
