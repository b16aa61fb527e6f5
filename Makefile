# Everything from nothing but Python 3.10+ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard setup.cfg pyproject.toml constraints.txt)
# One thread a process: the tests run on all cores, and the numbers do not depend on how many there are.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all lint types tables bench docs clean help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(VENV)/demo  ## train the reweighting demo and print what it measured
	$(BIN)/multilevel run reweight-digits

test: $(VENV)/test lint types  ## lint, types and the test suite
	$(BIN)/pytest -q -n auto -m "not slow"

test-all: $(VENV)/test lint types  ## the test suite and the slow proofs
	$(BIN)/pytest -q -n auto

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy reads files: through this link it sees the package by its name, whatever the checkout is called.
types: $(VENV)/test
	@mkdir -p $(VENV)/named && ln -sfn "$(CURDIR)" $(VENV)/named/multilevel
	cd $(VENV)/named && MYPYPATH="$(CURDIR)/$(VENV)/named" ../bin/mypy -p multilevel --config-file "$(CURDIR)/setup.cfg"

tables: $(VENV)/test  ## compute the tables of docs/conformance.md and docs/cost.md anew
	MULTILEVEL_WRITE_TABLES=1 $(BIN)/pytest -q tests/test_tables.py

bench: $(VENV)/bench  ## measure speed and memory beside loops written by hand and other libraries
	$(BIN)/python benchmarks/run.py

docs: $(VENV)/docs  ## build the documentation site
	$(BIN)/pip install -q --no-deps --upgrade --target $(VENV)/installed .
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

clean:  ## remove the virtual environment and every build output
	rm -rf $(VENV) build dist site *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first and pinned: asked for by a range, the newest build and its GPU libraries would come.
$(VENV)/demo: $(VENV)/bin/python $(SOURCES)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e ".[examples]"
	@touch $@

$(VENV)/test: $(VENV)/bin/python $(SOURCES)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e ".[test]"
	@touch $@

# The last three cap Python or pin what the others need newer, and run all the same.
$(VENV)/bench: $(VENV)/bin/python $(SOURCES)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e ".[bench]"
	$(BIN)/pip install -q --no-deps --ignore-requires-python betty-ml==0.2.1 boat-torch==1.1.1 hypergrad==0.0.1
	@touch $@

$(VENV)/docs: $(VENV)/bin/python $(SOURCES)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	@touch $@
