# Two commands on a fresh machine with Python 3.11 and make: `make demo` and `make test`.

PYTHON ?= python3
# Where torch comes from, if not from pip's configured sources: the URL of a package index, such as that of its CPU builds.
TORCH_INDEX ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check install --constraint constraints.txt
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check clean
.DELETE_ON_ERROR:

help:  ## say what each target does
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: $(STAMP)  ## make the environment in .venv

demo: $(STAMP)  ## train and examine recipes/tiny/r1_zero.yaml (minutes on two CPU cores)
	$(BIN)/r1-mini run recipes/tiny/r1_zero.yaml

# A process for each core, one thread each. pytest exits 5, and make fails, when no test was run.
test: $(STAMP)  ## run every test that needs no GPU
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -m "not gpu"

check: $(STAMP)  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:  ## remove the environment and caches; runs/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: $(PYTHON) is missing or older than Python 3.11; name a newer one: make setup PYTHON=python3.11' >&2; exit 1; }
	@echo 'making .venv (once, a few minutes; about 400 MB to download)'
	@$(PYTHON) -m venv .venv
	@$(PIP) --no-deps setuptools
	@$(PIP) --no-deps $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') torch
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@
