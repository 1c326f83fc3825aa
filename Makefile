# The front door: `make help` explains itself. CI calls only these targets.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# The interpreter that the virtual environment is made from: the first of these that is CPython 3.11 or later.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; exit; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
# `release` is what is shipped; `make test PROFILE=dev` builds faster while one works on the library.
PROFILE ?= release
RUST_SOURCES := Cargo.toml Cargo.lock build.rs client/Cargo.toml $(shell find src client/src -name '*.rs')
BUILT := $(VENV)/.built-$(PROFILE)

.PHONY: help demo test test-rust test-python test-all soak fuzz test-asan lint deny format docs-tables bench bench-server bench-rust build clean

help: ## What one can make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BUILT) $(VENV)/.group-demo ## A traced FastAPI service through a real collector, shown as waterfalls; KEEP=1 leaves it running
	$(BIN)/python examples/fastapi_service/demo.py $(if $(KEEP),--keep)

test: test-rust test-python ## Every Rust and Python test

test-rust:
	cargo test --workspace --no-default-features
	cargo test -p rvh_trace_client --features http,opentelemetry

test-python: $(BUILT) $(VENV)/.group-test
	RVH_TRACE_STRICT=1 $(BIN)/python -m pytest

soak: $(BUILT) $(VENV)/.group-test ## Hours: 1,000 forks, ten million tasks, ten minutes without a collector, a million examples, random programs; EXAMPLES=n, TASKS=n, PROGRAMS=n
	RVH_TRACE_STRICT=1 RVH_TRACE_FORKS=1000 $(BIN)/python -m pytest -o faulthandler_timeout=3600 tests/python/test_process_models.py tests/python/test_threads.py
	RVH_TRACE_STRICT=1 RVH_TRACE_TASKS=$(or $(TASKS),10000000) $(BIN)/python -m pytest -o faulthandler_timeout=36000 tests/python/tasks/test_soak.py
	RVH_TRACE_STRICT=1 RVH_TRACE_SOAK_S=600 $(BIN)/python -m pytest -o faulthandler_timeout=3600 tests/python/test_memory.py
	RVH_TRACE_STRICT=1 RVH_TRACE_EXAMPLES=$(or $(EXAMPLES),1000000) $(BIN)/python -m pytest -o faulthandler_timeout=3600 tests/python/transparency
	RVH_TRACE_STRICT=1 RVH_TRACE_PROGRAMS=$(or $(PROGRAMS),5000) $(BIN)/python -m pytest -o faulthandler_timeout=3600 tests/python/programs tests/python/test_scope_order.py

# What cargo-fuzz passes, for a toolchain that is not nightly: RUSTC_BOOTSTRAP lets it take -Z.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
COVERAGE := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-trace-compares \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing

fuzz: ## Fuzzes what reads the bytes of strangers, under AddressSanitizer; SECONDS_EACH=n for another time than 60 a target
	cd fuzz && RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(COVERAGE) -Zsanitizer=address -Ccodegen-units=1" \
		cargo build --release --target $(HOST) --target-dir ../target/fuzz
	@for target in $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))); do \
		mkdir -p target/fuzz/found/$$target; \
		target/fuzz/$(HOST)/release/$$target target/fuzz/found/$$target fuzz/corpus/$$target \
			-artifact_prefix=target/fuzz/$$target- -max_total_time=$(or $(SECONDS_EACH),60) -timeout=5 -print_final_stats=1; \
	done

test-asan: ## The unit tests of the core under AddressSanitizer
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
		cargo test --no-default-features --lib --target $(HOST) --target-dir target/asan

test-all: ## The Python tests on every CPython from 3.11 up on this machine
	@for version in 3.11 3.12 3.13 3.14; do \
		for python in "$$(command -v "python$$version")" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python; do \
			if "$$python" -c 'import ensurepip' 2>/dev/null; then \
				echo "== $$("$$python" --version): $$python"; \
				$(MAKE) --no-print-directory test-python PYTHON="$$python" VENV=.venv-$$version; \
				break; \
			fi; \
		done; \
	done

lint: $(BUILT) $(VENV)/.group-lint deny ## clippy, rustfmt, ruff, pyright, stubtest, the tables of the documentation, crates
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --no-default-features -- -D warnings
	cargo clippy --lib -- -D warnings
	cargo clippy -p rvh_trace_client --all-targets --all-features -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	PYTHONPATH=python $(BIN)/pyright --pythonpath $(BIN)/python --verifytypes rvh_trace --ignoreexternal
	$(BIN)/python -m mypy.stubtest rvh_trace._rvh_trace --ignore-disjoint-bases --allowlist .stubtest-allowlist
	$(BIN)/python semconv/tables.py --check

deny: $(VENV)/.made ## Licences, sources and bans of the crates; where cargo-deny is installed, by it too, and advisories
	$(BIN)/python tools/crates.py
	@if ! command -v cargo-deny >/dev/null; then \
		echo "cargo-deny is not installed (cargo install --locked cargo-deny): advisories are not checked"; \
	else \
		cargo deny check bans licenses sources; \
		if cargo deny fetch db 2>/dev/null; then cargo deny check --disable-fetch advisories; \
		else echo "the database of advisories cannot be reached: they are not checked"; fi; \
	fi

docs-tables: $(VENV)/.group-test ## docs/telemetry.md from the registry in semconv/
	$(BIN)/python semconv/tables.py

format: $(VENV)/.group-lint ## Formats Rust and Python
	cargo fmt --all
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(BUILT) $(VENV)/.group-bench ## Every cost beside its baseline and the peers, in one table; ARGS="--quick" for a short run
	$(BIN)/python tools/extension_build.py >/dev/null
	$(BIN)/python -m benches.python $(ARGS)

bench-server: $(BUILT) $(VENV)/.group-bench ## What a uvicorn server keeps of its requests a second; needs wrk; ARGS="--quick" for a short run
	$(BIN)/python -m benches.server $(ARGS)

bench-rust: ## criterion: write a span, parse and format traceparent, push to the batch
	cargo bench --no-default-features

build: $(BUILT) ## The native module and the package in .venv

clean: ## Removes what was built
	rm -rf target .venv .venv-* python/rvh_trace/*.so

$(VENV)/.made:
	@[ -n "$(PYTHON)" ] || { echo "rvh_trace needs CPython 3.11 or later with the venv module. Install one (Debian: apt install python3-venv) or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@command -v cargo >/dev/null || { echo "rvh_trace needs a Rust toolchain (1.88 or later): https://rustup.rs"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" "maturin>=1.16,<2"
	@touch $@

$(VENV)/.group-%: pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@

$(VENV)/.built-release $(VENV)/.built-dev: $(VENV)/.made $(RUST_SOURCES) pyproject.toml
	@rm -f $(VENV)/.built-*
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --quiet $(if $(filter release,$(PROFILE)),--release)
	@touch $@
