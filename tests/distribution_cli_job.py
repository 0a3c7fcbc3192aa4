"""Runs `keras-lr find --distribute` on two devices and compares with one; prints `passed`.

Run by test_distribution.py in a process of its own.
"""

import os
import tempfile
from pathlib import Path

import keras
import numpy as np
import two_devices
from command_line import refused, run, write_files

import keras_lr

HOW = {"tensorflow": "mirrored", "jax": "data-parallel"}[two_devices.BACKEND]


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_files(Path(folder))
        find = ["find", "model.keras", "--batch-size", 16, "--steps", 30, "--no-shuffle"]
        if HOW == "data-parallel":
            text = refused(*find[:3], 15, "--distribute", HOW)
            assert "multiple of the number of devices, 2; got 15" in text, text
            data = np.load("model.npz")  # 63 rows: of batches of 16, the last has 15
            np.savez("odd.npz", x=data["x"][:63], y=data["y"][:63])
            odd = ["--data", "odd.npz", "--validation", "odd.npz"]
            result = run(*find, *odd, "--distribute", HOW)
            assert result.exit_code == 0, result.stderr
            assert result.stderr.count("The last row is left out of 63, so that 2 devices") == 2
        tests = []
        for options in ([], ["--distribute", HOW]):
            result = run(*find, *options, "--seed", 1, "--save", "test.json")
            assert result.exit_code == 0, result.stderr
            tests.append(keras_lr.RangeTest.load("test.json"))
        one, two = tests
        np.testing.assert_allclose(two.losses[:20], one.losses[:20], rtol=1e-5)
        # The order of a sum shows in the last bits: both devices took part.
        assert not np.array_equal(two.losses, one.losses)
        assert keras.distribution.distribution() is None  # the command has ended
    print("passed")


if __name__ == "__main__":
    main()
