# Two commands do all the set-up: `make run` and `make test`. Each creates .venv when it
# is first needed and starts at once afterwards.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# Large temporary arrays on huge pages that stay with the process: about a quarter off a
# QM9 step on Linux CPUs, nothing elsewhere.
run bench: export GLIBC_TUNABLES = glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736

.PHONY: run test test-slow lint format bench clean

run: $(VENV)/experiments.stamp  ## Train IGBv1 on QM9 for a few minutes.
	$(BIN)/python -m experiments.qm9 --balancer=igbv1 --preset=quick

test: lint  ## Run lint, types and the tests.
	$(BIN)/python -m pytest -n $(WORKERS)

test-slow: $(VENV)/test.stamp  ## Run the tests that take minutes each.
	$(BIN)/python -m pytest -n $(WORKERS) -m slow

lint: $(VENV)/test.stamp  ## Check format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/test.stamp  ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/bench.stamp  ## Time our steps and solvers, into benchmarks/results.md.
	$(BIN)/python -m benchmarks

clean:  ## Remove the environment.
	rm -rf $(VENV)

# Debian's python3 comes without the means to make an environment.
$(BIN)/python:
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || \
	  { echo "installing python3-venv, which $(PYTHON) lacks"; \
	    $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq python3-venv; } || \
	  { echo "error: install python3-venv, or set PYTHON to a Python of 3.11 or later"; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/experiments.stamp $(VENV)/test.stamp $(VENV)/bench.stamp: $(VENV)/%.stamp: pyproject.toml setup.py constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[$*]'
	touch $@

