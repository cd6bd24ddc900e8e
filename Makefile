# Two commands on a fresh machine: `make demo` and `make test`. Python >= 3.11, pip and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check claims clean

demo: $(VENV)/.core
	$(BIN)/tellapart demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	scripts/check

claims: $(VENV)/.dev
	$(BIN)/python studies/exact_claims.py
	$(BIN)/python studies/claims.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) build *.egg-info
