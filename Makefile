# make demo       backup and restore, step by step, on a throw-away cluster
# make demo-s3    the same, with the repository in an S3 server that the demo starts
# make test       everything that a change must pass
# make test-full  make test, with the complete matrices (80 minutes on two cores; RBR_MATRIX=1/4 runs a quarter of most)
# make fuzz       every fuzz target, FUZZ_SECONDS each (default 120)
# make bench      benchmarks against the real pgBackRest; RBR_BENCH=incr,wal selects subjects (benches/compare/main.rs)
# make dist       one statically linked binary in dist/
# make deb        Debian packages in dist/
# make docs       the documentation as a static site in dist/docs
# make oracles    installs the real pgBackRest, several PostgreSQL versions and other servers for the tests

export CARGO ?= cargo
# Tests that only `make test-full` runs. RBR_MATRIX=2/5 runs the second fifth of each matrix, so that five runs make a whole
SLOW = full_matrix
# Duration of a fuzz target
FUZZ_SECONDS ?= 120
# More than the number of processors, because half of a live test's time is waiting for servers, clocks and the archive
export RUST_TEST_THREADS ?= $(shell expr 2 \* $$(nproc) + 1)

.PHONY: build demo demo-s3 test test-full fuzz fuzz-short fmt lint deny oracles oracles-if-possible bench dist deb docs golden clean

build:
	$(CARGO) build --release

demo:
	scripts/demo

demo-s3:
	scripts/demo s3

fmt:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

deny:
	scripts/deny

oracles:
	scripts/oracles

# If the oracles can't be installed, tests that need them report it and are skipped, unless RBR_REQUIRE_ORACLES=1
oracles-if-possible:
	scripts/oracles || [ -z "$$RBR_REQUIRE_ORACLES" ]

test: fmt oracles-if-possible deny lint
	scripts/test --skip $(SLOW)

test-full: fmt oracles deny lint fuzz-short
	scripts/test

fuzz:
	scripts/fuzz $(FUZZ_SECONDS)

fuzz-short:
	scripts/fuzz 10

bench: oracles
	$(CARGO) bench --bench compare

dist:
	scripts/dist

deb:
	scripts/deb

docs:
	scripts/docs

golden:
	scripts/golden

clean:
	$(CARGO) clean
	rm -rf dist
