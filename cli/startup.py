"""Import Keras on the right backend, quickly."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import stat
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from .errors import BadInput, RunFailed, one_line
from .quiet import filtered_stderr, tame_loggers

__all__ = ["BACKENDS", "hidden", "start"]

BACKENDS = ("tensorflow", "jax", "torch")
INSTALL = {backend: f"pip install {backend}" for backend in BACKENDS}
CACHE_LIMIT = 512 * 2**20


def start(
    backend: str | None = None,
    *,
    cache: bool = True,
    lean: bool = True,
    prefer: str | None = None,
) -> str:
    """Import Keras and return the name of its backend.

    Args:
        backend: The backend to use. `None` takes KERAS_BACKEND, then the backend in keras.json,
            then one that is installed.
        cache: On JAX, keep compiled programs in the user's cache folder.
        lean: Hide packages that Keras imports but does not need, which saves a second. Pass False
            if code of the user runs.
        prefer: For a command that does not train: "numpy", which starts fastest, or "jax". It is
            used if KERAS_BACKEND is not set and JAX is installed, which Keras's NumPy backend
            needs.

    Raises:
        BadInput: If the backend is unknown or not installed, or Keras runs on another one.
        RunFailed: If the backend is installed but its import fails.
    """
    if "keras" in sys.modules:
        import keras

        running = str(keras.backend.backend())
        if backend not in (None, running):
            raise BadInput(f"Keras already runs on {running}, not on the {backend} of --backend.")
        return running
    backend = _choose(backend) if prefer is None else _choose_to_compute(prefer)
    os.environ["KERAS_BACKEND"] = backend
    if backend == "jax" and cache:
        _keep_compiled_programs()
    try:
        with (
            _announced(f"Loading Keras on {backend} ..."),
            filtered_stderr(),
            hidden("sklearn", "pandas", "matplotlib") if lean else contextlib.nullcontext(),
        ):
            tame_loggers()
            import keras
    except ImportError as error:
        if error.name == "keras":
            raise BadInput("Keras is not installed; pip install keras.") from error
        raise RunFailed(
            f"Keras could not be imported on {backend}: {one_line(error)}. "
            f"To reinstall: {INSTALL.get(backend, INSTALL['jax'])}."
        ) from error
    except Exception as error:
        raise RunFailed(f"Keras could not be imported on {backend}: {one_line(error)}") from error
    return backend


def _choose(requested: str | None) -> str:
    by = "--backend"
    if requested is None:
        requested, by = os.environ.get("KERAS_BACKEND") or None, "KERAS_BACKEND"
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if not installed:
        choices = ", or ".join(INSTALL.values())
        raise BadInput(f"No backend of Keras is installed; install one: {choices}.")
    if requested is not None:
        if requested not in BACKENDS:
            names = ", ".join(BACKENDS)
            raise BadInput(f"{by} must be one of {names}; got {requested}.")
        if requested not in installed:
            raise BadInput(
                f"{by} is {requested}, which is not installed: {INSTALL[requested]}, "
                f"or use {' or '.join(installed)}."
            )
        return requested
    usual = _backend_of_settings()
    if usual in installed:
        return usual
    click.echo(f"{usual} is not installed; using {installed[0]}.", err=True)
    return installed[0]


def _choose_to_compute(preferred: str) -> str:
    requested = os.environ.get("KERAS_BACKEND") or None
    if requested == "numpy":
        return requested
    return preferred if requested is None and importlib.util.find_spec("jax") else _choose(None)


def _backend_of_settings() -> str:
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
        name = json.loads((home / "keras.json").read_text()).get("backend")
        if name in BACKENDS:
            return str(name)
    return "tensorflow"


@contextlib.contextmanager
def _announced(text: str) -> Iterator[None]:
    """Show the text in a terminal during the block, which takes seconds."""
    if not sys.stderr.isatty():
        yield
        return
    click.echo(text, nl=False, err=True)
    try:
        yield
    finally:
        click.echo(f"\r{' ' * len(text)}\r", nl=False, err=True)


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Make `import name` fail in the block for packages that are not imported yet."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, 0) is None:
                del sys.modules[name]


def _keep_compiled_programs() -> None:
    """Give JAX a persistent cache that only this user can write to, unless one is set.

    JAX runs its content as code, so the folder must belong to the user and be closed to others.
    Its name holds the versions and the processor, so that machines can share a home folder.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not hasattr(os, "getuid"):
        return
    folder = _cache_home() / "keras-lr" / f"jax-{_fingerprint()}"
    try:
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        if not _is_own(folder.parent):
            return
        folder.parent.chmod(0o700)  # older versions applied the umask
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _is_own(folder) or stat.S_IMODE(folder.stat().st_mode) & 0o022:
            return
        _prune(folder.parent)
    except OSError:
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def _is_own(folder: Path) -> bool:
    """Whether `folder` is a folder of this user, not a link to one."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _cache_home() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"


def _fingerprint() -> str:
    parts = [platform.machine(), platform.processor(), os.environ.get("XLA_FLAGS", "")]
    for package in ("jax", "jaxlib", "keras"):
        with contextlib.suppress(PackageNotFoundError):
            parts.append(version(package))
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        parts += [line for line in lines if line.startswith(("model name", "flags"))][:2]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _prune(folder: Path) -> None:
    """Delete the oldest entries if the cache exceeds its limit."""
    entries = [(file.stat(), file) for file in folder.glob("*/*") if file.is_file()]
    size = sum(status.st_size for status, _ in entries)
    if size > CACHE_LIMIT:
        for status, file in sorted(entries, key=lambda entry: entry[0].st_mtime):
            file.unlink(missing_ok=True)
            size -= status.st_size
            if size < CACHE_LIMIT / 2:
                break
