# Everything a developer or CI does with this repository. `make` alone lists the targets.

# The interpreter that makes the virtual environment; any CPython from 3.10 on.
PYTHON ?= python3
VENV ?= .venv
FUZZ_SECONDS ?= 60

FEATURES := auth,sqlite,postgres,mysql,actix,axum,cache,file,memcached,redis,cli,testing
BIN := $(VENV)/bin
# Runs a command beside throw-away servers; inside another such run it only passes them on.
SERVICES := $(PYTHON) tests/services.py run --
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find src -name '*.rs' 2>/dev/null)

# Cargo has to build for the interpreter of the virtual environment.
export PYO3_PYTHON := $(abspath $(BIN)/python)
# The Django that the Rust tests are held against.
export TEST_PYTHON := $(abspath $(BIN)/python)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

.PHONY: help  ## List the targets
help:
	@sed -n 's/^\.PHONY: \([a-z-]*\)  *## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | \
		awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

.PHONY: dev  ## Create .venv, install what development needs, build the extension
dev: $(VENV)/.extension

.PHONY: demo  ## Log in to Django, read the session from axum, in a real browser
demo: dev
	$(BIN)/python examples/shared_login/run.py

.PHONY: test  ## Run all tests of both languages beside real servers
test: dev
	$(SERVICES) $(MAKE) --no-print-directory test-rust test-python

.PHONY: test-rust  ## Run the Rust tests and the examples in the documentation
test-rust: dev
	$(SERVICES) cargo test --features $(FEATURES)

.PHONY: test-python  ## Run the Python tests
test-python: dev
	SHARED_LOGIN_FEATURES=$(FEATURES) $(SERVICES) $(BIN)/python -m pytest tests/python

.PHONY: vectors  ## Ask both languages about every recorded session, and count the answers
vectors: dev
	FEATURES=$(FEATURES) $(BIN)/python tests/vectors_table.py

.PHONY: django-suite  ## Run Django's own session tests on the engines
django-suite: dev
	$(SERVICES) $(BIN)/python tests/django_suite.py

.PHONY: bench  ## Measure the codec, and the engines against Django's
bench: dev
	$(SERVICES) cargo bench --features $(FEATURES)
	$(SERVICES) $(BIN)/python benches/engines.py
	$(BIN)/python benches/formats.py

.PHONY: bench-servers  ## Measure whole requests behind gunicorn, uvicorn and daphne
bench-servers: dev
	$(SERVICES) $(BIN)/python benches/servers.py

.PHONY: bench-gate  ## Measure requests of users in axum against Django behind gunicorn
bench-gate: dev
	$(SERVICES) $(BIN)/python benches/gate.py

.PHONY: bench-operations  ## Measure the commands about whole stores on five million rows (an hour, 20 GB)
bench-operations: dev
	$(SERVICES) $(BIN)/python benches/operations.py

.PHONY: bench-operations-load  ## Measure a site's requests while its sessions are cleared and its key is rotated
bench-operations-load: dev
	$(SERVICES) $(BIN)/python benches/operations_load.py

.PHONY: bench-stores  ## Measure each step of a store against tower-sessions' own stores
bench-stores:
	$(SERVICES) cargo run --release --quiet --manifest-path benches/tower_sessions/Cargo.toml

.PHONY: lint  ## Check formatting, lints and types
lint: rust-lint dev
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings
	@# Each feature alone, and none: what one of them uses is dead code for the others.
	set -e; for features in "" auth sqlite postgres mysql tower axum actix cache file memcached redis cli testing python; do \
		cargo clippy --quiet --features "$$features" -- -D warnings; \
	done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict python/django_session_rs

.PHONY: format  ## Format the sources
format: rust-lint $(VENV)/.requirements
	cargo fmt
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: docs  ## Build the Rust documentation; a warning is an error
docs: rust
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --features $(FEATURES)

.PHONY: stubs  ## Compare the type stubs with the module they describe, and check the types with pyright
stubs: dev
	$(BIN)/python tests/stubs.py
	$(BIN)/basedpyright --pythonpath $(BIN)/python

.PHONY: wheel  ## Build a wheel, install it without a compiler, switch a new project to it
wheel: dev
	rm -rf dist
	$(BIN)/maturin build --release --quiet --out dist
	$(BIN)/python tests/wheel.py dist

.PHONY: fuzz  ## Run every fuzz target for FUZZ_SECONDS
fuzz: rust $(VENV)/.requirements
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 1; }
	$(BIN)/python tests/fuzz/corpus.py unpack
	set -e; for target in $$(cargo fuzz list --fuzz-dir tests/fuzz); do \
		cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none $$target -- \
			-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=10; \
	done

.PHONY: lost-updates  ## Count what 32 workers lose who change one session, in each store and with Django
lost-updates: dev
	LOST_UPDATES=500 $(SERVICES) cargo test --features $(FEATURES) --test integration -- \
		lose_nothing lose_none loses_changes lost_updates --nocapture --test-threads 1 2>&1 | \
		grep -E "changes|test result|panicked"

.PHONY: differential  ## Compare random sessions and pickles with Python's own for FUZZ_SECONDS
differential: dev
	@set -e; seed=$$(date +%s); end=$$((seed + $(FUZZ_SECONDS))); \
	while [ $$(date +%s) -lt $$end ]; do \
		echo "DIFFERENTIAL_SEED=$$seed"; \
		DIFFERENTIAL_SEED=$$seed $(BIN)/python -m pytest -q -x --hypothesis-seed=$$seed \
			tests/python/test_differential.py tests/python/test_pickle_differential.py; \
		seed=$$((seed + 1)); \
	done

.PHONY: check  ## Everything that CI checks
check: test lint docs stubs django-suite

.PHONY: clean  ## Remove what the targets above made
clean:
	rm -rf $(VENV) .venvs .cache target dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f python/django_session_rs/*.so

.PHONY: rust
rust:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust, see https://rustup.rs" >&2; exit 1; }

.PHONY: rust-lint
rust-lint: rust
	@cargo fmt --version >/dev/null 2>&1 || { echo "rustfmt is missing: rustup component add rustfmt" >&2; exit 1; }
	@cargo clippy --version >/dev/null 2>&1 || { echo "clippy is missing: rustup component add clippy" >&2; exit 1; }

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$(PYTHON) is too old: Python 3.10 or newer is needed" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || \
		{ echo "$(PYTHON) cannot make virtual environments (Debian: python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# `--group` needs pip 25.1.
$(VENV)/.requirements: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

# Python sources are used in place, so only Rust calls for a new build. Release mode, because a
# slow build must not end up in a measurement.
$(VENV)/.extension: $(VENV)/.requirements $(RUST_SOURCES) | rust
	VIRTUAL_ENV=$(abspath $(VENV)) PIP_QUIET=1 $(BIN)/maturin develop --release --quiet
	@touch $@
