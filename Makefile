VENV ?= .venv
BIN := $(VENV)/bin
TREE ?=
FILE ?= demo.db
export TREE FILE

.DEFAULT_GOAL := help
.PHONY: help run test test-full check fix bench bench-sqlite bench-recurrence bench-postgres bench-mysql bench-nats bench-cluster bench-retention docs clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.run: pyproject.toml scripts/venv.sh
	@sh scripts/venv.sh $(VENV) "speed"
	@touch $@

$(VENV)/.dev: pyproject.toml scripts/venv.sh
	@sh scripts/venv.sh $(VENV) "dev"
	@touch $@

$(VENV)/.bench: pyproject.toml scripts/venv.sh
	@sh scripts/venv.sh $(VENV) "dev,bench"
	@touch $@ $(VENV)/.dev

run: $(VENV)/.run ## run the demonstration: one job per file of a folder tree (TREE=PATH, FILE=demo.db)
	@$(BIN)/jobmaster demo $${TREE:+"$$TREE"} --file "$$FILE"

test: $(VENV)/.dev ## the whole suite, short durations (at most 15 minutes)
	@sh scripts/test.sh $(BIN)/python $(ARGS)

test-full: $(VENV)/.dev ## the same tests with the stated durations and sizes
	@JOBMASTER_TEST_SIZE=full TEST_TIMEOUT=1800 sh scripts/test.sh $(BIN)/python $(ARGS)

check: $(VENV)/.dev ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

fix: $(VENV)/.dev ## format and repair what can be repaired
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-sqlite bench-recurrence ## every benchmark

bench-sqlite: $(VENV)/.dev ## standalone on SQLite against a hand-written floor; writes build/bench/sqlite.json
	$(BIN)/python -m benchmarks.sqlite $(ARGS)

bench-recurrence: $(VENV)/.dev ## the next tick of an expression, beside croniter and cronsim
	$(BIN)/python -m benchmarks.recurrence $(ARGS)

bench-postgres: $(VENV)/.bench ## floors, JobMaster and peers on one Postgres; writes benchmarks/results/
	$(BIN)/python -m benchmarks.postgres $(ARGS)

bench-nats: $(VENV)/.bench ## floors, JobMaster and taskiq-nats on NATS, default and sync always; writes benchmarks/results/
	$(BIN)/python -m benchmarks.nats $(ARGS)

bench-mysql: $(VENV)/.bench ## a floor and JobMaster on one MariaDB; writes benchmarks/results/
	$(BIN)/python -m benchmarks.mysql $(ARGS)

bench-cluster: $(VENV)/.dev ## held jobs that become near together, three coordinators; writes benchmarks/results/
	$(BIN)/python -m benchmarks.handoff $(ARGS)

bench-retention: $(VENV)/.dev ## a history of millions: read, drained beside, pruned; writes benchmarks/results/
	$(BIN)/python -m benchmarks.retention $(ARGS)

docs: $(VENV)/.dev ## write the generated parts of the documentation
	$(BIN)/python scripts/docs.py

clean: ## remove what make made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
