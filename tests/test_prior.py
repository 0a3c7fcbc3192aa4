"""The usual rate of each family of optimizers."""

import keras
import numpy as np
import pytest

from keras_lr.optimizers import (
    AdaptiveGains,
    Hypergradient,
    LayerwiseLR,
    Prodigy,
    ScheduleFree,
)
from keras_lr.range_test.planned_run import ONE_CYCLE
from keras_lr.range_test.prior import usual_rate

pytestmark = pytest.mark.long_elsewhere("computed with NumPy, from a record or a plan")

optimizers = keras.optimizers

# The rates that issue 16 measured as best in 500 updates; for Adadelta and Prodigy, the factor of
# their papers.
SGD, MOMENTUM = (-1.0, "SGD"), (-1.75, "momentum")
ADAM, LION = (-2.25, "Adam"), (-3.25, "Lion")
FACTOR, UNKNOWN = (0.0, "Adadelta"), (None, "unknown")


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (lambda: optimizers.SGD(0.1), SGD),
        (lambda: optimizers.SGD(0.1, nesterov=True), SGD),  # Keras ignores it without a momentum
        (lambda: optimizers.SGD(0.1, momentum=0.5), SGD),
        (lambda: optimizers.SGD(0.1, momentum=0.9), MOMENTUM),
        (lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True), MOMENTUM),
        (lambda: optimizers.Adam(), ADAM),
        (lambda: optimizers.AdamW(), ADAM),
        (lambda: optimizers.Adamax(), ADAM),
        (lambda: optimizers.Nadam(), ADAM),
        (lambda: optimizers.RMSprop(), ADAM),
        (lambda: optimizers.RMSprop(momentum=0.9), UNKNOWN),
        (lambda: optimizers.Lion(), LION),
        (lambda: optimizers.Adadelta(), FACTOR),
        (lambda: Prodigy(), FACTOR),
        (lambda: optimizers.Adagrad(), UNKNOWN),
        (lambda: optimizers.Ftrl(), UNKNOWN),
        (lambda: optimizers.Adafactor(), UNKNOWN),
        (lambda: optimizers.Lamb(), UNKNOWN),
    ],
)
def test_optimizer_has_the_rate_of_its_family(optimizer, expected):
    assert usual_rate(optimizer()) == expected


@pytest.mark.skipif(not hasattr(optimizers, "Muon"), reason="Keras has no Muon")
def test_muon_counts_as_adam_if_it_scales_its_steps_to_the_size_of_adams():
    assert usual_rate(optimizers.Muon()) == ADAM
    assert usual_rate(optimizers.Muon(rms_rate=None)) == UNKNOWN


@pytest.mark.skipif(not hasattr(optimizers, "ScheduleFreeAdamW"), reason="Keras has none")
def test_schedule_free_of_keras_is_unknown():
    assert usual_rate(optimizers.ScheduleFreeAdamW()) == UNKNOWN


def test_schedule_free_is_in_the_middle_of_what_its_authors_advise():
    """10 to 50 times SGD's rate with a schedule, 1 to 10 times Adam's (arXiv 2405.15682)."""
    for optimizer, scheduled, (low, high) in (
        (optimizers.SGD(momentum=0.9), "momentum", (10, 50)),
        (optimizers.SGD(momentum=0.5), "momentum", (10, 50)),
        (optimizers.AdamW(), "Adam", (1, 10)),
    ):
        usual, family = usual_rate(ScheduleFree(optimizer))
        peak = usual_rate(scheduled)[0] + ONE_CYCLE  # of a run with a schedule
        middle = peak + (np.log10(low) + np.log10(high)) / 2
        assert abs(usual - middle) < 0.01
        assert usual_rate(family) == usual_rate(f"ScheduleFree[{type(optimizer).__name__}]")
        assert usual_rate(family) == (usual, family)


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        (lambda: optimizers.LossScaleOptimizer(optimizers.Lion()), LION),
        (lambda: LayerwiseLR(optimizers.Adam(), {".*": 0.5}), ADAM),
        (lambda: AdaptiveGains(optimizers.SGD(0.1, momentum=0.9)), MOMENTUM),
        (lambda: Hypergradient(optimizers.SGD(0.1)), SGD),
        (lambda: optimizers.LossScaleOptimizer(AdaptiveGains(optimizers.Adam())), ADAM),
    ],
)
def test_wrapped_optimizer_has_the_rate_of_the_inner_one(wrap, expected):
    assert usual_rate(wrap()) == expected


def test_groups_of_one_family_have_its_rate_and_others_none():
    class Groups:
        def __init__(self, *parts):
            self.optimizers = parts

    assert usual_rate(Groups(optimizers.Adam(), optimizers.AdamW())) == ADAM
    assert usual_rate(Groups(optimizers.Adam(), optimizers.SGD())) == UNKNOWN


def test_subclass_of_a_user_has_the_rate_of_its_base():
    class Mine(optimizers.AdamW):
        pass

    class Other(optimizers.Optimizer):
        pass

    assert usual_rate(Mine()) == ADAM
    assert usual_rate(Other(learning_rate=0.1)) == UNKNOWN


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SGD", SGD),
        ("momentum", MOMENTUM),
        ("Adam", ADAM),
        ("adamw", ADAM),
        ("RMSprop", ADAM),
        ("Lion", LION),
        ("Adadelta", FACTOR),
        ("LayerwiseLR[Adam]", ADAM),
        ("AdaptiveGains[LayerwiseLR[Lion]]", LION),
        ("Lamb", UNKNOWN),
        ("MyAdam", UNKNOWN),
        ("unknown", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_name_of_a_family_or_a_class_has_the_rate(name, expected):
    assert usual_rate(name) == expected
