# Python to make the virtual environment with, the demo's port; FEW_STEPS=1 for the demo in four steps.
PYTHON ?= python3
PORT ?= 8199

.PHONY: demo check lint test test-full fuzz clean

demo:
	@$(PYTHON) demo/environment.py
	@.venv/bin/python -m comfyui_fluxir.demo.run --port $(PORT) $(if $(FEW_STEPS),--few-steps)

# What a pull request must pass first: minutes.
check: lint
	@.venv/bin/python -m pytest tests/unit

lint:
	@$(PYTHON) demo/environment.py --tests
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/ruff check --quiet .
	@.venv/bin/pyright

test: lint
	@.venv/bin/python -m pytest -m "not full" --durations 15

# Everything, also what is longer than `make test` allows.
test-full: lint
	@.venv/bin/python -m pytest --durations 15

# Nodes, damaged files, odd command lines, kills: each loop for FLUXIR_FUZZ_SECONDS (half an hour), with a new seed every time.
fuzz: export FLUXIR_FUZZ_SECONDS ?= 1800
fuzz: export FLUXIR_FUZZ_SEED ?= $(shell date +%s)
fuzz:
	@$(PYTHON) demo/environment.py --tests
	@.venv/bin/python -m pytest tests/fuzz

clean:
	rm -rf .venv .cache output
