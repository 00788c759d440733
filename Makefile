# Everything runs in .venv, which is built on demand from any Python >= 3.11: PYTHON=... picks one.
.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-redis test-litellm test-upstream lint type format bench bench-outage bench-redis bench-fleet bench-litellm build clean

# One pip at a time; and test-full needs what test made.
.NOTPARALLEL:

BIN := .venv/bin
# Called with the dependency groups that a target needs. An explicit PYTHON also replaces a .venv of another Python.
define bootstrap
@python="$$(PYTHON='$(PYTHON)' sh scripts/find_python.sh)" && \
	"$$python" scripts/bootstrap.py $(if $(PYTHON),--python '$(PYTHON)') $(1)
endef
define heading
@printf '\n== %s ==\n' '$(1)'
endef
# Extra arguments for pytest: make test PYTEST_ARGS='-k circuit -n 0'
PYTEST_ARGS ?=
# Other libraries' rows of bench-outage and bench-redis, and all of bench-litellm, need a Python that has them; in .venv LiteLLM would hold the provider clients back.
BENCH_PYTHON ?= $(BIN)/python
# One suite or mode alone: make test-upstream UPSTREAM_ARGS='--suite langchain --mode plain'
UPSTREAM_ARGS ?=
# One version of redis-py alone: make test-redis REDIS_ARGS='7.4 -k cluster' (what follows the versions is pytest's)
REDIS_ARGS ?=
# One version of LiteLLM alone: make test-litellm LITELLM_ARGS='1.106 -k matrix' (what follows the versions is pytest's)
LITELLM_ARGS ?=
# Options of the demo: make demo DEMO_ARGS='--speed 4 --plain'
DEMO_ARGS ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Play the 2 PM outage on three fake providers: a minute, no key, no server
	$(call bootstrap,demo)
	$(BIN)/python -m langchain_resilient.cli demo --chart build $(DEMO_ARGS)

test: ## Run every test that pip can provide for; lists those that need system packages
	$(call heading,test)
	$(call bootstrap,test)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

test-full: test test-redis test-litellm ## The same, then on each redis-py and LiteLLM, then the tests that need system packages (apt-get)
	$(call heading,test-full: tests that need system packages)
	$(BIN)/python scripts/system_tests.py

test-redis: ## Run the tests of the Redis store on every major version of redis-py that is supported
	$(call heading,test-redis)
	$(call bootstrap,test)
	$(BIN)/python scripts/redis_versions.py $(REDIS_ARGS)

test-litellm: ## Run the tests of litellm_hooks on the oldest and the newest LiteLLM that is supported
	$(call heading,test-litellm)
	$(call bootstrap,test)
	$(BIN)/python scripts/litellm_versions.py $(LITELLM_ARGS)

test-upstream: ## Run LangChain's own agent tests with every model wrapped
	$(call heading,test-upstream)
	$(call bootstrap,test)
	$(BIN)/python scripts/upstream_tests.py $(UPSTREAM_ARGS)

lint: ## Check style and formatting (ruff)
	$(call heading,lint)
	$(call bootstrap,lint)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: ## Check types (mypy, strict)
	$(call heading,type)
	$(call bootstrap,type)
	$(BIN)/mypy

format: ## Fix what ruff can fix, and format
	$(call bootstrap,lint)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: ## Measure what a call costs, and how the routing rules compare
	$(call bootstrap,test)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/routing.py

bench-outage: ## Measure what users see while a provider is sick: 18 minutes, a table and build/outage.png
	$(call bootstrap,test)
	@mkdir -p build
	$(BENCH_PYTHON) benchmarks/outage.py --json build/outage.json --chart build/outage.png

bench-redis: ## Measure what shared limits cost and how well they are kept, beside other libraries: 3 minutes
	$(call bootstrap,test)
	@mkdir -p build
	$(BENCH_PYTHON) benchmarks/redis_store.py --json build/redis.json

bench-litellm: ## Measure LiteLLM's Router alone and with litellm_hooks while a provider is sick: 12 minutes; needs BENCH_PYTHON
	$(call bootstrap,test)
	@mkdir -p build
	PYTHONPATH=. $(BENCH_PYTHON) benchmarks/litellm_router.py --json build/litellm.json

bench-fleet: ## Take fleets of processes through an outage, with Redis well, killed and stopped: 3 minutes
	$(call bootstrap,test)
	@mkdir -p build
	$(BIN)/python benchmarks/fleet.py --json build/fleet.json

build: ## Build sdist and wheel into dist/
	$(call bootstrap,test)
	$(BIN)/python -m build --no-isolation

clean: ## Remove .venv, build results and caches
	rm -rf .venv .venv-unfinished .upstream .redis-versions .litellm-versions build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
