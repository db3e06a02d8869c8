PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help env train test check torture docs clean

help:  ## this list
	@echo "make <target> [ARGS='...']"
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target meaning; do printf '  %-8s %s\n' $$target "$$meaning"; done

env: $(VENV)/.installed  ## make the virtual environment .venv with everything installed

# Made again only when what it is made from changes.
$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: env  ## train on film reviews with SmolLM2-135M; options: make train ARGS='seed=21'
	$(BIN)/python train.py $(ARGS)

test: env  ## run the tests; a part of them: make test ARGS='tests/sweep'
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 $(ARGS)

check: env  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

torture: env  ## kill runs and sweeps, fill disks and fuzz readers at length (half an hour)
	LPT_TORTURE=200 LPT_FUZZ=10000 $(BIN)/python -m pytest -s --numprocesses 0 tests/test_torture.py tests/test_hostile.py tests/sweep/test_queue.py $(ARGS)

docs: env  ## build the documentation site in build/site, with strict links
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict $(ARGS)

clean:  ## remove the virtual environment and all that was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
