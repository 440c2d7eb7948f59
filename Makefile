# Everything a person or CI does with this project. `make` alone explains the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STUBS := src/inventory_client/proto
PROTO := inventory_client/proto/inventory/v1/inventory.proto

.DEFAULT_GOAL := help
.PHONY: help setup run audit test lint types proto check-proto acceptance bench benchmarks soak fuzz fuzzer clean

help: ## explain the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## make .venv with everything the project needs

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, not %d.%d: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(READY) ## serve on 127.0.0.1:50051, on an embedded PostgreSQL and Redis unless the environment names others
	@INVENTORY_DATA_DIR="$${INVENTORY_DATA_DIR:-.inventory}" exec $(BIN)/inventory-server serve

audit: $(READY) ## prove that the books of `make run` agree, beside it or without it
	@INVENTORY_DATA_DIR="$${INVENTORY_DATA_DIR:-.inventory}" exec $(BIN)/inventory-server audit

test: $(READY) ## run the tests (they start the stores they need)
	$(BIN)/python -m pytest

acceptance: $(READY) ## drive the real process with the real grpcurl
	$(BIN)/python -m pytest tests/acceptance --acceptance

lint: $(READY) ## check style, imports, sizes and the proto
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/buf lint

types: $(READY) ## check types
	$(BIN)/mypy

proto: $(READY) ## generate the stubs from protos/
	$(call generate,src)

check-proto: $(READY) ## prove that the committed stubs are what protos/ generates
	@rm -rf build/stubs && mkdir -p build/stubs
	$(call generate,build/stubs)
	diff --recursive --brief --exclude=__pycache__ --exclude=__init__.py $(STUBS) build/stubs/inventory_client/proto

bench: $(READY) ## measure an empty handler, a transaction per request, this service, and its bulk calls
	$(BIN)/python -m tests.bench $(ARGS)
	$(BIN)/python -m tests.bench.bulk

benchmarks: $(READY) ## write docs/benchmarks: curves, baselines, goals met and not met (takes an hour)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[plots]'
	$(BIN)/python -m tests.bench.book $(ARGS)

soak: $(READY) ## use the whole API while everything is broken, and audit each answer (ARGS="--seconds 600 --seed 1")
	$(BIN)/python -m tests.soak $(ARGS)

fuzz: fuzzer ## send whatever bytes to every RPC (ARGS=100000 for as many calls of each kind)
	INVENTORY_FUZZ_EXAMPLES=$(or $(ARGS),5000) $(BIN)/python -m pytest tests/hostile

fuzzer: $(READY) ## install the fuzzer that is guided by coverage, without which `make test` leaves its test out
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'

clean: ## remove what was generated, but not the data of `make run`
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

define generate
	$(BIN)/python -m grpc_tools.protoc -I inventory_client/proto=protos -I protos \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) $(PROTO)
endef
