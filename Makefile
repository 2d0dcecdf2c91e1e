# Everything a stranger needs, in two commands: `make demo` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup demo test test-slow test-gpu check format bench server browser clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv and install everything into it (a minute or two, once)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fingerprint needs Python >= 3.11: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,dev]'
	@touch $@

demo: setup ## forty synthetic patients, planted copies, one audit: prints where the report is
	$(BIN)/fingerprint demo demo

test: setup browser ## the tests that need no GPU and no hour
	$(BIN)/python -m pytest

test-slow: setup browser ## the same and the slow ones (real CT, many kills): FINGERPRINT_DATA names the data
	$(BIN)/python -m pytest --runslow

test-gpu: setup ## the tests that need a CUDA device
	$(BIN)/python -m pytest --rungpu -m gpu

check: setup ## what the hooks run: format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## bring the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## ratios against named peers, all in one run (docs/benchmarks.md)
	$(BIN)/python tests/bench/correlation.py

server: setup ## a Prefect server on loopback for scheduled runs (deploy/README.md)
	$(BIN)/prefect server start --host 127.0.0.1

# pages are looked at in Chromium where it can be had; those tests skip visibly where it cannot
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { apt-get update -qq && apt-get install -y -qq chromium fonts-dejavu-core >/dev/null; }; } || true

clean: ## remove what make made
	rm -rf .venv build demo *.egg-info .mypy_cache .ruff_cache
