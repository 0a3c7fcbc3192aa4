"""The import of Keras: the backend, the cache, and what is kept off stderr."""

import importlib.util
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from keras_lr_cli import startup
from keras_lr_cli.errors import BadInput
from keras_lr_cli.quiet import CHATTER

pytestmark = pytest.mark.once


def test_tensorflow_is_the_usual_backend(installed):
    installed("tensorflow", "jax", "torch")
    assert startup._choose(None) == "tensorflow"


def test_keras_settings_name_the_backend(installed, tmp_path):
    installed("tensorflow", "jax", "torch")
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "torch"}))
    assert startup._choose(None) == "torch"


def test_environment_beats_settings_and_option_beats_environment(installed, monkeypatch):
    installed("tensorflow", "jax", "torch")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert startup._choose(None) == "jax"
    assert startup._choose("torch") == "torch"


@pytest.mark.parametrize(("present", "chosen"), [(("jax", "torch"), "jax"), (("torch",), "torch")])
def test_without_tensorflow_what_is_installed_is_used_and_named(installed, capsys, present, chosen):
    installed(*present)
    assert startup._choose(None) == chosen
    assert capsys.readouterr().err == f"tensorflow is not installed; using {chosen}.\n"


def test_without_any_backend_the_message_says_what_to_install(installed):
    installed()
    with pytest.raises(BadInput, match=r"No backend .* pip install tensorflow, or"):
        startup._choose(None)


def test_a_named_backend_that_is_missing_is_not_replaced(installed):
    installed("torch")
    with pytest.raises(BadInput, match=r"--backend is jax, which is not installed.*use torch"):
        startup._choose("jax")


@pytest.mark.parametrize("name", ["numpy", "openvino", "mxnet"])
def test_a_backend_that_cannot_train_is_refused(installed, monkeypatch, name):
    installed("tensorflow")
    monkeypatch.setenv("KERAS_BACKEND", name)
    with pytest.raises(BadInput, match=f"KERAS_BACKEND must be one of .*; got {name}"):
        startup._choose(None)


def test_hidden_packages_can_be_imported_again_afterwards():
    name = "colorsys"  # of the standard library, imported by nothing here
    sys.modules.pop(name, None)
    with startup.hidden(name, "json"):
        with pytest.raises(ImportError):
            importlib.import_module(name)
        assert sys.modules["json"] is json
    assert importlib.import_module(name).rgb_to_hsv
    assert sys.modules["json"] is json


def test_packages_are_restored_when_the_import_fails():
    sys.modules.pop("colorsys", None)
    with pytest.raises(ZeroDivisionError), startup.hidden("colorsys"):
        raise ZeroDivisionError
    assert "colorsys" not in sys.modules


@pytest.fixture
def cache_home(monkeypatch, tmp_path):
    for name in (
        "JAX_COMPILATION_CACHE_DIR",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES",
    ):
        monkeypatch.setenv(name, "")  # so that what is set below is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


linux = pytest.mark.skipif(sys.platform != "linux", reason="the folder is elsewhere")


@linux
def test_compiled_programs_go_to_a_folder_that_only_the_user_can_write(cache_home):
    startup._keep_compiled_programs()
    folder = cache_home / "keras-lr" / f"jax-{startup._fingerprint()}"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@linux
@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077, 0o000])
def test_the_cache_is_used_under_every_umask(cache_home, mask):
    previous = os.umask(mask)
    try:
        startup._keep_compiled_programs()
    finally:
        os.umask(previous)
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    for place in (folder, folder.parent):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700


@linux
def test_a_cache_folder_that_an_older_version_left_open_is_closed_and_used(cache_home):
    folder = cache_home / "keras-lr"
    folder.mkdir()
    folder.chmod(0o775)
    startup._keep_compiled_programs()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "JAX_COMPILATION_CACHE_DIR" in os.environ


@linux
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_compiled_programs_that_others_can_write_to_are_not_used(cache_home, mode):
    folder = cache_home / "keras-lr" / f"jax-{startup._fingerprint()}"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    startup._keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@linux
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root")
@pytest.mark.parametrize("whose", ["keras-lr", "jax"])
def test_a_cache_of_another_user_is_not_used(cache_home, whose):
    folder = cache_home / "keras-lr" / f"jax-{startup._fingerprint()}"
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder if whose == "jax" else folder.parent, 65534, 65534)
    startup._keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@linux
def test_a_cache_behind_a_link_is_not_used(cache_home, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (cache_home / "keras-lr").symlink_to(tmp_path / "elsewhere")
    startup._keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_a_cache_of_the_user_stays(cache_home, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    startup._keep_compiled_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"
    assert not (cache_home / "keras-lr").exists()


@linux
def test_the_oldest_programs_go_when_the_cache_outgrows_its_limit(cache_home, monkeypatch):
    monkeypatch.setattr(startup, "CACHE_LIMIT", 1000)
    folder = cache_home / "keras-lr" / "jax-of-an-older-version"
    folder.mkdir(parents=True, mode=0o700)
    for age in range(6):
        (folder / f"{age}").write_bytes(b"x" * 200)
        os.utime(folder / f"{age}", (1e9 - age, 1e9 - age))
    startup._prune(cache_home / "keras-lr")
    assert sorted(file.name for file in folder.iterdir()) == ["0", "1"]


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1795315573.804625    4156 cudart_stub.cc:31] Could not find cuda drivers",
        "E0000 00:00:1795315582.960052    4156 cuda_platform.cc:52] failed call to cuInit: ",
        "2025-01-01 10:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN custom operations",
        "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow",
    ],
)
def test_chatter_is_known(line):
    assert CHATTER.match(line.encode())


@pytest.mark.parametrize(
    "line",
    [
        "F0000 00:00:1795315573.804625    4156 cpu_feature_guard.cc:31] The TensorFlow library was",
        "E0000 00:00:1795315573.804625    4156 bfc_allocator.cc:31] out of memory",
        "ImportError: libcudnn.so.9: cannot open shared object file",
        "Segmentation fault",
    ],
)
def test_a_real_message_is_not_chatter(line):
    assert not CHATTER.match(line.encode())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("ending", ["", "os.abort()", "raise ImportError('no libfoo')"])
def test_real_messages_of_an_import_arrive_even_when_it_kills_the_process(ending):
    code = f"""
import os
from keras_lr_cli.quiet import filtered_stderr
with filtered_stderr():
    os.write(2, b"I0000 00:00:1.5 1 a.cc:1] chatter\\nreal message\\nlast words")
    {ending or "pass"}
os.write(2, b"; and after")
"""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-X", "faulthandler=0", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert "chatter" not in done.stderr
    assert "real message\nlast words" in done.stderr
    assert (done.returncode == 0) == (not ending)
    assert done.stderr.endswith("; and after") == (not ending)


def test_logs_that_the_user_asked_for_are_not_filtered():
    code = """
import os
from keras_lr_cli.quiet import filtered_stderr
with filtered_stderr():
    os.write(2, b"I0000 00:00:1.5 1 a.cc:1] wanted")
"""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "wanted" in done.stderr
