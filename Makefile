# All work happens in .venv, made by the first target that needs it. Needs python3 (3.10 to 3.13) and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
FLAGS ?=

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-10s %s\n", $$1, $$2 }'

.venv/.done: settings.ini setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "robustnb needs Python 3.10 or newer: make PYTHON=python3.12 ...")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install -q --compile-bytecode -p $(BIN)/python -e ".[dev,docs]"
	@touch $@

.venv/.bench: .venv/.done
	$(BIN)/uv pip install -q --compile-bytecode -p $(BIN)/python -e ".[bench]"
	$(BIN)/uv pip install -q --compile-bytecode -p $(BIN)/python --no-deps deepod # its metadata asks for old versions; current ones do
	@touch $@

demo: .venv/.done ## reproduce every paper at tiny scale, print the ledger, write report.html
	$(BIN)/robustnb reproduce --scale tiny --workers 2

test: .venv/.done ## the tests, made from the notebooks, and the system tests (ARGS="-k pgd" for some of them, JOBS=8 for eight files at once)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lab: .venv/.done ## JupyterLab on the notebooks, which are cleaned on save
	$(BIN)/jupyter lab --config=tools/jupyter_server_config.py nbs

docs: .venv/.done ## the site, into docs/_build/html
	$(BIN)/python -m sphinx -q -W --keep-going -c docs -d docs/_build/doctrees nbs docs/_build/html
	@echo docs/_build/html/index.html

check: .venv/.done ## generated files in step, notebooks clean, imports one way, no stray paths; outputs from other code are listed
	$(BIN)/python tools/check.py

export: .venv/.done ## notebooks -> package, tests and README
	$(BIN)/python tools/export_experiments.py
	$(BIN)/nbdev_export
	$(BIN)/python tools/export_tests.py
	$(BIN)/python tools/readme.py
	$(BIN)/nbdev_clean

notebooks: .venv/.done ## run the notebooks whose outputs come from other code, and some others, for ten minutes (ALL=1, NBS="..."); nothing saved
	$(BIN)/python tools/run_nbs.py --no-save --jobs $(JOBS) --timeout 600 $(or $(NBS),--pick $(if $(ALL),all,due --minutes 10))

run: .venv/.done ## run notebooks whose outputs come from other code, and store them; or make run NB="nbs/00_data.ipynb" FLAGS=slow,gpu
	$(BIN)/python tools/run_nbs.py --timeout 7200 --flags "$(FLAGS)" $(or $(NB),--pick stale)
	$(BIN)/nbdev_clean

bench: .venv/.bench ## run the benchmark notebooks on this machine and store their tables
	$(BIN)/python tools/run_nbs.py --timeout 7200 --flags "slow,notest,$(FLAGS)" $(wildcard nbs/benchmarks/*.ipynb)
	$(BIN)/nbdev_clean

oldest: .venv/.done ## the notebooks' tests with the oldest versions that settings.ini allows (WITH="torch==2.11.*" for others, PYTHON=python3.12)
	$(BIN)/uv venv -q --allow-existing -p $(PYTHON) .venv/oldest
	$(BIN)/uv pip install -q -p .venv/oldest/bin/python --resolution lowest-direct -e . $(WITH)
	$(BIN)/uv pip install -q --compile-bytecode -p .venv/oldest/bin/python pytest pytest-xdist hypothesis higher
	.venv/oldest/bin/python -m pytest -n $(JOBS) --dist loadfile tests/test_*.py

gpu: .venv/.done ## what a GPU settles, within MINUTES=25: tests, speed, CIFAR-10, experiments; goes on when called again (FLAGS=--rehearse on a CPU)
	$(BIN)/python tools/gpu.py run --minutes $(or $(MINUTES),25) $(FLAGS)

.PHONY: help demo test lab docs check export notebooks run bench oldest gpu
