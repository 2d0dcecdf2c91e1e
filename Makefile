# Everything a stranger needs, in two commands: `make demo` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup demo test test-slow test-gpu check format bench bench-peers bench-register bench-encoders pose-study calibration-study study-membership server browser clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv and install everything into it (a minute or two, once)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fingerprint needs Python >= 3.11: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[study,test,dev]'
	@touch $@

demo: setup ## forty synthetic patients, planted copies, one audit: prints where the report is
	$(BIN)/fingerprint demo demo

# two processes, a file in one of them: most of a test is one process that waits for disks and children.
# In the order of their names: the longest files have few tests, and would come last together
test: setup browser ## the tests that need no GPU and no hour
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --benchmark-disable

test-slow: setup browser ## the same and the slow ones (real CT, many kills): FINGERPRINT_DATA names the data
	$(BIN)/python -m pytest --runslow

# where there is no .venv, the Python of a bare GPU machine: these tests need neither Prefect nor SimpleITK
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
test-gpu: ## the tests that need a CUDA device, in .venv if there is one
	$(GPU_PYTHON) -m pytest --rungpu -m gpu -W default tests/gpu tests/test_search.py tests/test_lists.py

check: setup ## what the hooks run: format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## bring the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## ratios against peers, each table in one run (docs/benchmarks.md)
	for table in peers from_zarr slope codecs cost gpu; do $(BIN)/python tests/bench/$$table.py || exit 1; done

bench-peers: setup ## the same with faiss, kept apart from the project in .venv-peers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv-peers faiss-cpu==1.15.1
	$(MAKE) bench bench-encoders

bench-register: setup ## registration against SimpleITK, and elastix (1.7 GB, kept apart in .venv-peers)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .venv-peers itk-elastix==0.25.4
	for table in affine elastic; do $(BIN)/python tests/bench/$$table.py || exit 1; done

bench-encoders: setup ## our networks against torchvision, pytorch-fid and timm (kept apart in .venv-peers)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv-peers torchvision==0.28.0 timm==1.0.31 pytorch-fid==0.3.0
	$(BIN)/python tests/bench/encoders.py

pose-study: setup ## docs/pose.md again, from the real CT that FINGERPRINT_DATA names (20 minutes)
	$(BIN)/python tests/bench/pose_study.py docs/pose.md

calibration-study: setup ## docs/calibration.md again, from the real CT that FINGERPRINT_DATA names (10 minutes)
	$(BIN)/python tests/bench/calibration_study.py docs/calibration.md

study-membership: setup ## docs/membership_world.md again: how well each method tells where the truth is known
	$(BIN)/python tests/bench/membership_study.py docs/membership_world.md

server: setup ## a Prefect server on loopback for scheduled runs (deploy/README.md)
	$(BIN)/prefect server start --host 127.0.0.1

# pages are looked at in Chromium where it can be had; those tests skip visibly where it cannot
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { apt-get update -qq && apt-get install -y -qq chromium fonts-dejavu-core >/dev/null; }; } || true

clean: ## remove what make made
	rm -rf .venv .venv-peers build demo *.egg-info .mypy_cache .ruff_cache
