"""Ctrl-C is delayed until the end of a block, or delivered at once if pressed again."""

import signal

import pytest

from keras_lr._util.interrupts import uninterrupted

pytestmark = pytest.mark.once


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("patience", [None, 1])
def test_an_interrupt_waits_until_the_block_is_done(patience):
    steps = []
    with pytest.raises(KeyboardInterrupt), uninterrupted(patience):
        interrupt()
        steps.append("done")
    assert steps == ["done"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_goes_through_at_once_where_patience_is_one():
    steps = []
    with pytest.raises(KeyboardInterrupt) as caught, uninterrupted(1):
        interrupt()
        steps.append("first held back")
        interrupt()
        steps.append("not reached")
    assert steps == ["first held back"]
    assert caught.value.__context__ is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_any_number_of_interrupts_waits_without_a_limit():
    steps = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        for _ in range(3):
            interrupt()
            steps.append("held back")
    assert steps == ["held back"] * 3
