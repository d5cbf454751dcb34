# make demo       the main job, step by step, on a throw-away cluster
# make demo-s3    the same with the repository in an S3 server, which it starts itself
# make test       everything that a change must pass
# make test-full  the same with the complete matrices (an hour)
# make fuzz       every fuzz target for some minutes; FUZZ_SECONDS for each
# make bench      side by side with the real pgBackRest; RBR_BENCH=incr,wal for some subjects (benches/compare/main.rs)
# make dist       one statically linked binary in dist/
# make oracles    the real pgBackRest and several PostgreSQL servers, for the tests

CARGO ?= cargo
# What `make test` leaves to `make test-full`
SLOW = full_matrix
# How long a fuzz target runs
FUZZ_SECONDS ?= 120
# One more than there are processors: live tests also wait, for servers and for the archive
export RUST_TEST_THREADS ?= $(shell expr $$(nproc) + 1)

.PHONY: build demo demo-s3 test test-full fuzz fuzz-short fmt lint deny oracles oracles-if-possible bench dist golden clean

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

# Where the oracles can't be installed the tests that need them say so and are skipped, unless RBR_REQUIRE_ORACLES=1
oracles-if-possible:
	scripts/oracles || [ -z "$$RBR_REQUIRE_ORACLES" ]

test: fmt deny oracles-if-possible lint
	$(CARGO) test --workspace --quiet -- --skip $(SLOW)

test-full: fmt deny oracles lint fuzz-short
	$(CARGO) test --workspace

fuzz:
	scripts/fuzz $(FUZZ_SECONDS)

fuzz-short:
	scripts/fuzz 10

bench: oracles
	$(CARGO) bench --bench compare

dist:
	scripts/dist

golden:
	scripts/golden

clean:
	$(CARGO) clean
	rm -rf dist
