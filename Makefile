# Python to make the virtual environment with, the demo's port; FEW_STEPS=1 for the demo in four steps.
PYTHON ?= python3
PORT ?= 8199

.PHONY: demo test clean

demo:
	@$(PYTHON) demo/environment.py
	@.venv/bin/python -m comfyui_fluxir.demo.run --port $(PORT) $(if $(FEW_STEPS),--few-steps)

test:
	@$(PYTHON) demo/environment.py --tests
	@.venv/bin/python -m pytest

clean:
	rm -rf .venv .cache output
