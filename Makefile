SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup demo test lint bench docs lock clean

help:  ## Show what can be done
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY)  ## Make .venv with uds in it

$(READY): pyproject.toml requirements.lock
	@tools/ensure-java
	@python=$$(tools/find-python) && echo "Creating .venv with $$($$python --version)" && $$python -m venv --clear .venv
	@echo "Installing $$(grep -c '^[a-zA-Z].*==' requirements.lock) locked packages"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY)  ## Real data through every adapter, with a run killed half-way
	@$(BIN)/uds demo

test: $(READY)  ## Every promise, proved
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)  ## Style, types, import rules, secrets, workflows, infrastructure
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/basedpyright --warnings
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/python tools/scan_secrets.py
	@tools/check-workflows
	@tools/check-infra

bench: $(READY)  ## Ratios against raw PySpark doing the same work
	@$(BIN)/python -m bench

docs: $(READY)  ## The documentation as a site in site/, every link checked
	@$(BIN)/python -m sphinx --quiet --fresh-env --write-all --fail-on-warning --keep-going --nitpicky --builder html docs site
	@echo "Open site/index.html"

lock: $(READY)  ## Lock the newest versions that fit
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-header --all-extras --group dev pyproject.toml --output-file requirements.lock
	@$(BIN)/uv pip compile --quiet --python-platform x86_64-manylinux_2_28 --python-version 3.13 --generate-hashes --no-emit-index-url --no-header --extra control --extra azure --constraint requirements.lock pyproject.toml --output-file requirements-functions.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-header --no-annotate tools/checkov.in --output-file tools/checkov.lock

clean:  ## Remove what the other targets made
	@rm -rf .venv .venv-checkov .demo .uds site .pytest_cache .ruff_cache .hypothesis
