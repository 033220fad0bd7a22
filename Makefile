# `make` alone lists the targets.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.txt
STAMP := $(VENV)/.made-from
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/collections
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo test molecule lab lab-down lint lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv from the locked requirements (a second when nothing changed)
	@bash requirements/setup.sh $(VENV) $(LOCK) $(STAMP)

demo: setup ## the main job on this machine: no root, no Docker, no Loki (LIVE=1 asks the real provider)
	@$(BIN)/python -m tests.demo

test: lint ## lint, types, documentation of the modules, unit, contract and integration tests; no Docker
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: setup ## ruff, mypy, import-linter, yamllint, ansible-lint, shellcheck where it is installed
	@bash tests/lint.sh

molecule: setup ## every Molecule scenario, in the lab (needs root for the Docker engine)
	@bash molecule/run-all.sh

lab: setup ## leave the lab standing, and say how to look around in it
	@molecule/lab/lab up && molecule/lab/lab status

lab-down: ## take the lab down
	@molecule/lab/lab down

lock: setup ## resolve the requirements anew
	@bash requirements/lock.sh

clean: ## remove what was built here (not the lab, not its cache)
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .ansible *.tar.gz
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
