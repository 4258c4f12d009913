# Every target works from an empty environment: it first builds .venv from constraints.txt, with
# LOCKED=1 from the lock files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUNS := $(VENV)/.runs
LOWEST := .venv-lowest
LENSKIT := .venv-lenskit
LOCKS := $(if $(LOCKED),requirements-train.lock requirements.lock)
PIP := $(BIN)/python -m pip install --quiet

.PHONY: help train test test-lenskit test-slow test-lowest lint format docs bench lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(RUNS)  ## the main job on the embedded synthetic world
	$(BIN)/python train.py experiment=main

test: $(STAMP) test-lenskit  ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" --durations=25

test-lenskit: $(LENSKIT)/.installed  ## the tests with LensKit, beside another pandas
	OMP_NUM_THREADS=1 $(LENSKIT)/bin/python -m pytest tests/with_lenskit

test-slow: $(STAMP)  ## the longer checks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

test-lowest:  ## the suite with the oldest versions that pyproject.toml allows
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(PYTHON) .ci/lowest.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/lowest.txt --editable '.[dev]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile -m "not slow" -W default

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)  ## the documentation, in site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(STAMP)  ## steps against a plain PyTorch script, processes, memory, whole runs, growth with |D|
	$(BIN)/python tests/benchmarks/bench.py

lock: $(STAMP)  ## write the lock files anew, from constraints.txt
	$(BIN)/python .ci/lock.py

gpu: $(STAMP)  ## every row on this machine's GPU against its CPU, resuming, bf16, then steps are timed
	$(BIN)/python tests/gpu/check.py

clean:  ## remove .venv and whatever was built
	rm -rf $(VENV) $(LOWEST) $(LENSKIT) build dist site *.egg-info

# LOCKED=1 takes no file whose SHA-256 is not in the lock files; what comes as source is built by
# the setuptools of the lock, which therefore comes first
define locked
grep '^setuptools==' requirements-train.lock > $(VENV)/build.txt
$(PIP) --require-hashes --requirement $(VENV)/build.txt
$(PIP) --require-hashes --no-build-isolation --requirement $(1)
$(PIP) --no-deps --no-build-isolation --editable .
endef

$(STAMP): pyproject.toml constraints.txt $(LOCKS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(call locked,requirements.lock)
else
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable '.[dev]'
endif
	touch $@ $(RUNS)

# what training needs, without the tools of developers
$(RUNS): pyproject.toml constraints.txt $(LOCKS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(call locked,requirements-train.lock)
else
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable .
endif
	touch $@

# over .venv: LensKit, what it needs besides, and a pandas that it takes
$(LENSKIT)/.installed: $(STAMP) constraints-lenskit.txt $(if $(LOCKED),requirements-lenskit.lock)
	$(BIN)/python .ci/over.py $(LENSKIT)
ifdef LOCKED
	$(LENSKIT)/bin/python -m pip install --quiet --require-hashes --no-deps --requirement requirements-lenskit.lock
else
	$(LENSKIT)/bin/python -m pip install --quiet --constraint constraints-lenskit.txt lenskit
endif
	touch $@
