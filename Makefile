PYTHON ?= python3
BIN := .venv/bin
CODE := domain handlers projections adapters ops
PROCESSES := -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install dev demo test long matrix lint format bench chaos opensearch docs up down doctor clean distclean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

install: ## Make or update the environment .venv
	@$(PYTHON) ops/install.py

dev: ## Make or update .venv with what the tests and checks need too
	@$(PYTHON) ops/install.py dev

demo: install ## Ask three questions of the documents in examples/, with servers of its own
	@$(BIN)/python -m ops.demo

test: lint ## Check the code, then run all tests on real servers
	@$(BIN)/pytest $(PROCESSES)

long: dev ## Run the tests that `make test` leaves out because each takes half a minute or more
	@$(BIN)/pytest -m long

matrix: dev ## Run the tests without servers, and one journey, on Python 3.12 and 3.13
	@$(BIN)/python -m tests.matrix

lint: dev ## Check style, types and the layers of the imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(CODE)
	@$(BIN)/lint-imports

format: dev ## Put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install ## Measure commands, answers, ingest, rebuild and memory beside the raw limits
	@$(BIN)/python -m ops.bench all

chaos: dev ## Kill, pause and cut off everything for ROUNDS=10, then look for what is lost or doubled; SEED=n repeats it
	@$(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),10) $(if $(SEED),--seed $(SEED))

opensearch: install ## Run an OpenSearch server in the home, for HEADRACE_OPENSEARCH_URL; it needs Java 17 and Maven
	@$(BIN)/python -m ops.servers.opensearch

docs: install ## Make the reference parts of docs/ anew from the code
	@$(BIN)/python -m ops.docs

up: install ## Start everything on this machine, in the background
	@$(BIN)/headrace up --detach

down: ## Stop what `make up` has started
	@$(BIN)/headrace down

doctor: ## Say what is reachable, what is wrong, and what to do about it
	@$(BIN)/headrace doctor

clean: ## Remove caches and built packages
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## Remove the environment and all data in .headrace too
	@if [ -x $(BIN)/headrace ]; then $(BIN)/headrace down || true; fi
	@rm -rf .venv .venv-* .headrace
