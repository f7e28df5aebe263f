# make serve          installs into .venv and serves on 127.0.0.1:8000 (MIEN_HOST, MIEN_PORT, MIEN_DATA)
# make serve GPU=1    the same on an NVIDIA GPU, from .venv-gpu; refuses to run without one
# make test           what CI runs: ruff, mypy, every test but the slow ones
# make test-slow      the slow tests
# make weights        trains, exports and measures what ships, from ../shared/data; resumable
# make experiments    the ablations and HSANet's experiment, for docs/; resumable, hours
# make format         ruff's fixes and format
# make clean          takes away environments and caches, never data
#
# The CPU's and the GPU's packages have the same module names (onnxruntime, faiss), so each kind has
# an environment of its own. An environment is brought up to date when pyproject.toml has changed.

PYTHON ?= python3
GPU ?= 0
ifeq ($(GPU),0)
SERVE := .venv
else
SERVE := .venv-gpu
serve: export MIEN_DEVICE := cuda
endif

.PHONY: serve test test-slow check weights experiments format clean
.DELETE_ON_ERROR:

serve: $(SERVE)/.serve
	exec $(SERVE)/bin/mien serve

test: .venv/.dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/pytest -m "not slow"

test-slow: .venv/.dev
	.venv/bin/pytest -m slow

check: test

RUN := runs/ecacface-mobile/network.safetensors
MODEL := service/models/ecacface-mobile
DATA ?= ../shared/data

# What a face shows: the runs whose networks ship as patt-lite and mzts.
EXPRESSION := patt-lite
ATTRIBUTES := mzts-hybrid

# The allocator keeps its memory from step to step: else each of a step's large maps is cleared anew.
weights experiments: export MALLOC_MMAP_MAX_ := 0
weights experiments: export MALLOC_TRIM_THRESHOLD_ := 20000000000
weights experiments: export OMP_WAIT_POLICY := PASSIVE
# `time` is a word of bash; other shells look for a program, which many machines have not.
weights experiments: SHELL := bash
weights: .venv/.dev
	time -p .venv/bin/python -m training sizes --out docs/sizes.md
	time -p .venv/bin/python -m training train --data $(DATA)
	time -p .venv/bin/python -m export.recognition graph $(RUN) $(MODEL) \
		--crops $(DATA)/identities/validation.csv
	time -p .venv/bin/python -m training evaluate $(MODEL)/model.onnx --data $(DATA) \
		--out runs/figures.json --table runs/figures.md --picture $(MODEL)/calibration.png
	time -p .venv/bin/python -m export.recognition card $(RUN) $(MODEL) runs/figures.json
	install -D -m 644 $(RUN) training/weights/ecacface-mobile.safetensors
	time -p .venv/bin/python -m training train $(EXPRESSION) --data $(DATA)
	time -p .venv/bin/python -m export.expression make runs/$(EXPRESSION)/best.safetensors \
		training/weights/patt-lite.safetensors service/models/patt-lite --data $(DATA)
	time -p .venv/bin/python -m training train $(ATTRIBUTES) --data $(DATA)
	time -p .venv/bin/python -m export.attributes make runs/$(ATTRIBUTES)/best.safetensors \
		training/weights/mzts.safetensors service/models/mzts --data $(DATA)

experiments: .venv/.dev
	time -p .venv/bin/python -m training ablation --data $(DATA)
	time -p .venv/bin/python -m training surgery --data $(DATA)
	time -p .venv/bin/python -m training expression-ablation --data $(DATA)
	time -p .venv/bin/python -m training attributes-ablation --data $(DATA)

format: .venv/.dev
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

clean:
	rm -rf .venv .venv-gpu build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/.serve: EXTRA = cpu
.venv-gpu/.serve: EXTRA = gpu
.venv/.serve .venv-gpu/.serve: %/.serve: pyproject.toml | %/bin/python
	$*/bin/pip install --quiet --editable '.[$(EXTRA)]'
	touch $@

# With what serving needs.
.venv/.dev: pyproject.toml | .venv/bin/python
	.venv/bin/pip install --quiet --editable '.[dev]'
	touch $@ .venv/.serve

%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Mien needs Python 3.11 or newer, and '$(PYTHON)' is" \
			"$$($(PYTHON) --version 2>/dev/null || echo "not there"): name another with make PYTHON=..." >&2; \
		exit 1; }
	@$(PYTHON) -m venv $* || { rm -rf $*; \
		echo "no virtual environment could be made; Debian and Ubuntu have it in python3-venv" >&2; \
		exit 1; }
