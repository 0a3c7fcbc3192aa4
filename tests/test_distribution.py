"""Two devices give what one gives, range tests and callbacks: MirroredStrategy, DataParallel."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from models import sampled

elsewhere = pytest.mark.long_elsewhere("processes that compile everything again")

HERE = Path(__file__).parent


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras distributes no training on torch"
)
@pytest.mark.parametrize(
    "part",
    sampled(
        ["distribution", "distribution_finder", "distribution_cli"],
        *("distribution",),
        why="a process that compiles everything again",
    ),
)
def test_two_devices_give_what_one_gives(part):
    job = HERE / f"{part}_job.py"
    result = subprocess.run([sys.executable, job], capture_output=True, text=True, timeout=600)
    assert result.stdout.endswith("passed\n"), result.stderr[-4000:]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX's distributed runtime")
@elsewhere
def test_two_jax_processes_give_what_one_gives():
    first, second = run_processes("jax_processes_job.py", 2)
    (alone,) = run_processes("jax_processes_job.py", 1)
    assert first == second
    shared, single = first.pop("short_runs"), alone.pop("short_runs")
    assert abs(np.log10(shared / single)) < 0.25  # half a step between the rates of short runs
    for name, values in alone.items():
        np.testing.assert_allclose(first[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's strategies")
@elsewhere
def test_multi_worker_strategy_is_refused_as_long_as_fit_fails_under_it():
    first, second = run_processes("multi_worker_job.py", 2)
    assert first == second


def run_processes(job, count):
    """Run a job in processes that find each other at free ports; what each one prints last."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    processes = [
        subprocess.Popen(
            [sys.executable, HERE / job, str(rank), *ports],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        results = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, results, strict=True):
        assert process.returncode == 0, errors[-4000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in results]
