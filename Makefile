# Two commands do all the set-up: `make run` and `make test`. Each creates .venv when it
# is first needed and starts at once afterwards.

PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
WORKERS ?= 2
# Which tests `make test` runs.
MARKS ?= not slow
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# Large temporary arrays on huge pages that stay with the process: about a quarter off a
# QM9 step on Linux CPUs, nothing elsewhere.
run bench: export GLIBC_TUNABLES = glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736

# The tests start a hundred processes, each of which would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-core test-slow test-lowest lint format bench tables docs package clean

run: $(VENV)/experiments.stamp  ## Train IGBv1 on QM9 for a few minutes.
	$(BIN)/python -m experiments.qm9 --balancer=igbv1 --preset=quick

test: lint  ## Run lint, types and the tests.
	$(BIN)/python -m pytest -n $(WORKERS) -m "$(MARKS)"

test-core: $(VENV)/test.stamp  ## Run the tests of the balancers, in minutes.
	$(BIN)/python -m pytest -n $(WORKERS) tests/balancers tests/test_task_grads.py \
	  tests/test_metrics.py igb_jax/balancers igb_jax/task_grads.py igb_jax/metrics.py \
	  --ignore=tests/balancers/test_pipelines.py --ignore=tests/balancers/test_shard_map.py

# These compile as a user's programs do, not as conftest.py has it.
test-slow test-lowest: export XLA_FLAGS ?=

test-slow: $(VENV)/test.stamp  ## Run the tests that take long.
	$(BIN)/python -m pytest -n $(WORKERS) -m slow

test-lowest: $(LOWEST)/test.stamp  ## Run the core's tests with the lowest versions allowed.
	$(LOWEST)/bin/python -m pytest \
	  tests/balancers tests/nets tests/test_task_grads.py tests/test_metrics.py

lint: $(VENV)/test.stamp  ## Check format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/test.stamp  ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/bench.stamp  ## Time our steps and solvers, into benchmarks/results.md.
	$(BIN)/python -m benchmarks

tables: $(VENV)/test.stamp  ## Write the tables of methods in README.md and docs/ anew.
	$(BIN)/python docs/_tools/tables.py

docs: $(VENV)/docs.stamp  ## Build the documentation, into site/.
	$(BIN)/mkdocs build --strict

package: $(VENV)/test.stamp  ## Build sdist and wheel into dist/, check them, import the wheel.
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/uv run --isolated --no-project --python $(BIN)/python --with dist/*.whl \
	  python -P -c 'import igb_jax; print("igb_jax", igb_jax.__version__, "imported from the wheel")'

clean:  ## Remove the environments.
	rm -rf $(VENV) $(LOWEST)

# Debian's python3 comes without the means to make an environment.
$(BIN)/python:
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || \
	  { echo "installing python3-venv, which $(PYTHON) lacks"; \
	    $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq python3-venv; } || \
	  { echo "error: install python3-venv, or set PYTHON to a Python of 3.11 or later"; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV)

# `make run` starts sooner where Python compiles the modules that it imports, instead of
# pip all modules of all packages.
$(VENV)/experiments.stamp: PIP_FLAGS = --no-compile
$(VENV)/experiments.stamp $(VENV)/test.stamp $(VENV)/bench.stamp $(VENV)/docs.stamp: $(VENV)/%.stamp: pyproject.toml setup.py constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
	  --constraint constraints.txt --editable '.[$*]'
	touch $@

# The lower bounds of pyproject.toml themselves, of those that have wheels for this Python;
# promise, which tensorflow-datasets needs, has none for any.
$(LOWEST)/test.stamp: pyproject.toml setup.py constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct \
	  --only-binary :all: --no-binary igb-jax --no-binary promise --editable '.[test]'
	touch $@
