# One word a job; every word sets up what it needs. `make demo` and `make test` are all that a newcomer types.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

.PHONY: setup demo test test-all check fix bench docs clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable ".[dev]"
	@touch $@

# simulated newborns whose best attainable AUC is known -> audit, stages, folds, statistics, readers, report
demo: setup
	@rm -rf $(DEMO)
	@$(BIN)/tenfold simulate nec --seed 1 --ineligible 30 --source 700 --out $(DEMO)/newborns --quiet
	@$(BIN)/tenfold run $(DEMO)/newborns --out $(DEMO)/run

# two at a time: each takes one thread, and up to 2 GB
test: setup
	@$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-all: setup
	@$(BIN)/python -m pytest

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fix: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup
	@for file in benchmarks/bench_*.py benchmarks/nec.py benchmarks/connectome.py benchmarks/serve.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

# tables of the reference that are generated from the code
docs: setup
	@$(BIN)/tenfold schema > docs/reference/study.schema.json
	@$(BIN)/python docs/generate.py

clean:
	rm -rf .venv $(DEMO)
