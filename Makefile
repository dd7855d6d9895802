VENV ?= .venv
BIN := $(VENV)/bin
TREE ?=
FILE ?= demo.db
export TREE FILE

.DEFAULT_GOAL := help
.PHONY: help run test test-full check fix bench bench-sqlite docs clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.run: pyproject.toml scripts/venv.sh
	@sh scripts/venv.sh $(VENV) "speed"
	@touch $@

$(VENV)/.dev: pyproject.toml scripts/venv.sh
	@sh scripts/venv.sh $(VENV) "dev"
	@touch $@

run: $(VENV)/.run ## run the demonstration: one job per file of a folder tree (TREE=PATH, FILE=demo.db)
	@$(BIN)/jobmaster demo $${TREE:+"$$TREE"} --file "$$FILE"

test: $(VENV)/.dev ## the whole suite, short durations (at most 15 minutes)
	$(BIN)/python -m pytest $(ARGS)

test-full: $(VENV)/.dev ## the same tests with the stated durations and sizes
	JOBMASTER_TEST_SIZE=full $(BIN)/python -m pytest --timeout=1800 $(ARGS)

check: $(VENV)/.dev ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

fix: $(VENV)/.dev ## format and repair what can be repaired
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-sqlite ## every benchmark

bench-sqlite: $(VENV)/.dev ## standalone on SQLite against a hand-written floor; writes build/bench/sqlite.json
	$(BIN)/python -m benchmarks.sqlite $(ARGS)

docs: $(VENV)/.dev ## write the generated parts of the documentation
	$(BIN)/python scripts/docs.py

clean: ## remove what make made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
