# Python >= 3.11, pip and make are enough: `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV := .venv
# Windows puts the programs of a virtual environment elsewhere.
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: demo test check docs claims clean

demo: $(VENV)/.core
	$(BIN)/tellapart demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev
	BIN=$(BIN) scripts/check

claims: $(VENV)/.dev
	$(BIN)/python studies/exact_claims.py
	$(BIN)/python studies/claims.py

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.core: $(VENV)/.venv pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.venv pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.core

$(VENV)/.docs: $(VENV)/.venv pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) build site *.egg-info
