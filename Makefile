# Every target does its own set-up: Python 3.11 or newer and make are all it takes.
# CLUSTER PARTITION DATASET DATA BACKBONE WEIGHTS are passed on where they are not empty; ARGS verbatim.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETTINGS = $(foreach pair,dataset:DATASET data:DATA backbone:BACKBONE weights:WEIGHTS,$(call given,$(subst :, ,$(pair))))
given = $(if $($(word 2,$(1))),'$(word 1,$(1))=$($(word 2,$(1)))')
CLUSTERED = $(if $(CLUSTER),--cluster '$(CLUSTER)') $(if $(PARTITION),--partition '$(PARTITION)')

.PHONY: help setup test test-full test-slurm test-faults test-browser lint type status reports figures overhead site bench
.DEFAULT_GOAL := help

help: ## Say what there is
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18
	@echo "sweeps: $(basename $(notdir $(wildcard sweeps/*.yaml)))"
	@echo "reports: $(basename $(notdir $(wildcard reports/*.yaml)))"
	@echo "figures: $(basename $(notdir $(wildcard figures/*.yaml)))"

setup: $(VENV)/.ready ## Install wsolbench into .venv

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

sweep-%: $(VENV)/.ready ## Run the trials of sweeps/<name>.yaml that have no result, and print their table
	$(BIN)/wsolbench sweep sweeps/$*.yaml $(SETTINGS) $(CLUSTERED) $(ARGS)

report-%: $(VENV)/.ready ## Render reports/<name>.yaml from the results
	$(BIN)/wsolbench report reports/$*.yaml $(SETTINGS) $(ARGS)

figure-%: $(VENV)/.ready ## Draw figures/<name>.yaml from the results
	$(BIN)/wsolbench figure figures/$*.yaml $(SETTINGS) $(ARGS)

reports: $(VENV)/.ready ## Render all tables of finished trials
	$(BIN)/wsolbench report $(filter-out reports/overhead.yaml,$(wildcard reports/*.yaml)) $(SETTINGS) $(ARGS)

figures: $(VENV)/.ready ## Draw all figures
	$(BIN)/wsolbench figure $(wildcard figures/*.yaml) $(SETTINGS) $(ARGS)

overhead: $(VENV)/.ready ## Count parameters, MACs and operations of the methods
	$(BIN)/wsolbench overhead $(ARGS)

site: $(VENV)/.ready ## Write all tables, figures, galleries and trials as pages, into site/
	$(BIN)/wsolbench site --out site $(SETTINGS) $(ARGS)

status: $(VENV)/.ready ## Say how far all trials are
	$(BIN)/wsolbench status $(ARGS)

test: $(VENV)/.ready-dev ## Run the tests
	$(BIN)/python -m pytest -q -n auto --dist loadfile $(ARGS)

test-full: $(VENV)/.ready-dev ## Run the conformance suite on the full networks
	$(BIN)/python -m pytest -q -m full $(ARGS)

test-slurm: $(VENV)/.ready-dev ## Run the tests on a real SLURM, a cluster of three nodes on this machine
	tests/slurm/cluster check
	$(BIN)/python -m pytest -q -m slurm -n 4 --dist loadfile $(ARGS)

test-faults: $(VENV)/.ready-dev ## Run the tests that kill what they test
	$(BIN)/python -m pytest -q -m faults $(ARGS)

test-browser: $(VENV)/.ready-dev ## Run the tests of the pages in Chromium
	$(BIN)/python -m pytest -q -m browser $(ARGS)

lint: $(VENV)/.ready-dev ## Look for slips
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: $(VENV)/.ready-dev ## Check the types
	$(BIN)/mypy

bench: $(VENV)/.ready-dev ## Measure: ratios, side by side
	$(BIN)/python benchmarks/store.py
	$(BIN)/wsolbench overhead --measure --only vgg16/adl --pairs 15 --batch-size 4
	$(if $(DATA),$(BIN)/python benchmarks/loader.py --data '$(DATA)')
	$(BIN)/python benchmarks/has_mask.py --method has
	$(BIN)/python benchmarks/training_step.py dataset=cub backbone=vgg16 method=cam
	$(BIN)/python benchmarks/training_step.py dataset=cub backbone=resnet50 method=cam
	$(BIN)/python benchmarks/training_step.py dataset=cub backbone=mobilenet_v1 method=cam
	$(BIN)/python benchmarks/sweep.py dataset=shapes backbone=tiny method=adl epochs=1 lr_steps=[]
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/masks.py
	$(BIN)/python benchmarks/evaluation_pass.py --backbone resnet50
	$(BIN)/python benchmarks/evaluation_pass.py --backbone vgg16
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/cost_model.py --steps 1 --batch 4
