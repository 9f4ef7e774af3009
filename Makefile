# One command each; `make` lists them.
PYTHON ?= python3
BIN := .venv/bin
PROTO := proto/fedemu/v1/federation.proto
PB := fedemu/net/_pb
DASHBOARDS := docker/grafana/dashboards

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow test-all check bench fidelity proto dashboards engine image

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/ready  ## set up everything in .venv

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: setup  ## run scenarios/quickstart.yaml: clients behind bad links learn digits
	@$(BIN)/fedemu run scenarios/quickstart.yaml

test: setup  ## run the test suite, without the slow tests
	$(BIN)/pytest -q

test-slow: setup  ## run the slow tests: processes, large models
	$(BIN)/pytest -q -rs -m slow --durations=40

test-all: test test-slow  ## run every test

check: setup  ## formatting, lint, types, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory proto PB=.venv/pb
	diff -r -x __pycache__ -x __init__.py .venv/pb $(PB)
	@$(MAKE) --no-print-directory dashboards DASHBOARDS=.venv/dashboards
	diff -r .venv/dashboards $(DASHBOARDS)

bench: setup  ## speed, as ratios against a floor measured in the same run
	$(BIN)/python -m tests.bench

fidelity: setup  ## TCP models against a real kernel's transfer times: typical and worst error
	$(BIN)/python -m tests.fidelity

proto: setup  ## generate the gRPC messages from proto/
	@mkdir -p $(PB) && rm -f $(PB)/*_pb2.py*
	@$(BIN)/python -m grpc_tools.protoc --proto_path=proto/fedemu/v1 --python_out=$(PB) --pyi_out=$(PB) federation.proto

dashboards: setup  ## generate the Grafana dashboards from docker/grafana/dashboards.py
	@mkdir -p $(DASHBOARDS) && rm -f $(DASHBOARDS)/*.json
	@$(BIN)/python docker/grafana/dashboards.py $(DASHBOARDS)

engine:  ## see to it that a Docker engine runs here (Debian, root)
	@docker/engine.sh

image: setup  ## build the images fedemu and fedemu-prometheus without pulling any
	@docker/image.sh
