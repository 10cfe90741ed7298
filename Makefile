# What continuous integration checks besides the tests. PYTHON is an environment with the extras
# check, notebook and docs.
PYTHON ?= .venv/bin/python
export NO_MKDOCS_2_WARNING = 1

.PHONY: check lint types docs dist notebook pictures player bench bench-smoke
check: docs lint types
	$(PYTHON) -m pytest -m docs tests/docs

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(dir $(PYTHON))lint-imports --no-cache

types:
	$(PYTHON) -m mypy

# charloom beside its peers; PYTHON needs the extra bench. About forty minutes.
bench:
	$(PYTHON) -m benchmarks

# The same on tiny models, with the peers that are installed: does everything run, and agree?
bench-smoke:
	$(PYTHON) -m benchmarks --smoke
	$(PYTHON) -m benchmarks.gpu --smoke --device cpu
	$(PYTHON) -m benchmarks.serving --smoke
	$(PYTHON) -m benchmarks.serving --counts --smoke
	$(PYTHON) -m benchmarks.counts --smoke
	$(PYTHON) -m benchmarks.ranks --smoke

# The site, into the folder site/.
docs:
	$(PYTHON) -m mkdocs build --strict --quiet

# The wheel and the source distribution, into the folder dist/, with their metadata checked.
dist:
	$(PYTHON) -m build --no-isolation --outdir dist
	$(PYTHON) -m twine check --strict dist/*

# Runs the notebooks from a clean kernel and stores them with their outputs. Two of them are
# tutorials.
notebook:
	cd examples && $(abspath $(PYTHON)) -m jupyter execute --inplace from_scratch.ipynb
	$(PYTHON) docs/tools/tutorials.py notebook docs/tutorials/names.md examples/names.ipynb
	$(PYTHON) docs/tools/tutorials.py notebook docs/tutorials/classroom.md examples/classroom.ipynb

# The pictures of README.md and docs/, from real runs, in about four minutes. PYTHON needs the
# extras browser and notebook, and Chromium.
pictures:
	$(PYTHON) docs/tools/pictures.py

# The compiled engine of exported pages, from C; PYTHON needs the extra player.
player:
	PYTHONPATH=src $(PYTHON) tools/build_player.py
