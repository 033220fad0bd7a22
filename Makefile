# `make` alone lists the targets.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.txt
LEVEL := network
STAMP := $(VENV)/.made-from
# One more than there are processors: some tests wait for what must not come.
WORKERS = $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)')
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/collections
# What is started a hundred times in a test run is compiled once.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo test bench chaos attack contract playbooks molecule lab lab-down lint docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv from the locked requirements (a second when nothing changed)
	@bash requirements/setup.sh $(VENV) $(LOCK) $(STAMP)

demo: setup ## the main job on this machine: no root, no Docker, no Loki (LIVE=1 asks the real provider)
	@$(BIN)/python -m tests.demo

test: lint ## lint, types, documentation of the modules, unit, contract and integration tests; no Docker
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --durations 15

bench: setup ## is a stream held back, what does a decision cost? writes build/bench.json and build/deciding.json
	@$(BIN)/python -m tests.benchmarks.streaming
	@$(BIN)/python -m tests.benchmarks.deciding

chaos: setup ## floods and faults against the proxy on loopback, under six minutes; writes build/chaos.json (THEMES="crash disk")
	@$(BIN)/python -m tests.chaos

attack: setup ## try to get out of every kind of container in the lab (LEVEL=application|network); writes build/attack.json
	@PYTHONPATH=files/addon:molecule $(BIN)/python -m tests.attack --level $(LEVEL)

contract: setup ## Loki's contract, asked of the stand-in, of LOKI_URL=…, or of LAB_LOKI_IMAGE=grafana/loki:3.x
	@bash tests/contract/loki/run.sh

lint: setup ## ruff, mypy, import-linter, yamllint, ansible-lint, shellcheck, codespell, deptry
	@bash tests/lint.sh

playbooks: setup ## playbooks and modules against stand-ins for docker and ufw, and what the lab is made of
	@$(BIN)/python -m pytest --numprocesses auto --dist worksteal tests/playbooks molecule/lab

molecule: setup ## the playbooks' tests, and every Molecule scenario in the lab (needs root for the Docker engine)
	@bash molecule/run-all.sh

lab: setup ## deploy into the lab, leave it standing, and say how to look around in it
	@LAB_KEEP=1 molecule converge --scenario-name default && molecule/lab/lab status

lab-down: ## take the lab down
	@molecule/lab/lab down

docs: setup ## write what is generated: the tables of variables in roles/*/README.md, the policy's JSON Schema
	@$(BIN)/python -m tests.role_tables
	@mkdir -p build
	@PYTHONPATH=files/addon $(BIN)/python -m openclaw_egress policy schema > build/policy.schema.json
	@mv build/policy.schema.json files/addon/openclaw_egress/policy.schema.json

lock: setup ## resolve the requirements anew
	@bash requirements/lock.sh

clean: ## remove what was built here (not the lab, not its cache)
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .ansible *.tar.gz
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
