"""Show by mutation that `make test` finds what `make test-all` finds: `make mutants`.

Each mutant is one small fault in a copy of the sources. The tests of the files that belong to it
run on the copy: first those of `make test`, which should fail; if they pass, those that only
`make test-all` runs. A mutant that the long suite alone kills means that a test has the wrong mark.

    python tests/mutants.py            all mutants
    python tests/mutants.py NAME ...   these

Each runs on one core; `PYTEST_ADDOPTS="-n 2"` spreads the tests over two.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The marks of the Makefile: what `make test` runs on the first backend, and on the others.
FIRST = "not long"
OTHERS = "not (long or long_elsewhere or once)"


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file`, `new` stands for `old`, which the file has once.

    Args:
        name: What the fault does, for the table.
        tests: The test files that know the code, without `test_` and `.py`; the closest first.
        backend: Where the faulty code runs.
    """

    part: str
    name: str
    file: str
    old: str
    new: str
    tests: str
    backend: str = "torch"

    def faulty(self, text: str) -> str:
        if text.count(self.old) != 1:
            raise ValueError(
                f"The mutant {self.name!r} needs a text that {self.file} has once; it has it "
                f"{text.count(self.old)} times."
            )
        return text.replace(self.old, self.new)


STEERING, SNAPSHOT, RULES = "keras_lr/steering", "keras_lr/_keras", "keras_lr/range_test"
SEARCH = "keras_lr/rate_search"
MUTANTS = [
    Mutant(
        *("steering", "bounds apply to the warmed-up rate", f"{STEERING}/composition.py"),
        "return rate if warm_up is None else rate * warm_up",
        "return rate if warm_up is None else array.maximum(rate * warm_up, self.low)",
        "composition warm_up reduce_lr_on_plateau preview",
    ),
    Mutant(
        *(
            "steering",
            "a schedule reads the first batch of an update",
            f"{STEERING}/composition.py",
        ),
        "return update * self.batches + (self.batches - 1)",
        "return update * self.batches",
        "callbacks steering composition",
    ),
    Mutant(
        *("steering", "a scale begins one update late", f"{STEERING}/accounting.py"),
        "result[updates >= since] = scales[index]",
        "result[updates > since] = scales[index]",
        "reduce_lr_on_plateau halve_on_divergence",
    ),
    Mutant(
        *("steering", "the scale is lost when a run goes back", f"{STEERING}/accounting.py"),
        "self._scales = [*earlier, (done, self._scales[-1][1])]",
        "self._scales = earlier or [(0, np.ones(len(self.bindings)))]",
        "halve_on_divergence reduce_lr_on_plateau",
    ),
    Mutant(
        *("steering", "a resumed run begins at the counter's 0", f"{STEERING}/backup.py"),
        "return int(starts.get(name, next(iter(starts.values()))))",
        "return 0",
        "composition resume",
    ),
    Mutant(
        *("steering", "what others assign in a fit is lost", f"{STEERING}/binding.py"),
        "if getattr(self.optimizer, name) is self._put[name]:",
        "if name in self._put:",
        "fit_lifecycle",
    ),
    Mutant(
        *(
            "steering",
            "the table of values ignores the optimizer's own count",
            f"{STEERING}/value_table.py",
        ),
        "if not 0 <= index < len(self._values) or ahead != self._ahead:",
        "if not 0 <= index < len(self._values):",
        "own_optimizers composition",
    ),
    Mutant(
        *("steering", "JAX compiles the scales as constants", f"{STEERING}/backends/jax.py"),
        "return (self.scales if self._traced is None else self._traced[1])[index]",
        "return self.scales[index]",
        "reduce_lr_on_plateau composition",
        "jax",
    ),
    Mutant(
        *("steering", "a kept step ignores other curves", f"{STEERING}/backends/kept_step.py"),
        "if step is None or step.curves != curves or not",
        "if step is None or not",
        "kept_step",
        "jax",
    ),
    Mutant(
        *("steering", "TensorFlow counts on in the next fit", f"{STEERING}/backends/tensorflow.py"),
        "        self._count.assign(self._first)\n",
        "",
        "kept_step contract",
        "tensorflow",
    ),
    Mutant(
        *("snapshot", "random generators go on", f"{SNAPSHOT}/snapshot.py"),
        "        self._random.restore()\n",
        "",
        "restore restore_stateful",
    ),
    Mutant(
        *("snapshot", "arrays beside variables stay changed", f"{SNAPSHOT}/snapshot.py"),
        "        self._tensors_before.restore()\n",
        "",
        "restore_stateful restore",
    ),
    Mutant(
        *("snapshot", "new variables go unnoticed", f"{SNAPSHOT}/snapshot.py"),
        "return any(id(each) not in known for each in variables)",
        "return False",
        "restore_stateful restore probes finder_build",
    ),
    Mutant(
        *("snapshot", "Python state is not rewound between runs", f"{SNAPSHOT}/snapshot.py"),
        "        self._start.rewind()\n",
        "",
        "restore_stateful restore short_runs",
    ),
    Mutant(
        *("snapshot", "a layer that training froze stays frozen", f"{SNAPSHOT}/python_state.py"),
        "if variable.trainable != trainable:",
        "if variable.trainable is None:",
        "restore restore_stateful",
    ),
    Mutant(
        *("snapshot", "JAX trains in the memory of the copy", f"{SNAPSHOT}/values.py"),
        "group = values[start:end] if last else [value.copy() for value in values[start:end]]",
        "group = values[start:end]",
        "restore restore_stateful short_runs range_test",
        "jax",
    ),
    Mutant(
        *("rules", "spikes do not count as uneven", f"{RULES}/curve_rule.py"),
        "if unevenness > 1.0 or ((open_end or spiky) and unevenness > UNEVEN):",
        "if unevenness > 1.0 or (open_end and unevenness > UNEVEN):",
        "rules range_test_reasons",
    ),
    Mutant(
        *("rules", "a record that data ended may still fall", f"{RULES}/rules.py"),
        "if narrow or STILL_FALLING in found.warnings:",
        "if narrow:",
        "rules range_test_reasons",
    ),
    Mutant(
        *("rules", "a minimum at the start counts as a fall", f"{RULES}/landmarks.py"),
        "return curve.fall > sure and curve.bottom >= len(curve.rates) // 8",
        "return curve.fall > sure",
        "rules range_test_reasons",
    ),
    Mutant(
        *("rules", "ktrain's rule begins one point early", f"{RULES}/other_rules.py"),
        "smoothed[32 : smoothed.argmin()]",
        "smoothed[31 : smoothed.argmin()]",
        "rules",
    ),
    Mutant(
        *("plan", "one-cycle keeps another warm-up", f"{SEARCH}/plan.py"),
        "changed = replace(changed, warmup=0.0)",
        "pass",
        "search_plan search",
    ),
    Mutant(
        *("plan", "the budget ends one run early", f"{SEARCH}/plan.py"),
        "if (before or jobs) and spent + job.fraction > self.design.max_runs:",
        "if (before or jobs) and spent + job.fraction >= self.design.max_runs:",
        "search_plan search_study",
    ),
    Mutant(
        *("plan", "the t-test has a degree of freedom too many", f"{SEARCH}/evidence.py"),
        "student_t(len(differences) - 1) * error",
        "student_t(len(differences)) * error",
        "search_plan search_result search",
    ),
    Mutant(
        *("plan", "the parabola compares different seeds", f"{SEARCH}/valley.py"),
        "levels = [(run.job.fraction, run.job.epochs, run.job.seed) for run in finished]",
        "levels = [(run.job.fraction, run.job.epochs) for run in finished]",
        "search_valley",
    ),
    Mutant(
        *("transfer", "short runs count the decay", f"{RULES}/planned_run.py"),
        "    left *= run.total_steps > NEUTRAL_STEPS\n",
        "",
        "planned_run find_warmup",
    ),
    Mutant(
        *("transfer", "a long tail of tiny rates counts", f"{RULES}/planned_run.py"),
        "shape_bound(shape[later >= _TAIL * later[0]])",
        "shape_bound(shape)",
        "planned_run",
    ),
    Mutant(
        *("transfer", "a momentum scales the rate the wrong way", f"{SEARCH}/plan.py"),
        "rate *= (1 - value) / (1 - best.momentum)",
        "rate *= (1 - best.momentum) / (1 - value)",
        "search_plan",
    ),
]


@contextmanager
def copied_sources() -> Iterator[Path]:
    """A copy of the tracked files, in which the packages can be imported."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        (copy / "keras_lr_cli").symlink_to("cli")
        yield copy


def run_tests(copy: Path, mutant: Mutant, marks: str) -> tuple[int, str]:
    """Run tests of the mutant until one fails: pytest's exit status, and the test that failed."""
    settings = {
        "KERAS_BACKEND": mutant.backend,
        "PYTHONPATH": os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "MPLBACKEND": "agg",
    }
    files = [f"tests/test_{name}.py" for name in mutant.tests.split()]
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*pytest, "-m", marks, *files],
        cwd=copy,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )
    failed = re.search(r"^(?:FAILED|ERROR) tests/test_(.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1, 5) or (done.returncode == 1 and not failed):
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.returncode, failed[1] if failed else ""


def judge(copy: Path, mutant: Mutant) -> tuple[str, str]:
    """The suite that kills a mutant: "short", "long" or "none"; and its first test that fails."""
    path = copy / mutant.file
    text = path.read_text("utf-8")
    path.write_text(mutant.faulty(text), "utf-8")
    try:
        short = FIRST if mutant.backend == "torch" else OTHERS
        status, test = run_tests(copy, mutant, short)
        if status == 1:
            return "short", test
        status, test = run_tests(copy, mutant, f"not ({short})")
        return ("long", test) if status == 1 else ("none", "")
    finally:
        path.write_text(text, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of the names of mutants; by default all")
    names = parser.parse_args().names
    chosen = [m for m in MUTANTS if not names or any(n in f"{m.part}: {m.name}" for n in names)]
    if not chosen:
        parser.error(f"No mutant has {' or '.join(names)} in its name.")
    counts = {"short": 0, "long": 0, "none": 0}
    print("| part | fault | backend | killed by | first test that fails | seconds |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    with copied_sources() as copy:
        for mutant in chosen:
            begun = time.perf_counter()
            suite, test = judge(copy, mutant)
            counts[suite] += 1
            cells = [mutant.part, mutant.name, mutant.backend, suite, f"`{test}`" if test else ""]
            print(f"| {' | '.join(cells)} | {time.perf_counter() - begun:.0f} |", flush=True)
    print(
        f"\n{len(chosen)} mutants: {counts['short']} killed by `make test`, {counts['long']} by "
        f"`make test-all` only, {counts['none']} by neither."
    )
    return int(counts["short"] < len(chosen))


if __name__ == "__main__":
    raise SystemExit(main())
