# Every target makes what it needs: a fresh clone and a Python >= 3.11 are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The Python whose torch has CUDA: the pinned environment has the CPU build.
GPU_PYTHON ?= python3
# Where the figures of make gpu go (a file there is replaced), and a folder of packed real
# features (mmsa bench gpu --pack).
OUT ?= gpu-bench.json
FEATURES ?=

.PHONY: venv demo test test-faults test-soak test-mutants gpu lint types style audit package clean

venv: $(STAMP)

# Compiled by all cores, which pip does not do; packages hold files for newer Pythons too.
# What is hardly ever imported is left to its first import: nearly half of all.
SELDOM := /(_?tests?|pip|setuptools|mypyc?|transformers/models|torch/testing/_internal|_inductor/(codegen|fx_passes|kernel)|sympy/(physics|stats)|databricks|sentence_transformers|selenium/webdriver/common/devtools|jieba/posseg|ray/(rllib|data|serve|tune|train|llm)|moto/(?!core|s3/|utilities|moto_)[^/]+|cfnlint|graphql)/
COMPILE := $(BIN)/python -m compileall -q -j 0 -x '$(SELDOM)'
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("mmsa needs Python 3.11 or later: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0 setuptools
	{ $(COMPILE) $(VENV)/lib/*/site-packages/torch $(VENV)/lib/*/site-packages/sympy & } >/dev/null 2>&1; \
	$(PIP) --no-build-isolation -e '.[dev]'; status=$$?; wait; exit $$status
	$(COMPILE) $(VENV)/lib >/dev/null 2>&1 || true
	touch $@

demo: venv
	$(BIN)/mmsa demo

# A process a core and one more, since some wait for other processes; one thread in each. Test files
# share nothing. What many processes import is compiled once.
JOBS = $$($(BIN)/python -c 'import os; print(1 + (os.cpu_count() or 1))')

test: venv
	$(BIN)/python -m compileall -q -j 0 mmsa_cache extract fuse tests/support
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# The longer series of kills, failing disks, damage, fuzzing and memory; ends with a table of them.
test-faults: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "faults or counted" -n auto --dist loadfile --no-loadscope-reorder

# A random mixture of commands on one folder, many of them killed; SEED=N draws the same one again.
MINUTES ?= 60
test-soak: venv
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# Which changes of FILES the tests in TESTS do not see; EVERY=K tries every K-th, MISSED=1 only those
# that the last run missed.
FILES ?= fuse/losses/*.py
test-mutants: venv
	$(PIP) --no-build-isolation -e '.[mutants]'
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(FILES) $(if $(TESTS),--tests $(TESTS)) $(if $(EVERY),--every $(EVERY)) $(if $(MISSED),--missed)

# On a machine with a GPU; see tests/gpu/README.md. What fails in the tests is measured all the same.
gpu:
	@status=0; \
	$(GPU_PYTHON) -m pytest tests/gpu -m gpu -W default || status=$$?; \
	$(GPU_PYTHON) -m mmsa_cache bench gpu --force $(if $(FEATURES),--features $(FEATURES)) --json $(OUT) >/dev/null || status=$$?; \
	exit $$status

# Types take as long as all the rest.
lint: venv
	$(MAKE) --no-print-directory -j 2 -O types style

types: venv
	$(BIN)/mypy

style: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m tests.lint
	$(BIN)/python -m tests.audit --check

# Licences of the pinned versions, as in tests/README.md.
audit: venv
	@$(BIN)/python -m tests.audit

# dist/: an sdist and the wheel that is built of it. The tests install the wheel and run its demo,
# there and where Python lacks what macOS and Windows have not.
package: venv
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "faults or not faults" tests/project

clean:
	rm -rf $(VENV) build dist *.egg-info
