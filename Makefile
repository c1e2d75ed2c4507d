# Each target works as the first command after a clone, on a machine with Python 3.11 and make alone.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p) 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
HAS_GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo yes)
# Where there is a GPU, PyPI's torch brings CUDA with it. Elsewhere the CPU build is a tenth of the size.
# To choose by hand: make install HAS_GPU=yes, or HAS_GPU=
ifeq ($(HAS_GPU),yes)
INSTALL_TORCH := pip install -q $(TORCH)
else ifeq ($(shell uname -s),Linux)
INSTALL_TORCH := pip install -q --no-deps --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu $(TORCH)
else
INSTALL_TORCH := pip install -q --no-deps $(TORCH)
endif

.PHONY: help install search test check campaign format clean

help:  ## What there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## Set up .venv from requirements.lock

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "archsmith needs Python 3.11 or later"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "archsmith needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up $(VENV) (a minute or two; 1.5 GB)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m $(INSTALL_TORCH)
	$(BIN)/python -m pip install -q -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps -e .
	@touch $@

search: install  ## The main job on embedded real data: search, train, test, report, export (2 minutes)
	$(BIN)/archsmith auto digits --time 2m

test: install  ## The suite, README and docs included; what was left out is named at the end
	$(BIN)/python -m pytest

campaign: install  ## The long ones: kills, fuzzing
	$(BIN)/python -m pytest -m campaign

check: install  ## Format, lint, types, import floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## Put the code in the house's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove what make made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
