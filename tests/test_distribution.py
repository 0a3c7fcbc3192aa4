"""Two devices give what one gives, range tests and callbacks: MirroredStrategy, DataParallel."""

import subprocess
import sys
from pathlib import Path

import keras
import pytest


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras distributes no training on torch"
)
@pytest.mark.parametrize("part", ["distribution", "distribution_finder", "distribution_cli"])
def test_two_devices_give_what_one_gives(part):
    job = Path(__file__).with_name(f"{part}_job.py")
    result = subprocess.run([sys.executable, job], capture_output=True, text=True, timeout=600)
    assert result.stdout.endswith("passed\n"), result.stderr[-4000:]
