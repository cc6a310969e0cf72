# Python to make the virtual environment with, the demo's port; FEW_STEPS=1 for the demo in four steps.
PYTHON ?= python3
PORT ?= 8199

.PHONY: demo check lint test test-full clean

demo:
	@$(PYTHON) demo/environment.py
	@.venv/bin/python -m comfyui_fluxir.demo.run --port $(PORT) $(if $(FEW_STEPS),--few-steps)

# What a pull request must pass first: format, lint, types, unit tests.
check: lint
	@.venv/bin/python -m pytest -q tests/unit

lint:
	@$(PYTHON) demo/environment.py
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/pyright

# Everything, with two real ComfyUIs and a browser.
test: lint
	@$(PYTHON) demo/environment.py --tests
	@.venv/bin/python -m pytest -m "not full" --durations 15

# Everything, also what is longer than `make test` allows.
test-full:
	@$(PYTHON) demo/environment.py --tests
	@.venv/bin/python -m pytest --durations 15

clean:
	rm -rf .venv .cache output
