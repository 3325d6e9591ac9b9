# Two commands do everything: make demo, make test. Set-up happens by itself, once, and again when a lock changes.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
RIVALS := .venv-bench
PYTHON := $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && echo $$python && break; done)

help:  ## What there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.run  ## The whole job in a minute, on an embedded broker; KAFKA=host:port for a real one
	@$(BIN)/python -m consumer demo $(if $(KAFKA),--kafka $(KAFKA))

test: $(VENV)/.dev java lint  ## Lint and all tests, on real Apache Kafkas; WORKERS=3 files at a time
	@$(BIN)/python -m pytest --numprocesses $(or $(WORKERS),3) --dist loadfile $(ARGS)

lint: $(VENV)/.dev  ## ruff, mypy, yamllint, hadolint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/yamllint --strict .
	@$(BIN)/hadolint Dockerfile

coverage: $(VENV)/.dev java  ## All tests, with what they reach of the code
	@$(BIN)/coverage run -m pytest -q && $(BIN)/coverage report --skip-covered

bench: $(VENV)/.dev $(RIVALS)/.done java  ## Rate, CPU per event, memory, latency on a real Kafka, beside naive consumers
	@$(BIN)/python -m tests.bench $(ARGS)

bounds: $(VENV)/.dev java  ## What apps, schemas, partitions, keys, records in flight and a bad neighbour cost
	@$(BIN)/python -m tests.bench.bounds $(ARGS)

standing: $(VENV)/.dev java  ## Start, idleness, memory with two million events behind, delay: each beside its goal
	@$(BIN)/python -m tests.bench.standing $(ARGS)

refused: $(VENV)/.dev java  ## MINUTES=10 of 401 for one app of twelve: what it costs the others
	@$(BIN)/python -m tests.bench.refused_app --minutes $(or $(MINUTES),10) $(ARGS)

profile: $(VENV)/.dev $(RIVALS)/.done java  ## A flame graph of the consumer under load, and where the time goes
	@$(BIN)/python -m tests.bench.profile $(ARGS)

chaos: $(VENV)/.dev java  ## SEEDS=200 schedules of faults on real Kafkas, each judged by an oracle; JOBS=2 at a time
	@$(BIN)/python -m tests.chaos --seeds $(or $(SEEDS),200) --jobs $(or $(JOBS),1) $(ARGS)

chaos-oracle: $(VENV)/.dev java  ## Builds with a mistake in them: the oracle must catch each within 20 seeds
	@$(BIN)/python -m tests.chaos --wrong all --seeds 20 $(ARGS)

simulation: $(VENV)/.dev  ## SEEDS=20000 schedules of the whole pipeline under a virtual clock
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),20000) $(ARGS)

fuzz: $(VENV)/.dev  ## SECONDS=300 of coverage-guided fuzzing, each target against its oracle; ARGS=--keep
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),300) $(ARGS)

soak: $(VENV)/.dev java  ## MINUTES=60 of mixed faults at a steady rate: does anything grow? Writes a page with plots
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60) $(ARGS)

mutants: $(VENV)/.dev  ## Small mistakes in tracker, offset map, assignment, classification: the tests must see 95 %
	@$(BIN)/python -m tests.mutation

kafka: $(VENV)/.dev java  ## Run an Apache Kafka in the foreground, to play with; PORT=9092
	@$(BIN)/python -m tests.support.kafka $(PORT)

wheel: $(VENV)/.dev  ## Build the wheel into dist/
	@$(BIN)/hatchling build -t wheel

image: ## Build the container image and run it once; without a Docker engine, too
	@scripts/image.sh

lock:  ## Resolve the dependencies anew and pin them by hash; needs uv
	@command -v uv >/dev/null || { echo "install uv first: pip install uv" >&2; exit 1; }
	@uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml -o requirements.lock
	@uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --group dev -o requirements-dev.lock
	@uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		-c requirements-dev.lock pyproject.toml --group bench -o requirements-bench.lock
	@echo hatchling | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		-c requirements-dev.lock - -o requirements-build.lock

docs: $(VENV)/.dev  ## Make the generated pages of docs/ anew
	@$(BIN)/python -m consumer settings --markdown > docs/settings.md
	@$(BIN)/python -m consumer.telemetry.reference > docs/telemetry.md
	@$(BIN)/python -m tests.support.chart_reference

clean:  ## Remove what was made here
	@rm -rf $(VENV) $(RIVALS) .cache dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none of python3.13, 3.12, 3.11, python3 is" >&2; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing (Debian: apt-get install python3-venv)" >&2; exit 1; }

$(VENV)/.run: requirements.lock | $(VENV)/bin/python
	@echo "installing what it needs to run"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing what the tests need"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.run

# only the benchmarks need these; nothing of them gets into the environment of the tests
$(RIVALS)/.done: requirements-bench.lock | $(VENV)/bin/python
	@echo "installing what the consumer is compared with"
	@$(BIN)/python -m venv $(RIVALS)
	@$(RIVALS)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

# Kafka needs a Java runtime, and Maven to fetch it; on Debian as root they are installed
java:
	@command -v java >/dev/null && command -v mvn >/dev/null || { \
		if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
			echo "installing a Java runtime and Maven"; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq default-jre-headless maven >/dev/null; \
		else \
			echo "the tests run Apache Kafka: install a Java runtime (17 or newer) and Maven" >&2; exit 1; \
		fi; }

.PHONY: help demo test lint coverage bench bounds standing refused profile chaos chaos-oracle simulation fuzz soak mutants kafka wheel image lock docs clean java
