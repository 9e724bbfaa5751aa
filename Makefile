# What one does with this project, a target each. `make help` lists them.

# Each may be set on the command line or in the environment.
DIR ?= .demo
HTTP_PORT ?= 8080
AGENT_PORT ?= 7443
AGENTS ?= 3
ONCE ?=
HITS ?= 5
SEED ?=

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-tests setup-bench setup-fuzz build build-all demo test crash-matrix chaos chaos-mutants bench fuzz-api sqlx-prepare sqlx-check clean

# Where rustup puts cargo, for shells that do not know it.
export PATH := $(PATH):$(HOME)/.cargo/bin
# Queries are checked against the committed metadata, whatever database the environment names.
export SQLX_OFFLINE := true

# Controller and agent as the tests want them: with the points at which a test can make them die.
FAULTS := --features opsconductor-agent/faults,opsconductor-controller/faults

TARGET = $${CARGO_TARGET_DIR:-target}

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo takes ONCE=1 (end when done), DIR=$(DIR), HTTP_PORT=$(HTTP_PORT)," \
	  "AGENT_PORT=$(AGENT_PORT), AGENTS=$(AGENTS)"

setup: ## Install what is missing, from Debian's packages
	@packaging/setup.sh

setup-tests:
	@packaging/setup.sh tests

setup-bench:
	@packaging/setup.sh bench

setup-fuzz:
	@packaging/setup.sh fuzz

build: setup ## Build the three programs for use
	cargo build --release --locked -p opsconductor-controller -p opsconductor-agent -p opsctl

build-all: setup
	cargo build --release --workspace --locked

demo: build ## Start a controller and agents here, and run a command on all of them
	@ONCE='$(ONCE)' DIR='$(DIR)' HTTP_PORT='$(HTTP_PORT)' AGENT_PORT='$(AGENT_PORT)' AGENTS='$(AGENTS)' \
	  BIN="$(TARGET)/release" packaging/demo.sh

test: setup-tests sqlx-check ## Check formatting, lints and query metadata, and run all tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo build --workspace --locked $(FAULTS)
	@mkdir -p "$(TARGET)"
	cargo test --workspace --locked $(FAULTS) 2>&1 | tee "$(TARGET)/test.log"
	@awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
	  END { printf "make test: all good: %d tests passed, %d failed, %d ignored\n", passed, failed, ignored }' \
	  "$(TARGET)/test.log"

crash-matrix: setup-tests ## Let controller, agent and shim die at each step, HITS=5 times each, and check what comes of it
	cargo build --workspace --locked $(FAULTS)
	OPSC_CRASH_HITS=$(HITS) cargo test --workspace --locked $(FAULTS) --test it crash_matrix

bench: setup-bench build-all ## Measure, and write bench/results.json
	"$(TARGET)/release/opsconductor-bench" run

chaos: SECONDS = 600
chaos: AGENTS = 20
chaos: build-all ## Break everything at random, SECONDS=600 AGENTS=20 SEED=, and check what must hold
	"$(TARGET)/release/opsconductor-chaos" --seconds $(SECONDS) --agents $(AGENTS) $(if $(SEED),--seed $(SEED))

chaos-mutants: setup ## Show that the chaos finds each of four lines that are wrong on purpose
	@packaging/chaos-mutants.sh "$(TARGET)"

fuzz-api: EXAMPLES = 100
fuzz-api: setup-fuzz ## Ask the API everything its document allows and forbids (schemathesis, EXAMPLES=100 SEED=), and check the answers
	cargo build --workspace --locked
	@BIN="$(TARGET)/debug" WORK="$(TARGET)/fuzz-api" EXAMPLES=$(EXAMPLES) SEED=$(SEED) packaging/fuzz-api.sh

sqlx-prepare: setup ## Write the query metadata anew, after a change of a query or of the schema
	@controller/sqlx.sh prepare

sqlx-check: setup ## Check that the committed query metadata is that of the queries and the schema
	@controller/sqlx.sh check

clean: ## Remove what was built; the demo's folder stays
	cargo clean
