# make demo     trains LeNet-5 on real digits and leaves pictures and a report in runs/demo
# make test     runs the tests, a process for each core; says what was skipped and why
# make lint     ruff and clang-format              make types    mypy
# make clean    removes the environment and everything built; runs/ stays
#
# Each makes .venv first and remakes it when what it is made from has changed. PYTHON names another interpreter; the
# GPUCNN_ variables (README) decide about the compiled modules. Unless GPUCNN_SIMT says otherwise, the kernels are built
# for the CPU where there is a C++ compiler, since most of their tests run there; for the demo alone they are not.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GOAL := $(or $(firstword $(MAKECMDGOALS)),demo)

PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
CREATED := $(VENV)/created-$(PYTHON_VERSION)
BUILD_INPUTS := pyproject.toml setup.py $(shell find _build csrc -type f -not -name '*.pyc')
BUILD_VARIABLES := GPUCNN_CUDA GPUCNN_ARCHS GPUCNN_NVCC GPUCNN_SIMT CUDA_HOME CUDA_PATH CXX
BUILD_SETTINGS = $(foreach name,$(BUILD_VARIABLES),$(name)=$($(name)))

FLAVOURS := plain,race,asan,profile
COMPILER := $(shell command -v $(CXX))
ifneq ($(GOAL),demo)
  export GPUCNN_SIMT ?= $(if $(COMPILER),$(FLAVOURS))
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint types environment clean FORCE
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/gpucnn train lenet5 --out runs/demo --overwrite

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(shell find csrc -name '*.cu' -o -name '*.cpp' -o -name '*.h' -o -name '*.cuh')

types: $(VENV)/installed-dev
	$(BIN)/mypy

environment: $(VENV)/installed-dev

$(CREATED):
	@test -n "$(PYTHON_VERSION)" || { echo "$(PYTHON) can't be run: make PYTHON=/path/to/python3 $(GOAL)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "gpucnn needs Python 3.10 or newer, $(PYTHON) is $(PYTHON_VERSION): make PYTHON=python3.12 $(GOAL)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) can't make virtual environments: install its venv module" \
	    "(Debian, Ubuntu: apt install python$(PYTHON_VERSION)-venv)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# Rewritten only when a setting differs, so that a change of the environment rebuilds and nothing else does.
$(VENV)/settings: FORCE $(CREATED)
	@echo '$(BUILD_SETTINGS)' | cmp -s - $@ || echo '$(BUILD_SETTINGS)' > $@

$(VENV)/installed: $(CREATED) $(VENV)/settings $(BUILD_INPUTS)
	$(BIN)/pip install --quiet --editable '.[test,plot]'
	@$(BIN)/gpucnn info | sed -n '/^backends/,/^$$/p'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f gpucnn/_cuda*.so gpucnn/_simt_*.so gpucnn/_build_info.json gpucnn/_kernel_report.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
