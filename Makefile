# `make demo` and `make test` work on a fresh clone: each makes .venv and installs what it needs.
PYTHON ?= python3
PY := .venv/bin/python
PIP := .venv/bin/pip --disable-pip-version-check install --quiet

.PHONY: demo test lint types mutants bench docs clean
.DEFAULT_GOAL := demo

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run.stamp: pyproject.toml | .venv/bin/python
	$(PIP) -e .
	touch $@

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	$(PIP) -e '.[dev]'
	touch $@ .venv/run.stamp

# make demo [METHOD=sccam] [SEED=1]: synthetic set, training from scratch, masks and pictures in demo/
demo: .venv/run.stamp
	$(PY) -m tagmask demo $(if $(METHOD),--method $(METHOD)) $(if $(SEED),--seed $(SEED)) --output demo

test: .venv/dev.stamp
	$(PY) -m pytest -n 2 $(ARGS)

lint: .venv/dev.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports

types: .venv/dev.stamp
	$(PY) -m pyright

# make mutants [ARGS='ops/cam --fraction 0.2']: which changed lines no test notices (docs/mutants.md); hours, so not in CI
mutants: .venv/dev.stamp
	$(PY) scripts/mutants.py $(ARGS)

# make bench NAME=seco_step: one benchmark; its last line is one JSON object
bench: .venv/dev.stamp
	$(PY) benchmarks/$(NAME).py $(ARGS)

.venv/docs.stamp: pyproject.toml | .venv/bin/python
	$(PIP) -e '.[docs]'
	touch $@

# make docs: the site in docs/_build/html; a link that leads nowhere is an error
docs: .venv/docs.stamp
	$(PY) docs/generate_recipes.py
	$(PY) docs/generate_weights.py
	$(PY) -m sphinx -q -E -W --keep-going -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

clean:
	rm -rf .venv demo build dist docs/_build
