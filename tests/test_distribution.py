"""Callbacks on two devices give the weights of one: MirroredStrategy, and DataParallel on JAX."""

import subprocess
import sys
from pathlib import Path

import keras
import pytest


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras distributes no training on torch"
)
def test_two_devices_train_as_one():
    job = Path(__file__).with_name("distribution_job.py")
    result = subprocess.run([sys.executable, job], capture_output=True, text=True, timeout=600)
    assert result.stdout.endswith("passed\n"), result.stderr[-4000:]
