# dsocr-profiler. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install

MODEL ?= deepseek-ocr-tiny
IMAGES ?=
THOROUGH ?=
REPEATS ?= 3
MAX_NEW_TOKENS ?= 64
DEVICE ?=
COLLECTOR ?= auto
PRESET ?= default
RUN ?= latest
TORCH ?= --require-hashes -r requirements/torch.txt
ARGS ?=

RUNNER_STAMP := $(VENV)/.installed-runner
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-14s %s\n", $$1, $$2}'
	@echo
	@echo "  make profile MODEL=… [IMAGES=folder|scan.pdf | THOROUGH=1] [REPEATS=3] [MAX_NEW_TOKENS=64] [DEVICE=cuda:0] [PRESET=default] [ARGS='…']"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed (PYTHON=…)")'
	$(PYTHON) -m venv $(VENV)

# Every file is verified against its SHA-256; of CUDA's libraries, which torch's verified metadata names, the version is.
$(RUNNER_STAMP): $(BIN)/python pyproject.toml requirements/runner.txt requirements/torch.txt
	$(PIP) --no-deps --require-hashes -r requirements/runner.txt
	$(PIP) --no-deps $(TORCH)
	$(PIP) -c constraints.txt torch
	$(PIP) --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@

$(DEV_STAMP): $(RUNNER_STAMP) requirements/dev.txt
	$(PIP) --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@

.PHONY: lock
lock: $(DEV_STAMP) ## Write requirements/ anew after a change of pyproject.toml or constraints.txt
	PATH="$(abspath $(BIN)):$$PATH" ./scripts/lock-requirements.sh

.PHONY: install
install: $(RUNNER_STAMP) ## Make .venv and install runner and analysis

.PHONY: profile
profile: $(RUNNER_STAMP) ## Profile MODEL and write a report
	@$(BIN)/dsocr-profile run '$(MODEL)' --repeats $(REPEATS) --max-new-tokens $(MAX_NEW_TOKENS) \
	  --collector $(COLLECTOR) --preset $(PRESET) \
	  $(if $(IMAGES),--images '$(IMAGES)') $(if $(THOROUGH),--thorough) $(if $(DEVICE),--device $(DEVICE)) $(ARGS)

.PHONY: review
review: $(RUNNER_STAMP) ## Profile the kernels of a finished run (RUN=latest) with Nsight Compute
	@$(BIN)/dsocr-profile review '$(RUN)' $(ARGS)

.PHONY: doctor
doctor: $(RUNNER_STAMP) ## Check that this machine can capture, and say how to mend it
	@$(BIN)/dsocr-profile doctor $(ARGS)

.PHONY: nsys
nsys: ## Install Nsight Systems into .nsys/ from the machine's own Debian or Ubuntu packages
	./scripts/install-nsys.sh .nsys

.PHONY: ncu
ncu: ## Install Nsight Compute into .ncu/ from the machine's own Debian or Ubuntu packages
	./scripts/install-ncu.sh .ncu

.PHONY: test
test: $(DEV_STAMP) ## Run the tests
	$(BIN)/python -m pytest -m 'not integration' $(ARGS)

.PHONY: integration
integration: $(DEV_STAMP) ## Run the slower tests: real Nsight Systems (make nsys) and headless Chromium
	$(BIN)/python -m pytest -m integration $(ARGS)

SEED ?=
CASES ?= 10000
CASE ?=

.PHONY: fuzz
fuzz: $(DEV_STAMP) ## Damage inputs in CASES=10000 ways and judge what comes out; [SEED=…] [CASE=N: that one alone]
	PYTHONPATH=.:tests $(BIN)/python -m fuzz $(if $(SEED),--seed '$(SEED)') \
	  $(if $(CASE),--case $(CASE),--cases $(CASES) --report fuzz.md) $(ARGS)

.PHONY: reliability
reliability: $(DEV_STAMP) ## Run the table of faults (docs/reliability.md) alone, and say how long it takes
	$(BIN)/python -m pytest tests/reliability --durations=10 $(ARGS)

.PHONY: lint
lint: $(DEV_STAMP) ## Check style and types, the page's script included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/oxlint --deny-warnings analysis
	$(BIN)/mypy

.PHONY: docs
docs: $(DEV_STAMP) ## Write anew what is made from the code: columns, Python surface, JSON Schemas, the notebook's outputs
	$(BIN)/python -m analysis.render.catalogue >docs/columns.md
	$(BIN)/python -m analysis.render.catalogue glossary >docs/glossary.md
	$(BIN)/python -m analysis.render.kernel_categories >docs/kernels.md
	$(BIN)/python -m analysis.render.trace_checks >docs/trace-checks.md
	$(BIN)/python scripts/write_api_page.py
	$(BIN)/python scripts/write_reliability_page.py
	for name in report summary review ranks diff gate sweep; do $(BIN)/python -m analysis.cli schema $$name >docs/schemas/$$name.schema.json || exit; done
	$(BIN)/python scripts/run_notebook.py

.PHONY: bench
bench: $(DEV_STAMP) ## Measure the analysis at 115 k, 1 M and 10 M kernels
	$(BIN)/python benchmarks/run.py $(ARGS)

.PHONY: clean
clean: ## Remove .venv, caches and benchmark data; reports stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis benchmarks/data
