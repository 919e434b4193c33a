# The doors of the project. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVE ?= 1
PORT ?= 8000
DEMO ?= demo

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long lint bench docs clean

help: ## list the doors
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## make .venv with all that the demo and the tests need

# Bytecode is made when a module is first imported: compiling all fifteen thousand files took a third of the installation.
unexport PYTHONDONTWRITEBYTECODE

# torch comes first and alone: other packages' open ranges would choose another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Python {sys.version.split()[0]} is too old: 3.11 or newer is needed. Try: make PYTHON=python3.11 install")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,lora,tune,media,dev]'
	@touch $@

demo: install ## import, train, evaluate and serve MovieLens 100k (SERVE=0 ends after the report)
	$(BIN)/tastemaker demo $(DEMO) --port $(PORT) $(if $(filter 0,$(SERVE)),--no-serve,)

test: install ## all tests, at most 10 minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-long: install ## the long variants of soak, fault and scale tests
	$(BIN)/python -m pytest -m long

lint: install ## ruff and mypy in strict mode
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

bench: install ## every benchmark, one after the other; each is one command under benchmarks/
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

docs: install ## the API pages, from the docstrings, into site/
	$(BIN)/pdoc --output-directory site tastemaker

clean: ## remove what was built; workspaces stay
	rm -rf $(VENV) site dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
