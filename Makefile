# Two commands for a fresh machine: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
T ?= tests
K ?=
HOME_DIR ?= .domicile

.PHONY: help setup demo run work test check fmt lint types imports bench openapi clean

help:  ## List the verbs
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Make the virtual environment from constraints.txt

$(STAMP): pyproject.toml constraints.txt tests/clients/requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it, or say PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	@# torch first and alone, from the pin, so that no other package chooses a build of it
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,dev,bench]'
	@# clients that tests run as programs of their own, on versions that cannot stand beside the rest
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --no-warn-conflicts --target $(VENV)/clients -r tests/clients/requirements.txt
	touch $(STAMP)

demo: $(STAMP)  ## Run the main job on the examples, and end
	$(BIN)/python examples/demo.py

run: $(STAMP)  ## Serve; prints the portal's address and a one-time sign-in link
	@test -f $(HOME_DIR)/domicile.toml || $(BIN)/domicile init --home $(HOME_DIR)
	$(BIN)/domicile serve --home $(HOME_DIR)

work: $(STAMP)  ## Work on waiting documents without serving
	$(BIN)/domicile work --home $(HOME_DIR)

test: $(STAMP)  ## Set up and pass the tests (T=path K=words)
	$(BIN)/python -m pytest $(T) $(if $(K),-k '$(K)') -q -n 2 --dist loadfile

check: fmt lint types imports test  ## Everything a change must pass

fmt: $(STAMP)  ## Format
	$(BIN)/ruff format .

lint: $(STAMP)  ## Lint
	$(BIN)/ruff check .

types: $(STAMP)  ## Check types
	$(BIN)/mypy residency ingestion service

imports: $(STAMP)  ## Hold the import contracts
	$(BIN)/lint-imports

bench: $(STAMP)  ## Ratios against llama-index and bare costs (BENCH_PASSAGES=file.jsonl)
	$(BIN)/python -m bench.run
	$(BIN)/python -m bench.concurrent
	$(BIN)/python -m bench.large

openapi: $(STAMP)  ## Write openapi.json anew
	$(BIN)/python -m service.openapi > openapi.json

clean:  ## Remove what can be made again
	rm -rf $(VENV) .domicile demo-out .cache build dist
