# Python to make the virtual environment with, the demo's port; FEW_STEPS=1 for the demo in four steps.
PYTHON ?= python3
PORT ?= 8199

.PHONY: demo check environment format types lint unit test test-full fuzz clean

demo:
	@$(PYTHON) demo/environment.py
	@.venv/bin/python -m comfyui_fluxir.demo.run --port $(PORT) $(if $(FEW_STEPS),--few-steps)

# What a pull request must pass first: minutes. The types are checked beside the tests.
check: environment
	@$(MAKE) --no-print-directory --jobs 2 lint unit

environment:
	@$(PYTHON) demo/environment.py --tests

format: environment
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/ruff check --quiet .

types: environment
	@.venv/bin/pyright

lint: format types

unit: environment
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/unit --numprocesses 2

test: lint
	@.venv/bin/python -m pytest -m "not full" --durations 15

# Everything, also what is longer than `make test` allows.
test-full: lint
	@.venv/bin/python -m pytest --durations 15

# Nodes, damaged files, odd command lines, kills: each loop for FLUXIR_FUZZ_SECONDS (half an hour), with a new seed every time.
fuzz: export FLUXIR_FUZZ_SECONDS ?= 1800
fuzz: export FLUXIR_FUZZ_SEED ?= $(shell date +%s)
fuzz: environment
	@.venv/bin/python -m pytest tests/fuzz

clean:
	rm -rf .venv .cache output
