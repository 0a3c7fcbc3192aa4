"""Which rows are held out, and which a part of the data holds."""

import numpy as np
import pytest

from keras_lr._util.stratify import class_labels, stratified_order
from keras_lr.rate_search.split import held_out, part, usual_fraction

pytestmark = pytest.mark.once

LABELS = np.repeat([0, 1, 2], [600, 300, 100])


def test_every_class_gives_its_share():
    kept, judged = held_out(LABELS, 1000, 0.2, seed=0)
    assert np.bincount(LABELS[judged]).tolist() == [120, 60, 20]
    assert np.bincount(LABELS[kept]).tolist() == [480, 240, 80]
    assert np.array_equal(np.sort(np.concatenate([kept, judged])), np.arange(1000))


@pytest.mark.parametrize("fraction", [0.013, 0.1, 0.37, 0.5, 0.99])
def test_a_part_holds_every_class_in_its_share_to_a_row(fraction):
    rows = part(LABELS, 1000, fraction, seed=3)
    assert len(rows) == round(1000 * fraction) and len(set(rows)) == len(rows)
    expected = fraction * np.array([600, 300, 100])
    assert np.all(np.abs(np.bincount(LABELS[rows], minlength=3) - expected) <= 1)


def test_a_larger_part_contains_the_smaller_one():
    small, large = part(LABELS, 1000, 0.2, 1), part(LABELS, 1000, 0.45, 1)
    assert set(small) < set(large)


def test_seeds_choose_and_repeat():
    assert np.array_equal(part(LABELS, 1000, 0.2, 1), part(LABELS, 1000, 0.2, 1))
    assert not np.array_equal(part(LABELS, 1000, 0.2, 1), part(LABELS, 1000, 0.2, 2))
    assert not np.array_equal(part(LABELS, 1000, 0.2, 1), np.arange(200))


def test_within_a_class_the_rows_are_drawn_at_random():
    first = [part(LABELS, 1000, 0.1, seed)[0] for seed in range(40)]
    assert len(set(first)) > 10


@pytest.mark.parametrize(
    "y",
    [LABELS, LABELS[:, None], LABELS.astype(float), np.eye(3)[LABELS], LABELS.astype("uint8")],
    ids=["whole", "column", "float", "one of three", "bytes"],
)
def test_classes_are_known_in_every_usual_form(y):
    assert np.array_equal(class_labels(y, 1000), LABELS)


@pytest.mark.parametrize(
    "y",
    [
        None,
        np.linspace(0, 1, 1000),
        np.arange(1000),
        np.zeros((1000, 4)) + 0.25,
        {"a": LABELS},
        np.zeros((1000, 2, 2)),
    ],
    ids=["none", "real", "all different", "shares", "several", "images"],
)
def test_what_is_no_class_is_split_at_random(y):
    assert class_labels(y, 1000) is None
    kept, judged = held_out(y, 1000, 0.2, seed=0)
    assert len(judged) == 200 and len(kept) == 800 and not set(kept) & set(judged)


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_few_rows_leave_one_on_each_side(rows):
    kept, judged = held_out(None, rows, 0.2, 0)
    assert len(kept) >= 1 and len(judged) >= 1 and len(kept) + len(judged) == rows
    kept, judged = held_out(None, rows, 0.95, 0)
    assert len(kept) >= 1


def test_a_class_of_one_row_is_trained_on():
    labels = np.array([0] * 99 + [1])
    kept, _ = held_out(labels, 100, 0.2, seed=0)
    assert 99 in kept


def test_order_begins_with_all_classes():
    order = stratified_order(LABELS, 1000, 0)
    assert sorted(order) == list(range(1000))
    assert set(LABELS[order[:10]]) == {0, 1, 2}


def test_usual_fraction():
    assert usual_fraction(1_000_000) == 0.2
    assert usual_fraction(10_000) == 0.2
    assert usual_fraction(4_000) == 0.5
    assert usual_fraction(1_500) == 1.0


@pytest.mark.parametrize("rows", [60, 62, 1000])
def test_devices_get_equal_shares_of_what_is_held_out_and_of_a_part(rows):
    labels = np.arange(rows) % 3
    kept, judged = held_out(labels, rows, 0.2, 0, by=4)
    assert len(judged) % 4 == 0 and abs(len(judged) - 0.2 * rows) <= 2
    assert len(kept) + len(judged) == rows
    chosen = part(labels, rows, 0.33, 0, by=4)
    assert len(chosen) % 4 == 0 and abs(len(chosen) - 0.33 * rows) <= 2
    assert len(held_out(labels, rows, 0.001, 0, by=4)[1]) == 4
    assert len(held_out(labels, rows, 0.999, 0, by=4)[0]) >= 4
