# `make` alone shows the targets.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.txt
LEVEL := network
STAMP := $(VENV)/.made-from
# Use one worker more than there are processors, because some tests only wait to see that an event does not happen.
WORKERS = $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)')
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/collections
# Let Python cache compiled modules, because a test run starts the same programs a hundred times.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo pictures test bench chaos attack contract playbooks molecule lab lab-down lint sanity galaxy changelog docs lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## create .venv from the locked requirements (a second if nothing changed)
	@bash requirements/setup.sh $(VENV) $(LOCK) $(STAMP)

demo: setup ## demonstrate the product on this machine: no root, no Docker, no Loki (LIVE=1 calls the real provider, KEEP=1 leaves the web page open)
	@$(BIN)/python -m tools.demo

pictures: setup ## write the pictures in docs/ again, from the demo's data (needs the system's package chromium)
	@PICTURES=1 $(BIN)/python -m pytest tests/integration/ui/test_demo.py

test: lint ## run lint, type checks, module documentation, unit, contract and integration tests; no Docker
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --durations 15

bench: setup ## measure stream delay, decisions, recording, masking and usage; write build/*.json
	@failed=0; for name in streaming deciding recording masking usage; do $(BIN)/python -m "tests.benchmarks.$$name" || failed=1; done; exit $$failed

chaos: setup ## run floods and faults against the proxy on loopback (under six minutes); write build/chaos.json (THEMES="crash disk")
	@$(BIN)/python -m tests.resilience

attack: setup ## try egress bypasses from each container class in the lab (LEVEL=application|network, SIBLINGS=1); write build/attack.json
	@PYTHONPATH=files/addon:molecule $(BIN)/python -m tests.security --level $(LEVEL) $(if $(SIBLINGS),--siblings)

contract: setup ## test Loki's contract against the fake, LOKI_URL=…, or LAB_LOKI_IMAGE=grafana/loki:3.x
	@bash tests/contract/loki/run.sh

lint: setup ## run ruff, mypy, import-linter, yamllint, ansible-lint, shellcheck, codespell, deptry, antsibull
	@bash tools/lint.sh

sanity: setup ## run ansible-test sanity for ansible-core 2.19 to 2.21 (VERSIONS=2.21: one of them); a minute each
	@bash tools/sanity.sh $(VERSIONS)

galaxy: setup ## build the collection's artifact and check it with galaxy-importer, as Galaxy does on upload
	@bash tools/galaxy.sh

changelog: setup ## print the unreleased changes as the next release's notes
	@rm -rf build/changelog && mkdir -p build/changelog && cp -R changelogs galaxy.yml meta plugins build/changelog
	@cd build/changelog && antsibull-changelog release --date "$$(date +%F)" >&2 && cat CHANGELOG.md

playbooks: setup ## test playbooks and modules with fake docker and ufw, and the lab's own parts
	@$(BIN)/python -m pytest --numprocesses auto --dist worksteal tests/playbooks molecule/lab

molecule: setup ## run the playbooks' tests and every Molecule scenario in the lab (needs root for the Docker engine)
	@bash molecule/run-all.sh

lab: setup ## create the lab, deploy into it, and show how to inspect it
	@LAB_KEEP=1 molecule converge --scenario-name default && molecule/lab/lab status

lab-down: ## take the lab down
	@molecule/lab/lab down

docs: setup ## generate tables in README.md and docs, the policy's JSON Schema, Grafana's dashboards and the alert rules
	@$(BIN)/python -m tools.role_tables
	@$(BIN)/python -m tools.provider_table
	@PYTHONPATH=files/addon $(BIN)/python -m tools.references
	@$(BIN)/python -m tools.monitoring
	@mkdir -p build
	@PYTHONPATH=files/addon $(BIN)/python -m openclaw_egress policy schema > build/policy.schema.json
	@mv build/policy.schema.json files/addon/openclaw_egress/policy/policy.schema.json

lock: setup ## resolve and lock the requirements again
	@bash requirements/lock.sh

clean: ## remove build results (not the lab, not its cache)
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .ansible *.tar.gz
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
