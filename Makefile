# `make demo` and `make test` work on a fresh machine with Python >= 3.11; each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint clean

demo: $(VENV)/.demo
	$(VENV)/bin/asegen generate SrTiO3 -n 8 --seed 0 --out demo/

test: $(VENV)/.test lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.test
	$(VENV)/bin/ruff check asegen tests examples benchmarks data
	$(VENV)/bin/mypy asegen

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "asegen needs Python 3.11 or newer; say PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info
