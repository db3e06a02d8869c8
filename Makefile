PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: env train test check clean

env: $(VENV)/.installed  ## virtual environment with everything installed

# Redone only when what it is made from changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: env  ## the main job: film reviews, SmolLM2-135M, a late prompt. Options: make train ARGS='seed=21'
	$(BIN)/python train.py $(ARGS)

test: env  ## the test suite
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 $(ARGS)

check: env  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache .mypy_cache
