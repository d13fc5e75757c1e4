# Everything a newcomer needs: `make demo` and `make test` do all the set-up themselves.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.casemate-ready
WORKERS ?= 2
export VENV

.PHONY: help setup demo test test-slow check bench bench-fuzz docs reference constraints format clean distclean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

setup: $(READY) ## virtual environment, JDK, Java part

$(READY): pyproject.toml constraints/py311.txt hatch_build.py scripts/setup.sh scripts/jdk.sh $(shell find java -name '*.java' 2>/dev/null)
	@scripts/setup.sh
	@touch $@

demo: $(READY) ## the main job start to finish, and the attacks that fail
	@$(BIN)/casemate demo

test: $(READY) ## all tests but the slow ones
	@$(BIN)/pytest -q -n $(WORKERS) --dist loadgroup -m "not slow"

test-slow: $(READY) ## the tests that take minutes: benches of Spark on all set-ups
	@$(BIN)/pytest -q -m slow

check: $(READY) ## lint, types, structure, generated pages, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit/test_structure.py
	$(BIN)/python scripts/generate_reference.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

bench: $(READY) ## the short form of every benchmark (about ten minutes)
	@$(BIN)/casemate bench startup --repeats 3
	@$(BIN)/casemate bench attest --rounds 100
	@$(BIN)/casemate bench io --size 64 --repeats 3
	@$(BIN)/casemate bench scan --size 64m --repeats 1 --out build/bench/scan
	@$(BIN)/casemate bench tpcds --scale 0.1 --queries 3,7,19,42,52,68,96 --out build/bench/tpcds

bench-fuzz: $(READY) ## 100,000 spoiled inputs for every parser and verifier of evidence
	@$(BIN)/casemate bench fuzz --format json --out build/fuzz.json

docs: $(READY) ## serve the documentation locally
	@$(BIN)/mkdocs serve

reference: $(READY) ## write the generated pages of the documentation
	@$(BIN)/python scripts/generate_reference.py

constraints: ## pin what is installed now
	@{ head -n 1 constraints/py311.txt; \
	  $(BIN)/pip freeze --all --exclude-editable | grep -viE '^(casemate|pip)==|^-e|@ ' | sort -f; } > constraints/.new
	@mv constraints/.new constraints/py311.txt

format: $(READY) ## format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean: ## remove what was built, keep the virtual environment
	@rm -rf build dist site java/build .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse metastore_db derby.log
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment and the jar as well
	@rm -rf $(VENV) src/casemate/jars
