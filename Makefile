# make demo    an environment, then the two-minute demonstration
# make test    the tests          make lint    style, types, and the direction of imports
# make venv    the environment    make docs    regenerate the generated pages
# make clean   remove the environment and caches

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test lint format docs venv clean

demo: venv
	$(BIN)/transduce demo

# One thread a process: the tests are many small computations, and two processes share two cores
# better than two threads do.
test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: venv
	$(BIN)/python docs/options.py

venv: $(STAMP)

# torch first and by name, so that whatever else asks for torch finds it there.
$(STAMP): pyproject.toml setup.py constraints.txt $(wildcard src/transduce/kernels/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		"$$(grep '^torch==' constraints.txt | cut -d' ' -f1)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[dev,export,tensorboard]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
