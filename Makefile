# Every target sets up what it needs: a virtual environment with pinned dependencies, and for the
# tests a display. `make demo` and `make test` work on a fresh Debian machine.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# An installation is repeated when what it was made from changes.
PINS := pyproject.toml constraints.txt
PYTEST_ARGS ?=
# Tests run in so many processes; windows of several share a display without harm.
WORKERS ?= 2

$(BIN)/python:
	@tools/make-venv.sh $(VENV)

# $(call install,EXTRAS): editable, so that changes of the source need no new installation
define install
	@echo "Installing napari-sclinguist$(1) (a few minutes the first time) ..."
	@$(PIP_INSTALL) -e ".$(1)"
	@touch $@
endef

$(VENV)/.installed-base: $(PINS) | $(BIN)/python
	$(call install,)

$(VENV)/.installed-app: $(PINS) | $(BIN)/python
	$(call install,[app])

$(VENV)/.installed-test: $(PINS) | $(BIN)/python
	$(call install,[test])

$(VENV)/.installed-docs: $(PINS) | $(BIN)/python
	$(call install,[docs])

.PHONY: demo
demo: $(VENV)/.installed-base  ## Predict proteins on the sample section and write a report
	$(BIN)/sclinguist demo -o demo_output

.PHONY: test
test: lint display  ## Run linters, type checker and all tests (PYTEST_ARGS="-k name" narrows)
	tools/with-display.sh $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.installed-test  ## Run ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.PHONY: app
app: $(VENV)/.installed-app  ## Open napari with the sample section
	$(BIN)/napari --plugin napari-sclinguist sample_data/tonsil_simulated/outs

.PHONY: screenshots
screenshots: $(VENV)/.installed-app display  ## Take the pictures of the window into docs/images/
	tools/with-display.sh $(BIN)/python docs/make_screenshots.py

.PHONY: docs
docs: $(VENV)/.installed-docs  ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

.PHONY: display
display:
	@tools/setup-display.sh

.PHONY: clean
clean:  ## Remove the virtual environment and everything that was built
	rm -rf $(VENV) build dist site demo_output .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:  ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) \
		| awk -F ':.*## ' '{ printf "  make %-11s %s\n", $$1, $$2 }'
