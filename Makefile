# Every target makes the environment it needs; `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS ?= --quiet --disable-pip-version-check
STAMP := $(VENV)/.diffopt-installed
# One process a core, each with one thread: OpenMP threads of two processes would wait for one another.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: peers bakeoff diffbench coverage test-tensorrt demo test test-quick test-thorough test-gpu pairs pages check format lint types layers clean distclean setup train corpus

demo: setup
	$(BIN)/diffopt compile demo:shapes -o out/shapes --force --budget 80s --seed 0 --fit-solver 2,3,5
	$(BIN)/diffopt run out/shapes --prompt "a large red circle on the left and a small blue square on the right, white background" --seed 1 -o out/shapes.png

test: setup
	$(TESTS) -m "not gpu"

test-quick: setup
	$(TESTS) -m "not gpu and not slow"

# Every law on more examples: for what changes a law, or before a release.
test-thorough: setup
	$(TESTS) -m "not gpu" --thorough

test-gpu: setup
	$(BIN)/python -m pytest -q -m gpu

# Every ordered pair of passes that the verifier allows, run for a few steps on a UNet and a transformer; forty minutes of a core.
pairs: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m diffopt.pairs --run

# The pages that are derived from the passes' declarations.
pages: setup
	$(BIN)/python -m diffopt.catalogue_page
	$(BIN)/python -m diffopt.pairs

check: lint types layers

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What becomes of every pipeline class of diffusers, and of the examples in its docstrings: lifted, or why not.
corpus: setup
	$(BIN)/python -m diffopt.bench.corpus.classes
	$(BIN)/python -m diffopt.bench.corpus

# Every backend against eager torch, component by component; builds first, then wants a core alone. Goes on where it was stopped.
bakeoff: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m diffopt.bench.bakeoff --build
	OMP_NUM_THREADS=1 $(BIN)/python -m diffopt.bench.bakeoff
	$(BIN)/python -m diffopt.bench.bakeoff --page docs/backends.md

# Which denoiser classes of diffusers become engines; goes on where it was stopped.
coverage: setup
	$(BIN)/python -m diffopt.bench.coverage
	$(BIN)/python -m diffopt.bench.coverage --page docs/coverage.md

# On a machine with an NVIDIA GPU and `pip install -e .[cuda]`: builds plans of the built-in model and compares them with torch.
test-tensorrt: setup
	$(BIN)/python -m pytest -q -m "gpu or not gpu" tests/backends/test_tensorrt.py tests/backends/test_tensorrt_api.py

# DiffBench: levels 1 to 3 by rules alone (an hour or so), levels 4 and 5 by search (many hours), and the page. Goes on where it was stopped.
diffbench: setup
	-$(BIN)/diffopt bench run --threads 1 --store out/diffbench.store -o bench/results/diffbench-rules-cpu.json.gz
	-$(BIN)/diffopt bench search --threads 1 --store out/diffbench-searches.store -o bench/results/diffbench-searches-cpu.json.gz
	$(BIN)/diffopt bench report bench/results/diffbench-*-cpu.json.gz -o docs/diffbench.md

# Other tools beside diffopt, each in an environment of its own (5 GB below out/peers); an hour or more, goes on where it was stopped.
peers: setup
	$(BIN)/python -m diffopt.bench.peers

# Trains the built-in model and its scorer again; takes about an hour on two cores.
train: setup
	$(BIN)/python -m diffopt.bench.models.shapes.train --stage all

setup: $(STAMP)

# torch first: its CPU build is pinned in constraints.txt, and an unpinned dependency would bring a CUDA build.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt torch numpy
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[cpu,quant,llm,mcp,dev]"
	touch $(STAMP)

clean:
	rm -rf out runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
