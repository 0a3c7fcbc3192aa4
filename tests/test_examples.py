"""The examples that the README does not run: as a reader would start them, but shorter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.once
def test_fine_tuning_example_compares_every_way_with_one_rate(tmp_path):
    short = ["--seeds", "2", "--rates", "0.01"]
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / "fine_tune_digits.py"), *short],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert len(re.findall(r" points \(.* to .*\)$", run.stdout, flags=re.MULTILINE)) == 6
    assert re.search(r"^one rate everywhere +0\.01\* +[6-9]\d\.\d", run.stdout, re.MULTILINE)
    assert re.search(r"^Over one rate .*multipliers bought", run.stdout, re.MULTILINE)
    assert not any(tmp_path.iterdir())
