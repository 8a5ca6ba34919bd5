# framefold: `make demo` and `make test` do all their own set-up, in .venv. PIP_OPTIONS goes to every pip install.
SHELL := /bin/bash
PYTHON ?= python3
PIP_OPTIONS ?=
VENV := .venv
BIN := $(VENV)/bin
# The build of ONNX Runtime: that of OpenVINO where there is one. Two in one place would be refused.
RUNTIME = $(shell $(BIN)/python -c 'import platform as p, sys; \
  print("openvino" if (sys.platform, p.machine()) == ("linux", "x86_64") and sys.version_info < (3, 14) else "decoder")')
NO_RUNTIME = @$(BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-openvino 2>/dev/null

.DEFAULT_GOAL := help
.PHONY: help demo test lint types layers tests soak openapi clean
TEST_PROCESSES ?= 2
SOAK_MINUTES ?= 60
SOAK_KILLS ?= 200
SOAK_CALM_MINUTES ?= 60
SOAK_SEED ?= 0
SOAK_JSON ?= benchmarks/results/soak.json

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

demo: $(VENV)/.demo ## Fold a simulated detector's movie, stream, store, unfold it and look (a few minutes)
	$(BIN)/python deploy/demo.py

test: lint types layers tests ## Everything: style, types, layers, tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

tests: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

soak: $(VENV)/.dev ## Kill, cut and fill for SOAK_MINUTES and SOAK_KILLS, then SOAK_CALM_MINUTES in peace
	$(BIN)/python benchmarks/soak.py --minutes $(SOAK_MINUTES) --kills $(SOAK_KILLS) \
	  --calm-minutes $(SOAK_CALM_MINUTES) --seed $(SOAK_SEED) --json $(SOAK_JSON)

openapi: $(VENV)/.dev ## Write the REST description anew
	$(BIN)/python -m framefold_decoder.api.openapi > openapi.partial
	mv openapi.partial decoder/framefold_decoder/api/openapi.json

clean: ## Remove the virtual environment and everything generated
	rm -rf $(VENV) demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "framefold needs Python 3.11 or newer; name one with make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "python3 -m venv does not work here; on Debian: apt install python3-venv"; exit 1; }

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(NO_RUNTIME)
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --editable '.[$(RUNTIME),client]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(NO_RUNTIME)
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --editable '.[$(RUNTIME),dev]'
	@touch $@
