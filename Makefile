.DEFAULT_GOAL := help
PYTHON ?= python

.PHONY: help install test test-all test-consumers lint format types docs coverage consumers bench ci

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## install the package in place, with all that the tests need
	$(PYTHON) -m pip install -e ".[test,shapes,report]"

test: ## run the tests, on all cores
	$(PYTHON) -m pytest -q

test-all: ## run the tests, the slow ones too
	$(PYTHON) -m pytest -q -m "slow or not slow"

test-consumers: ## compile and run what is made of every model on other runtimes (extra consumers; half an hour)
	$(PYTHON) -m pytest -q -m "slow or not slow" tests/test_consumers.py

lint: ## style, format, floors (ir < passes < runtime < api < cli) and types; changes nothing
	ruff check .
	ruff format --check .
	lint-imports --no-cache
	pyright

format: ## format and mend what ruff can mend
	ruff check --fix .
	ruff format .

types: ## check types only
	pyright

docs: ## write the generated parts of README.md and docs/ again
	$(PYTHON) docs/generate.py

coverage: ## write docs/coverage.md from the models in the folder ONNX_PASSES_MODELS names
	$(PYTHON) docs/coverage.py

consumers: ## write docs/consumers.md from the same models, on every runtime of tests/consumer_tools.py
	$(PYTHON) docs/consumers.py

bench: ## what it costs against peers, as ratios (minutes)
	$(PYTHON) -m bench

ci: ## what the server runs: a fresh environment, all checks, all tests
	.ci/run
