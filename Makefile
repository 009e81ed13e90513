# Everything runs in .venv, which the first target that needs it sets up; a fresh machine needs only
# Python and make. `make help` lists the targets.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt

BIN := .venv/bin
STAMP := .venv/.installed

# Small tensors run fastest on one thread, and idle OpenMP threads must not spin on a shared machine.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help venv hooks lint test test-portable test-slow test-models demo tutorials docs linkcheck benchmark benchmark-peers wheel clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST)

venv: $(STAMP) ## set up .venv

# The version stands in captum_robust/_version.py, and the installed metadata must follow it.
$(STAMP): pyproject.toml $(CONSTRAINTS) captum_robust/_version.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[benchmark,dev]'
	touch $@

hooks: $(STAMP) ## let git run the checks of a commit
	$(BIN)/pre-commit install

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict captum_robust

test: $(STAMP) ## the tests, the examples of the docstrings and of the README
	$(BIN)/python -m pytest

# Another processor rounds otherwise, and so do the kernels for an old one. MKL and oneDNN multiply
# and take exponentials, OpenBLAS multiplies for NumPy; torch's own kernels alone change little.
OTHER_KERNELS := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE DNNL_MAX_CPU_ISA=SSE41 \
	OPENBLAS_CORETYPE=Prescott
# The files whose tests other kernels, or rounding put in by hand, have turned red before.
PORTABLE ?= tests/graph tests/benchmark_runner/test_pairs.py tests/test_curvature.py \
	$(addprefix tests/robust/test_,auto.py constraints.py flags.py pareto.py swaps.py) \
	$(addprefix tests/metrics/test_,broken_input.py chunks_and_seeds.py)

test-portable: $(STAMP) ## the tests of near-ties, rounded as another processor would
	$(OTHER_KERNELS) $(BIN)/python -m pytest $(PORTABLE)

test-slow: $(STAMP) ## the tests marked slow
	$(BIN)/python -m pytest -m slow

MODELS_STAMP := .venv/.models-installed

$(MODELS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[models]'
	touch $@

test-models: $(MODELS_STAMP) ## the tests of architectures of other libraries
	$(BIN)/python -m pytest -m models

demo: $(STAMP) ## the demonstration on real data
	$(BIN)/captum-robust demo

benchmark: $(STAMP) ## speed and memory as ratios to naive code
	$(BIN)/python -m tests.benchmark

DOCS_STAMP := .venv/.docs-installed

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[docs]'
	touch $@

TUTORIALS ?= tutorials/*.ipynb

# With the data that ship, whatever lies in CAPTUM_ROBUST_DATA. The second pass drops what differs
# from machine to machine.
tutorials: $(DOCS_STAMP) ## run the notebooks of tutorials/ and write their outputs into them
	env --unset=CAPTUM_ROBUST_DATA $(BIN)/python -m jupyter nbconvert --to notebook --inplace --execute \
		$(TUTORIALS)
	$(BIN)/python -m jupyter nbconvert --to notebook --inplace --coalesce-streams \
		--ClearMetadataPreprocessor.enabled=True \
		--ClearMetadataPreprocessor.preserve_nb_metadata_mask='{"kernelspec", ("language_info", "name")}' \
		$(TUTORIALS)

# DOCS_NOTEBOOKS: cache runs the tutorials that have changed, force all of them, off none.
docs: $(DOCS_STAMP) ## the site, into build/docs; runs the tutorials, needs no network
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees docs build/docs

linkcheck: $(DOCS_STAMP) ## the links of the site to other sites; needs a network
	DOCS_NOTEBOOKS=off $(BIN)/python -m sphinx -b linkcheck -d build/linkcheck-doctrees docs build/linkcheck

# Quantus brings OpenCV and pandas, so it is installed only here.
benchmark-peers: $(STAMP) ## speed and answers of Captum and Quantus beside ours
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[peers]'
	$(BIN)/python -m tests.benchmark --only sensitivity
	$(BIN)/python docs/figures/peers.py

# From an empty folder and with python -I, so that only the installed wheel can be imported.
wheel: $(STAMP) ## build the package and import it in a clean environment
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	set -e; clean=$$(mktemp -d); trap 'rm -rf "$$clean"' EXIT; \
	$(BIN)/python -m venv "$$clean"; \
	"$$clean/bin/python" -m pip install --constraint $(CONSTRAINTS) dist/*.whl; \
	mkdir "$$clean/empty"; here=$$(pwd); cd "$$clean/empty"; \
	"$$clean/bin/python" -I "$$here/.ci/check_install.py"

clean: ## remove .venv and everything built
	rm -rf .venv dist build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
