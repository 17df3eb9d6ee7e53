# All that a fresh machine with Rust needs besides: each target installs it, or says what to install.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# What the invariants and the chaos of `make verify` are tried with; `make test` tries less.
CASES ?= 500
CHAOS_SECONDS ?= 120
REPEATS ?= 20
# Tests mostly wait, for processes and for time to pass: twice as many at once as there are cores.
TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
# Requests that schemathesis makes up for each operation and phase, besides those at the bounds: about four minutes.
SCHEMATHESIS_EXAMPLES ?= 60

.PHONY: help run test bench bench-slow micro-bench instructions openapi redis fmt clippy doc tests verify verify-long verify-chaos python3 node curl valgrind prometheus pictures smoke verify-api verify-signatures verify-metrics verify-alerts verify-instructions verify-deny

help: ## What there is to make
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

run: redis ## Build, and run everything on a private Redis with its data in ./data
	@exec cargo run --locked -- serve

test: redis fmt clippy doc tests ## Everything that must hold before a change is merged

openapi: ## Write the OpenAPI document anew, as the code says it
	@cargo run --locked --quiet -- openapi > docs/openapi.json.new
	@mv docs/openapi.json.new docs/openapi.json

pictures: redis python3 prometheus ## Draw the pictures of the README anew, from a run of two minutes
	@test -x target/verify/pictures/bin/python || python3 -m venv target/verify/pictures
	@target/verify/pictures/bin/pip install --quiet --requirement tests/verify/pictures.txt
	tests/verify/pictures.sh target/verify/pictures/bin/python

# What docs/performance.md quotes. What takes minutes is run once, and does not wait for the disk.
bench: redis ## Measure on a private Redis what a run of seconds tells, five times each: about half an hour
	@cargo run --release --locked --quiet -- bench --durability both --runs 5 --seconds 5

bench-slow: redis ## Measure what takes minutes a run: 100,000 webhooks, a backlog of 1,000,000, memory, several processes
	@cargo run --release --locked --quiet -- bench --scenario slow --durability everysec

micro-bench: ## Measure how long the pure core takes: to match, sign, write, read and decide
	cargo bench --locked --bench core

instructions: valgrind ## Count what the pure core takes, and expect that from now on
	cargo bench --locked --bench instructions -- --accept

# A system service that comes with the package is neither used nor stopped: every Redis here is our own.
redis:
	@if command -v redis-server valkey-server >/dev/null; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
		case "$$(uname -s)" in \
			Darwin) echo 'Redis 7.0 or newer is needed: brew install redis' >&2 ;; \
			*) echo 'Redis 7.0 or newer is needed: install redis (or valkey) with your package manager' >&2 ;; \
		esac; \
		exit 1; \
	fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
	echo 'installing redis-server'; \
	$$sudo apt-get update -qq; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server

fmt:
	cargo fmt --check

clippy:
	cargo clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

tests:
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --locked --no-fail-fast --test-threads $(TEST_THREADS); \
		cargo test --locked --doc --quiet; \
	else \
		cargo test --locked --no-fail-fast -- --test-threads $(TEST_THREADS); \
	fi

verify: verify-long verify-chaos smoke verify-api verify-signatures verify-metrics verify-alerts verify-instructions verify-deny ## What takes long, or needs more than Rust and Redis

verify-long: redis ## The invariants over many more random runs, and all tests many times in a row
	POSTHASTE_CASES=$(CASES) cargo test --locked --test it invariants
	for round in $$(seq $(REPEATS)); do echo "round $$round"; $(MAKE) --no-print-directory tests; done

verify-chaos: redis ## Processes and Redis killed at random under load: nothing accepted is lost
	POSTHASTE_CHAOS_SECONDS=$(CHAOS_SECONDS) cargo test --locked --test it chaos -- --nocapture

python3 node curl valgrind:
	@command -v $@ >/dev/null || { echo '$@ is needed: install it (curl, Python 3.11 with venv, Node 20 with npm, valgrind)' >&2; exit 1; }

smoke: redis python3 curl ## Every operation of the API by curl, as a user would try it
	tests/api.sh

verify-api: redis python3 ## Requests made up from the OpenAPI document: none is answered otherwise than it says
	@test -x target/verify/schemathesis/bin/python || python3 -m venv target/verify/schemathesis
	@target/verify/schemathesis/bin/pip install --quiet --requirement tests/verify/schemathesis.txt
	tests/verify/schemathesis.sh --max-examples $(SCHEMATHESIS_EXAMPLES)

verify-signatures: redis python3 node ## Official libraries accept our signatures, and we theirs
	@mkdir -p target/verify/signatures
	@cp tests/verify/signatures/{package.json,package-lock.json,receiver.mjs} target/verify/signatures
	@cd target/verify/signatures && npm ci --no-audit --no-fund --loglevel=error
	@test -x target/verify/signatures/venv/bin/python || python3 -m venv target/verify/signatures/venv
	@target/verify/signatures/venv/bin/pip install --quiet --requirement tests/verify/signatures/requirements.txt
	tests/verify/signatures.sh

verify-metrics: redis python3 prometheus ## Alert rules and dashboards hold, and a real Prometheus has data for every panel
	@test -x target/verify/metrics/bin/python || python3 -m venv target/verify/metrics
	@target/verify/metrics/bin/pip install --quiet --requirement tests/verify/dashboards.txt
	target/verify/metrics/bin/python tests/verify/dashboards.py grafana/provisioning/dashboards/*.json
	tests/verify/prometheus.sh

verify-alerts: redis python3 prometheus ## Each alert fires in a real run that causes it: about two minutes
	tests/verify/alerts.sh

verify-instructions: valgrind ## What the pure core does takes no more instructions than benches/instructions.toml expects
	cargo bench --locked --bench instructions

prometheus:
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { echo 'prometheus and promtool are needed: install prometheus' >&2; exit 1; }

# Building cargo-deny takes minutes, once for a machine. Advisories are in a database that the network has: where it can't be
# fetched that is said, with the reason, and nothing fails for it; what it names fails.
verify-deny: ## Licences, sources and duplicates of what is built in, and known vulnerabilities
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --locked check licenses bans sources
	@if said=$$(cargo deny --locked fetch db 2>&1); then \
		cargo deny --locked check --disable-fetch advisories; \
	else \
		printf '%s\n' "$$said" 'known vulnerabilities: not looked for, as their database could not be fetched' >&2; \
	fi
