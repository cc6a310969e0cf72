# Python to make the virtual environment with, and the demo's port.
PYTHON ?= python3
PORT ?= 8199

.PHONY: demo test clean

demo:
	@$(PYTHON) demo/environment.py
	@.venv/bin/python -m comfyui_fluxir.demo.run --port $(PORT)

test:
	@$(PYTHON) demo/environment.py --tests
	@.venv/bin/python -m pytest

clean:
	rm -rf .venv .cache output
