# make demo   run a range test on a real model; needs only python3 >= 3.10
# make test   run lint, type checks, and the tests for each change, on three backends
# make test-all  run all tests on three backends, on the lowest versions and on keras-nightly (hours)
# make mutants  show that `make test` finds the faults in a list that `make test-all` finds
# make nightly  check that keras-nightly still has the private parts of Keras used here; never fails
# make bench  repeat the measurements and update their tables (hours); BENCH=suggestion for one
# make docs   build the documentation, strict: build/site/index.html
# make examples   run the examples; BACKEND=torch selects the backend
# make notebook   run the notebooks of examples/ again and save their outputs
# All targets share $(VENV); stamp files in it record what is installed.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BACKENDS ?= torch jax tensorflow
BENCH ?=
BACKEND ?= tensorflow
MUTANTS ?=
EXAMPLES ?= digits_find one_cycle cyclic large_batch fine_tune_digits search_digits

BIN := $(VENV)/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONUNBUFFERED=1
TEST_ENV := OMP_NUM_THREADS=1 TF_CPP_MIN_LOG_LEVEL=3 MPLBACKEND=agg
SOURCES := keras_lr cli tests examples docs $(wildcard benchmarks)

.PHONY: help demo test test-all lint format suite suite-all lowest lowest-all nightly mutants bench docs examples notebook clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is required.")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.package: setup.cfg pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -e ".[tensorflow]"
	touch $@

$(VENV)/.demo: examples/requirements.txt | $(VENV)/.package
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r $<
	touch $@

$(VENV)/.test: requirements/test.txt setup.cfg pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r $< -e .
	touch $(VENV)/.package $@

$(VENV)/.bench: requirements/bench.txt | $(VENV)/.test
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r $<
	touch $@

demo: $(VENV)/.package $(VENV)/.demo
	mkdir -p demo
	$(RUN) $(BIN)/python examples/digits_model.py demo/digits.keras
	$(RUN) $(BIN)/keras-lr find demo/digits.keras --data demo/digits.npz --seed 0 \
		--plot demo/digits.png --save demo/digits.json
	@echo "The plot is demo/digits.png, the curve demo/digits.json."

# A part that fails does not hide the others.
test:
	@$(MAKE) --no-print-directory --keep-going lint suite lowest; status=$$?; \
		echo "Left out: the tests with the marks long and long_elsewhere. To run all: make test-all"; \
		exit $$status

test-all:
	@$(MAKE) --no-print-directory --keep-going lint suite-all lowest-all nightly

lint: $(VENV)/.test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

$(VENV)/.lowest: requirements/lowest.txt | $(VENV)/.test
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --no-deps \
		--upgrade --target $(VENV)/lowest -r $<
	touch $@

# The marks of `make test` on the first backend, which starts fastest, and on the others.
FIRST := not long
OTHERS := not (long or long_elsewhere or once)

# Run pytest on all backends, also after a failure: with the marks $(1) on the first, $(2) on the others.
define on_backends
	@marks="$(1)"; failed=""; for backend in $(BACKENDS); do \
		echo "== pytest on $$backend"; \
		$(RUN) $(TEST_ENV) KERAS_BACKEND=$$backend \
			$(BIN)/python -m pytest -q -n $(JOBS) -m "$$marks" || failed="$$failed $$backend"; \
		marks="$(2)"; \
	done; \
	test -z "$$failed" || { echo "pytest failed on:$$failed"; exit 1; }
endef

suite: $(VENV)/.test
	$(call on_backends,$(FIRST),$(OTHERS))

suite-all: $(VENV)/.test
	$(call on_backends,,not once)

# The versions of requirements/lowest.txt precede the pinned ones on the path. Tests of texts,
# examples and benchmarks are skipped, and slow tests that kill processes.
NOT_LOWEST := test_benchmark_* test_examples.py test_packaging.py test_pages.py test_readme.py \
	test_reference.py test_resume.py test_search_workers.py
# Where the versions differ: private parts of Keras, steering, snapshot, options of click, Optuna.
SMOKE := keras_private contract steering fit_lifecycle restore cli_help cli_models search \
	search_study

on_lowest = PYTHONPATH="$(CURDIR)/$(VENV)/lowest" $(RUN) $(TEST_ENV) KERAS_BACKEND=torch \
	$(BIN)/python -m pytest -q -n $(JOBS)

lowest: $(VENV)/.lowest
	@echo "== pytest on torch, with the lowest versions of setup.cfg: a part of the tests"
	@$(on_lowest) -m "$(FIRST)" $(SMOKE:%=tests/test_%.py)

lowest-all: $(VENV)/.lowest
	@echo "== pytest on torch, with the lowest versions of setup.cfg"
	@$(on_lowest) $(NOT_LOWEST:%=--ignore-glob='tests/%')

mutants: $(VENV)/.test
	$(RUN) $(BIN)/python tests/mutants.py $(MUTANTS)

# A look ahead, which the result of `make test` does not depend on: the newest keras-nightly may
# have lost a private part that keras_lr/_keras uses. It is installed anew each time.
nightly: $(VENV)/.test
	@echo "== the private parts of Keras, on keras-nightly"
	@rm -rf $(VENV)/nightly
	@if $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --pre \
			--retries 1 --target $(VENV)/nightly keras-nightly; then \
		for backend in $(BACKENDS); do \
			PYTHONPATH="$(CURDIR)/$(VENV)/nightly" $(RUN) $(TEST_ENV) KERAS_BACKEND=$$backend \
				$(BIN)/python -m pytest -q tests/test_keras_private.py \
				|| echo "keras-nightly fails on $$backend; this does not fail the build."; \
		done; \
	else \
		echo "keras-nightly cannot be installed here: not tested."; \
	fi

bench: $(VENV)/.bench
	$(RUN) $(BIN)/python benchmarks/tables.py $(BENCH)

# A broken link, a page outside of the contents or a docstring that griffe cannot read fails.
docs: $(VENV)/.test
	$(RUN) $(TEST_ENV) $(BIN)/python docs/cli_reference.py --check
	$(RUN) NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The examples write to demo/.
examples: $(VENV)/.test
	mkdir -p demo
	@set -e; cd demo; for example in $(EXAMPLES); do \
		echo "== $$example on $(BACKEND)"; \
		KERAS_BACKEND=$(BACKEND) $(CURDIR)/$(BIN)/python ../examples/$$example.py; \
	done

notebook: $(VENV)/.test
	$(RUN) $(TEST_ENV) KERAS_BACKEND=jax $(BIN)/python examples/make_tour.py
	$(RUN) $(TEST_ENV) KERAS_BACKEND=jax $(BIN)/python examples/make_notebooks.py

clean:
	rm -rf demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
