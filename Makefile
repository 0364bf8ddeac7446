# `make demo` and `make test` work on a fresh clone: each makes .venv and installs what it needs.
PYTHON ?= python3
PY := .venv/bin/python
PIP := .venv/bin/pip --disable-pip-version-check install --quiet

# uv installs no bytecode: where Python may not write it either, every start would compile torch anew, 20 seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test package lint types mutants bench docs constraints licences sbom clean
.DEFAULT_GOAL := demo

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run.stamp: pyproject.toml | .venv/bin/python
	scripts/install.sh .venv -e .
	touch $@

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	scripts/install.sh .venv -e '.[dev]'
	touch $@ .venv/run.stamp

# make demo [METHOD=sccam] [SEED=1]: synthetic set, training from scratch, masks and pictures in demo/
demo: .venv/run.stamp
	$(PY) -m tagmask demo $(if $(METHOD),--method $(METHOD)) $(if $(SEED),--seed $(SEED)) --output demo

# make test [OLDEST=1]: with the newest packages, or with the oldest that pyproject.toml allows
ifdef OLDEST
test: .venv-oldest/dev.stamp
	.venv-oldest/bin/python -m pytest -n 2 $(ARGS)
else
test: .venv/dev.stamp
	$(PY) -m pytest -n 2 $(ARGS)
endif

.venv-oldest/dev.stamp: pyproject.toml constraints/oldest.txt
	$(PYTHON) -m venv .venv-oldest
	scripts/install.sh .venv-oldest -c constraints/oldest.txt -e '.[dev]'
	touch $@

# make package: what would be published, in dist/, checked by twine
package: .venv/dev.stamp
	rm -rf dist
	$(PY) -m build --quiet --no-isolation
	$(PY) -m twine check --strict dist/*

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
# (a file ray.py would stand in the way of the package ray, so NAME=ray is ray_labelling)
bench: .venv/dev.stamp
	$(PY) benchmarks/$(if $(filter ray,$(NAME)),ray_labelling,$(NAME)).py $(ARGS)

# make constraints: the oldest versions that pyproject.toml allows, and the newest as they are today.
# `pip install -c constraints/locked.txt .` installs what the tests ran on.
constraints: .venv/dev.stamp
	$(PIP) uv
	.venv/bin/uv pip compile -q pyproject.toml --extra dev --resolution lowest-direct --python-version 3.11 \
	  --no-annotate --custom-compile-command "make constraints" -o constraints/oldest.txt
	.venv/bin/uv pip compile -q pyproject.toml --extra dev --universal --upgrade --python-version 3.11 \
	  --no-annotate --custom-compile-command "make constraints" -o constraints/locked.txt

# make licences: docs/licences.md, of what is installed
licences: .venv/dev.stamp
	$(PY) docs/generate_licences.py

# make sbom: every installed package as CycloneDX, in sbom.cdx.json
sbom: .venv/run.stamp
	$(PYTHON) -m venv .venv/sbom
	.venv/sbom/bin/pip --disable-pip-version-check install --quiet cyclonedx-bom
	.venv/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --of JSON -o sbom.cdx.json .venv/bin/python

.venv/docs.stamp: pyproject.toml | .venv/bin/python
	scripts/install.sh .venv -e '.[docs]'
	touch $@

# make docs: the site in docs/_build/html; a link that leads nowhere is an error
docs: .venv/docs.stamp
	$(PY) docs/generate_recipes.py
	$(PY) docs/generate_weights.py
	$(PY) -m sphinx -q -E -W --keep-going -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

clean:
	rm -rf .venv .venv-oldest demo build dist docs/_build sbom.cdx.json
