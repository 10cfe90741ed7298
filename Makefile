# What continuous integration checks besides the tests. PYTHON is an environment with '.[check]'.
PYTHON ?= .venv/bin/python

.PHONY: check
check:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest tests/test_architecture.py tests/test_docs.py
