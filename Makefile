# `make check` is what CI runs first: lint, format, types, and every test that needs no server process.
PYTHON ?= .venv/bin/python

.PHONY: check lint test nightly
check: lint
	$(PYTHON) -m pytest -m "not live and not browser"
lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
test:
	$(PYTHON) -m pytest
# What takes longer than CI may: one after the other, without a bound of two minutes each.
nightly:
	$(PYTHON) -m pytest -m nightly --numprocesses=0 --timeout=7200
	$(PYTHON) -m benchmarks nightly

# The parts of the documentation that are made from the code; a test fails when they are out of date.
.PHONY: docs
docs:
	$(PYTHON) -m tests.docs
