# Two commands to know: `make demo` and `make test`. Both work on a fresh clone with Python 3.11 or newer.
#
#   VENV=/their/env          use that environment (created where there is none)
#   CONSTRAINTS=/dev/null    let pip choose every version, for an environment with its own torch
#   PYTHON=python3.12        the interpreter of a new environment

VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
TESTS ?= tests
WORKERS ?= 2
SCRATCH ?= demo-out
PEERS ?= build/peers

.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-tangents bench-exponents bench-overhead early-warning coverage truth reports clean

help:
	@echo "make demo    train two small networks, analyze both, write reports to $(SCRATCH)/"
	@echo "make test    all tests"
	@echo "make check   ruff, pyright, import-linter"
	@echo "make coverage  every architecture of transformers, small, analyzed; goes on where it was interrupted"
	@echo "make bench   speed: against the limit and torch.func, against JAX (in its own environment), of the monitor"
	@echo "make early-warning  how long before a run diverges the monitor says so"
	@echo "make truth   laws with known answers, into reports/truth.md"
	@echo "make reports the committed reports again, from the models that reports/models.py builds"

demo: $(VENV)/.dynstab-demo
	@$(BIN)/dynstab demo --out $(SCRATCH)

test: $(VENV)/.dynstab-test
	@command -v $${CHROMIUM:-chromium} >/dev/null || command -v google-chrome >/dev/null || \
		echo "no chromium: tests in a browser are skipped; apt-get install chromium, or CHROMIUM=/path/to/it" >&2
	@$(BIN)/python -m pytest -n $(WORKERS) $(TESTS)

check: $(VENV)/.dynstab-test,dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports --no-logo --no-cache

coverage: $(VENV)/.dynstab-test
	@OMP_NUM_THREADS=1 $(BIN)/python tests/coverage/run.py --workers $(WORKERS)

bench: bench-tangents bench-exponents bench-overhead

bench-tangents: $(VENV)/.dynstab-test
	@$(BIN)/python tests/benchmarks/bench_tangents.py

bench-exponents: $(VENV)/.dynstab-test | $(PEERS)/bin/python
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_exponents.py --peers $(PEERS)

bench-overhead: $(VENV)/.dynstab-test
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/python tests/benchmarks/bench_overhead.py --steps 320 --threads 2 --write

early-warning: $(VENV)/.dynstab-test
	@OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/early_warning.py --workers $(WORKERS)

truth: $(VENV)/.dynstab-test
	@OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/truth/truth.py

reports: $(VENV)/.dynstab-test
	@$(BIN)/python reports/make.py

clean:
	rm -rf build dist $(SCRATCH) .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# One stamp per set of extras, renewed when what is to be installed changes.
$(VENV)/.dynstab-%: pyproject.toml $(wildcard $(CONSTRAINTS)) | $(BIN)/python
	@echo "installing dynstab[$*] into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]' -c $(CONSTRAINTS)
	@touch '$@'

$(PEERS)/bin/python:
	@echo "installing JAX, chaotax and lyapax into $(PEERS)"
	@$(PYTHON) -m venv $(PEERS) && $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check jax jaxlib chaotax lyapax

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
