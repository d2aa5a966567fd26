# Two commands do everything on a fresh machine with Python 3.11+, make and a C compiler:
#   make demo    plays every environment over HTTP and shows what came of it
#   make test    runs the tests
# Both make .venv and install what they need, at the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# ALFWorld's translator compiles C++; without a compiler for it the tests that need it are skipped.
comma := ,
ALFWORLD := $(if $(shell command -v g++),$(comma)alfworld)
SOURCES := steppo_env envs server client tests benchmarks docs/figures

.PHONY: install demo test lint types imports wheel ci clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev$(ALFWORLD)]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/steppo demo

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --quiet

lint: $(STAMP)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/pyright

imports: $(STAMP)
	$(BIN)/lint-imports

# Builds the wheel and uses it from an environment of its own, where the source tree cannot help.
wheel: $(STAMP)
	$(BIN)/python tests/wheel_check.py

ci: lint types imports wheel test

clean:
	rm -rf $(VENV) dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
