"""Filter the start-up messages of the backends from stderr, and keep every real message."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator

import click

from .errors import one_line

__all__ = ["filtered_stderr", "short_warnings", "stdout_to_stderr", "tame_loggers"]

# glog lines of level I and W, and the errors that TensorFlow logs on every machine without a GPU.
# All other lines pass, including fatal errors.
CHATTER = re.compile(
    rb"^([IW]\d{4} \d\d:\d\d:"
    rb"|E\d{4} \d\d:\d\d:.*(cuda|cudart|cufft|cublas|computation_placer|cuInit)"
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] "
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions: )"
)
BENIGN = re.compile(r"Skipping variable loading for optimizer .* saved optimizer has 2 variables")


def tame_loggers() -> None:
    """Let the backends log errors only, unless the environment requests more."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.getLogger("absl").setLevel(logging.ERROR)


@contextlib.contextmanager
def filtered_stderr() -> Iterator[None]:
    """Drop glog's start-up lines from file descriptor 2 while a backend is imported.

    C++ code writes there before it reads any setting. A child process reads the pipe, so that
    other lines arrive even if the import kills this process.
    """
    wanted = os.environ.get("TF_CPP_MIN_LOG_LEVEL") in ("0", "1")
    if wanted or not hasattr(os, "fork"):
        yield
        return
    sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        _forward(reader, stderr)
    os.close(reader)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        _wait(child)


def _forward(reader: int, stderr: int) -> None:
    """The child: copy the other lines until the writing end is closed."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        rest = b""
        while block := os.read(reader, 65536):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                if not CHATTER.match(line):
                    os.write(stderr, line + b"\n")
        if rest and not CHATTER.match(rest):
            os.write(stderr, rest)
    finally:
        os._exit(0)


def _wait(child: int) -> None:
    """Wait one second at most: a process that the import started may keep the pipe open."""
    for _ in range(200):
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@contextlib.contextmanager
def short_warnings(quiet: bool = False) -> Iterator[None]:
    """Print Python warnings as one line each, without harmless ones and those for developers."""

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        text = one_line(str(message))
        if not quiet and not BENIGN.search(text):
            click.echo(f"Warning: {text}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for developers in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", developers)
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what a model or a data set prints to stderr: stdout is for the answer."""
    sys.stdout.flush()
    with contextlib.redirect_stdout(sys.stderr):
        yield
