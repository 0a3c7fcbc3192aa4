"""Set one backend and one thread for the test process, before anything imports Keras."""

import importlib
import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest
from databases import postgres as postgres
from databases import storage as storage

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".pytest_cache"
# Tests share the damaged files and the full disks of benchmarks/faults.
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "faults")]

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch in parallel tests thrashes otherwise
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # results are bit-identical on a CPU only
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")
# Tests on JAX spend most of their time compiling, often the same program twice.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # as JAX's own suite does
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Require a reason for a test that `make test` leaves out."""
    for item in items:
        for name in ("long", "long_elsewhere"):
            for mark in item.iter_markers(name):
                if not (len(mark.args) == 1 and isinstance(mark.args[0], str) and mark.args[0]):
                    raise pytest.UsageError(
                        f"The mark {name} must have a reason; got {mark.args} for {item.nodeid}. "
                        f'Write it as @pytest.mark.{name}("why").'
                    )


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Pretend that only these backends are installed, and that Keras has no settings file."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def only(*names):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in names or None)

    return only


@pytest.fixture
def script(request, monkeypatch):
    """Import a script of the benchmark in `FOLDER` of the test's module; forget it afterwards."""
    folder = request.module.FOLDER
    monkeypatch.syspath_prepend(str(folder))
    for file in Path(folder).glob("*.py"):  # another benchmark has a script of the same name
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if folder in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
            del sys.modules[name]
