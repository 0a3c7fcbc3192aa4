"""What does a full disk, or a folder that cannot be written, cost?

    python benchmarks/faults/disks.py

Mounts file systems of 64 KiB in a private namespace: one is filled to its last byte, one is
read-only. Each holds an old file of the same name. Then everything that writes a file writes there,
and every command that prints prints to `/dev/full`. Each must report the error in one sentence,
with exit 1 or 2 and no traceback, and must leave the old file and no other file. Results that were
computed must still be printed, unless the file was refused before the run. Needs Linux, and root or
user namespaces; torch, optuna and pillow.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OLD = b"an old file\n"
SEARCH = (
    "search model.keras --data model.npz --low 1e-3 --high 1 --fine-rounds 0 --points 3 "
    "--final-seeds 1 --epochs 1 --no-cache"
).split()
FIND = "find model.keras --data model.npz --steps 30 --seed 0 --no-cache".split()
PREVIEW = "preview one-cycle --max-lr 0.1 --steps 200".split()


@dataclass(frozen=True)
class Case:
    """Something that writes.

    Attributes:
        name: What writes, for the table.
        file: The file that it writes; "" for stdout.
        run: Writes to the path that it gets. A command ends with SystemExit.
        told: Whether it trains, so that its answer must not be lost.
    """

    name: str
    file: str
    run: Callable[[str], Any]
    told: bool = False


def command(*arguments: str) -> Callable[[str], None]:
    def run(path: str) -> None:
        from keras_lr_cli import main

        main([each.replace("PATH", path) for each in arguments], prog_name="keras-lr")

    return run


def save(path: str) -> None:
    _test().save(path)


def picture(path: str) -> None:
    from keras_lr.plotting import save_range_test_plot

    save_range_test_plot(_test(), path)


def _test() -> Any:
    import numpy as np

    import keras_lr

    rates = np.geomspace(1e-6, 1.0, 200)
    return keras_lr.RangeTest(rates, 2.3 - 2.0 / (1 + (3e-3 / rates) ** 1.5) + 40 * rates**2)


def table(path: str) -> None:
    import keras_lr

    keras_lr.preview(keras_lr.OneCycle(0.1), 500).to_csv(path)


def logged(path: str) -> None:
    """A `fit` of three epochs that prints what the logger recorded, and warnings."""
    import warnings

    import jobs
    import keras

    import keras_lr

    warnings.showwarning = lambda message, *_, **__: print(f"Warning: {message}", file=sys.stderr)
    warnings.simplefilter("default")
    warnings.simplefilter("ignore", DeprecationWarning)  # of Keras
    logger = keras_lr.LRLogger(path)
    model = jobs.classifier(keras.optimizers.SGD(0.1))
    x, y = jobs.data(400)
    model.fit(x, y, batch_size=1, epochs=3, verbose=0, callbacks=[logger])
    print(f"{len(logger.history['learning_rate'])} rates of 1200")
    sys.exit(0)


CASES = (
    Case("`find --save`", "curve.json", command(*FIND, "--save", "PATH"), told=True),
    Case("`find --plot`", "curve.png", command(*FIND, "--plot", "PATH"), told=True),
    Case("`find --json`", "", command(*FIND, "--json"), told=True),
    Case("`RangeTest.save`", "curve.json", save),
    Case("`save_range_test_plot`", "curve.png", picture),
    Case("`preview --csv`", "rates.csv", command(*PREVIEW, "--csv", "PATH")),
    Case("`preview --plot`", "rates.png", command(*PREVIEW, "--plot", "PATH")),
    Case("`preview --json`", "", command(*PREVIEW, "--json")),
    Case("`Preview.to_csv`", "rates.csv", table),
    Case("`search --save`", "all.json", command(*SEARCH, "--save", "PATH"), told=True),
    Case("`search --report`", "all.html", command(*SEARCH, "--report", "PATH"), told=True),
    Case("`search --json`", "", command(*SEARCH, "--json"), told=True),
    Case("`search --storage FILE`", "new.sqlite3", command(*SEARCH, "--storage", "PATH")),
    Case("`search --storage journal:`", "new.log", command(*SEARCH, "--storage", "journal:PATH")),
    Case("`diagnose`", "", command("diagnose", "rates.csv")),
    Case("`layers --json`", "", command("layers", "model.keras", "--json")),
    Case("`LRLogger(csv)`", "rates.csv", logged, told=True),
)


@contextlib.contextmanager
def mounted(kind: str, case: Case) -> Iterator[Path]:
    """A small file system with an old file in it, full or read-only."""
    with tempfile.TemporaryDirectory() as place:
        options = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]
        subprocess.run(options, check=True, capture_output=True)
        try:
            if case.file and not case.file.startswith("new"):
                Path(place, case.file).write_bytes(OLD)
            if kind == "read-only":
                remount = ["mount", "-o", "remount,ro", place]
                subprocess.run(remount, check=True, capture_output=True)
            else:
                with contextlib.suppress(OSError), open(Path(place, "filler"), "wb", 0) as file:
                    while file.write(bytes(512)):
                        pass
            yield Path(place)
        finally:
            subprocess.run(["umount", place], check=True, capture_output=True)


def forked(case: Case, path: str, stdout: str, folder: Path) -> tuple[int, str, str]:
    """Run the case in its own process: exit code, stdout, stderr."""
    out, err = folder / "stdout", folder / "stderr"
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.dup2(os.open(stdout or out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        code = 0
        try:
            case.run(path)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except (OSError, ValueError, RuntimeError) as error:  # a function of the library
            print(f"Error: {error}", file=sys.stderr)
            code = 1
        except BaseException:
            traceback.print_exc()
            code = 99
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, "" if stdout else out.read_text(), err.read_text()


def judged(case: Case, kind: str, files: Path) -> tuple[str, bool]:
    """The outcome in words for the table, and whether it is right."""
    import shutil

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "work")
        shutil.copytree(files, folder)
        model = (folder / "model.keras").read_bytes()
        if not case.file:
            code, out, err = forked(case, "", "/dev/full", folder)
            left, old = set(), True
        else:
            with mounted(kind, case) as place:
                before = set(os.listdir(place))
                path = place / case.file
                code, out, err = forked(case, str(path), "", folder)
                left = set(os.listdir(place)) - before
                old = case.file not in before or path.read_bytes() == OLD
                left -= {case.file} if case.file.startswith("new") else set()
        same = (folder / "model.keras").read_bytes() == model
    errors = [line for line in err.splitlines() if line.startswith("Error: ")]
    wrong = []
    if case.run is logged and code == 0:
        # Only the old file may be gone: a new run replaces it, as without a full disk.
        good = "1200 rates of 1200" in out and "Warning: LRLogger could not write" in err
        return ("goes on, warns, keeps all in `history`" if good else f"WRONG {err!r}"), good
    if code not in (1, 2) or len(errors) != 1 or "Traceback" in err:
        wrong.append(f"exit {code}, {err!r}")
    if not old or left or not same:
        wrong.append(f"old file whole: {old}, left: {sorted(left)}, model same: {same}")
    command_ended = case.run is not logged
    before_run = case.told and not out and "The learning rate is" not in err
    answer = "earning rate" in out or "earning rate is" in err
    if case.told and command_ended and not answer and code != 2:
        wrong.append(f"the answer is lost: {err!r}")
    if wrong:
        return f"WRONG: {'; '.join(wrong)}", False
    if before_run:
        return f"exit {code} before the run", True
    where = "on stdout" if out else "on stderr"
    return f"exit {code}" + (f", the answer {where}" if case.told else ""), True


def disks() -> tuple[str, int]:
    """The table as Markdown, and the number of wrong cases."""
    lines = ["| what writes | full | read-only |", "| --- | --- | --- |"]
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        files = Path(place, "files")
        files.mkdir()
        import jobs

        # Not in this process: do not fork from a process that has trained.
        environment = {**os.environ, "KERAS_BACKEND": "torch"}
        prepare = [sys.executable, HERE / "jobs.py", "--prepare", files]
        subprocess.run(prepare, check=True, capture_output=True, env=environment)
        rows = "\n".join(f"{epoch},{2.0 * 0.8**epoch}" for epoch in range(12))
        (files / "rates.csv").write_text(f"epoch,loss\n{rows}\n")
        assert jobs.keras.backend.backend() == "torch"
        for case in CASES:
            cells = []
            for kind in ("full", "read-only") if case.file else ("full",):
                told, good = judged(case, kind, files)
                bad += not good
                cells.append(told)
                print(f"{case.name}, {kind}: {told}", file=sys.stderr)
            name = case.name if case.file else f"{case.name} `> /dev/full`"
            lines.append(f"| {name} | {' | '.join([*cells, '-'][:2])} |")
    return "\n".join(lines), bad


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as place:
        options = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]
        if subprocess.run(options, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", place], check=True)
    return True


def main() -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    if not can_mount():
        inside = ["unshare", "-rm", sys.executable, __file__, "--inside"]
        if "--inside" in sys.argv or subprocess.run(["which", "unshare"], check=False).returncode:
            print("Not run: a file system can be mounted by root alone here.")
            return
        sys.exit(subprocess.run(inside, check=False).returncode)
    text, bad = disks()
    print(text)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
