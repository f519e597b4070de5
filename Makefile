# Every check of this repository. Needs uv and Python 3.11 or newer; uv installs the rest on first use.
# CI (.ci/run and .github/workflows) calls these targets and nothing else.

UV ?= uv
# An additional option for the interpreter, for example: make test PYTHON=3.13
ifdef PYTHON
export UV_PYTHON := $(PYTHON)
endif

# Versions that `make parity` installs; empty means the newest that the package allows.
TRANSFORMERS ?= ==4.57.3
LLAMA_INDEX ?= ==0.13.0

PACKAGES := qwen3vl:qwen3vl qwen3vl-qdrant:qwen3vl_qdrant qwen3vl-chroma:qwen3vl_chroma \
	langchain-qwen3-vl:langchain_qwen3_vl llama-index-qwen3-vl:llama_index.embeddings.qwen3_vl \
	qwen3vl-server:qwen3vl_server qwen3vl-ray:qwen3vl_ray qwen3vl-mteb:qwen3vl_mteb
LOCAL := . ./integrations/qdrant ./integrations/chroma ./integrations/langchain ./integrations/llama-index ./integrations/server \
	./integrations/ray ./integrations/mteb

# The core: no framework, no store of an integration, nothing marked slow.
CORE_TESTS := tests -m 'not slow' --ignore=tests/langchain --ignore=tests/llama_index --ignore=tests/server --ignore=tests/ray --ignore=tests/mteb --ignore=tests/test_docs.py \
	--ignore=tests/test_stores.py --ignore=tests/test_store_ingest.py --ignore=tests/test_async_stores.py \
	--ignore=tests/test_copy.py --ignore=tests/test_copy_cli.py --ignore=tests/test_examples.py --ignore=tests/test_example_rag.py \
	--ignore=tests/test_network_faults.py --ignore=tests/test_quantization.py
STORE_TESTS := tests/test_stores.py tests/test_store_ingest.py tests/test_async_stores.py tests/test_copy.py
PARITY_TESTS := tests/test_golden.py tests/test_model.py tests/test_attention.py tests/test_packing.py \
	tests/test_geometry.py tests/test_config.py tests/test_lora.py tests/test_merged_checkpoint.py tests/llama_index

.DEFAULT_GOAL := help
.PHONY: help install fix lint imports types test test-core test-by-url test-qdrant test-haystack parity packages docs docs-serve \
	install-check ci clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*##/\1 /' | awk '{n=$$1; $$1=""; printf "  %-14s%s\n", n, $$0}'

install:  ## create .venv with every package and the development tools
	$(UV) sync

fix:  ## format the code and apply the safe fixes of ruff
	$(UV) run ruff format .
	$(UV) run ruff check --fix .

lint: imports  ## formatting, ruff (with the docstring rules), pydoclint, import contracts
	$(UV) run ruff format --check .
	$(UV) run ruff check .
	@if grep -q '^\[tool\.pydoclint\]' pyproject.toml; then \
		echo "$(UV) run pydoclint src integrations"; $(UV) run pydoclint --quiet src integrations; \
	else echo "pydoclint: no [tool.pydoclint] in pyproject.toml, skipped"; fi

imports:  ## which package may import which (import-linter)
	@if grep -q '^\[tool\.importlinter\]' pyproject.toml; then \
		echo "$(UV) run lint-imports"; PYTHONPATH=. $(UV) run lint-imports; \
	else echo "lint-imports: no [tool.importlinter] in pyproject.toml, skipped"; fi

types:  ## mypy in strict mode
	$(UV) run mypy

test:  ## every test
	$(UV) run pytest

test-core:  ## the core without frameworks and long runs, in less than three minutes
	$(UV) run pytest $(CORE_TESTS)

test-by-url:  ## the tests of LangChain's and LlamaIndex's classes once more, with their models in a server
	$(UV) run pytest tests/langchain tests/llama_index --models-by-url

test-qdrant:  ## the store tests against the Qdrant server at QDRANT_URL
	@test -n "$$QDRANT_URL" || { echo "set QDRANT_URL, for example http://localhost:6333"; exit 2; }
	$(UV) run pytest $(STORE_TESTS) -k qdrant-server

# Haystack's docstring-parser and pydoclint's fork of it have the same files, so that they cannot be in one environment.
test-haystack:  ## the server with Haystack's components, in an environment on top of the others
	$(UV) run --with 'jina-haystack>=2' python -m pytest -n0 tests/server/test_rag_frameworks.py -k haystack

parity:  ## the golden answers and the model tests on other versions: make parity TRANSFORMERS='>=5,<6'
	$(UV) venv --quiet --clear build/parity
	$(UV) pip install --quiet --python build/parity --group test $(addprefix -e ,$(LOCAL)) \
		'transformers$(TRANSFORMERS)' 'llama-index-core$(LLAMA_INDEX)'
	$(UV) run --no-project --python build/parity python -c \
		"import transformers, torch; print('transformers', transformers.__version__, 'torch', torch.__version__)"
	$(UV) run --no-project --python build/parity python -m pytest $(PARITY_TESTS)

packages:  ## build each distribution, install it alone, import it without torch
	$(UV) build --quiet --all-packages --clear -o build/dist
	@for package in $(PACKAGES); do \
		name=$${package%%:*} module=$${package##*:}; \
		$(UV) venv --quiet --clear build/alone && \
		$(UV) pip install --quiet --python build/alone --find-links build/dist "$$name" && \
		(cd build && $(UV) run --no-project --python alone python -c \
			"import sys, importlib.metadata as m, $$module; assert 'torch' not in sys.modules; print('$$name', m.version('$$name'))") \
		|| exit 1; \
	done

docs:  ## build the documentation site into site/
	$(UV) run --isolated --only-group docs mkdocs build --strict

docs-serve:  ## show the documentation at http://127.0.0.1:8000 and rebuild it on changes
	$(UV) run --isolated --only-group docs mkdocs serve

install-check:  ## run every install command of README and docs in an empty environment
	$(UV) run --no-project python tools/check_install.py

ci: lint types packages docs parity install-check test-haystack test test-by-url  ## everything that .ci/run does

clean:  ## remove what the targets above have built
	rm -rf build dist site
