# Thin names over commands that work by themselves.

TOOLS := $(CURDIR)/.tools

.PHONY: run test test-rust limits properties explore chaos soak fuzz test-upgrade lint fmt tools test-chart \
	test-kubernetes test-examples test-console image test-image chart protos check-version bench profile

run:
	cargo run -- dev

# Installs what is missing, then runs every test.
test: tools test-rust
	tests/stores.sh
	tests/chart/run.sh

# The Rust tests by themselves; they need redis-server and openssl. Without grpcurl or promtool theirs fail, and are
# skipped with ALLOW_MISSING_TOOLS=1.
test-rust:
	cargo test --locked

# Most tests wait for sockets and clocks rather than for a core: two at a time, as on a small machine, would take minutes.
test test-rust: export RUST_TEST_THREADS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 4 ? 4 : cores)))

# What callers see of overload, hang-ups and a stalled Redis: a line for each promise, with what is seen now.
limits:
	tests/limits.sh

# The store's properties on random cases, which are others in every run: PROPTEST_CASES of each.
properties: export PROPTEST_CASES ?= 10000
properties:
	cargo test --locked --test integration -- admission_store::

# Every interleaving of the protocol around a record, for EXPLORE_SECONDS in each of both stores; CALLS=3 and FAULTS
# choose other bounds.
explore: export EXPLORE_SECONDS ?= 200
explore:
	cargo test --locked --test explore -- --nocapture --test-threads=1

# This release beside one that writes the next layout, as two programs on one Redis.
test-upgrade:
	tests/upgrade.sh

# The seeded run of faults, over all topologies of Redis: SECONDS of faults, SEED chooses another run. A run that fails is
# repeated with fewer faults; FAULTS=1,4,7 TOPOLOGY=cluster repeats these alone.
chaos: export CHAOS_SEED = $(or $(SEED),$(shell date +%s))
chaos: export CHAOS_SECONDS = $(or $(SECONDS),300)
chaos: export CHAOS_TOPOLOGY = $(or $(TOPOLOGY),standalone,sentinel,cluster)
chaos: export CHAOS_FAULTS = $(FAULTS)
chaos: export CHAOS_CALLERS = $(or $(CALLERS),64)
chaos: export CHAOS_SHRINK ?= 12
chaos:
	$(CHAOS) chaos::whatever_fails_nothing_is_made_twice_no_limit_is_passed_and_all_heals

# Mixed load with faults for SECONDS: what is held at its end, and what was at its start.
soak: export CHAOS_SEED = $(or $(SEED),$(shell date +%s))
soak: export SOAK_SECONDS = $(or $(SECONDS),3600)
soak: export CHAOS_CALLERS = $(or $(CALLERS),16)
soak:
	$(CHAOS) chaos::soak::after_a_soak_memory_descriptors_tasks_and_the_log_are_where_they_were

CHAOS = cargo test --locked --profile chaos --test integration -- --nocapture --exact

# Each fuzz target for SECONDS; TARGETS="xfcc otel" chooses.
fuzz:
	tools/fuzz.sh $(or $(SECONDS),600) $(TARGETS)

# Formatting, clippy, the protos, the dependencies, the image, the workflows, the scripts.
lint:
	tools/install.sh lint
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --no-default-features -- -D warnings
	cargo clippy --locked -p participant-gateway-benches --all-targets -- -D warnings
	$(TOOLS)/bin/buf lint
	tools/protos.sh breaking
	tools/check-dependencies.sh
	$(TOOLS)/bin/hadolint Dockerfile
	$(TOOLS)/bin/actionlint -shellcheck $(TOOLS)/bin/shellcheck -pyflakes=
	$(TOOLS)/bin/shellcheck $$(git ls-files '*.sh')

fmt:
	cargo fmt --all

# The tools of the tests, pinned, into .tools/; both scripts say what they install.
tools:
	tools/install.sh
	tools/install-chart.sh

# The chart, its alerts and dashboards, by themselves; they need a built program.
test-chart: tools
	tests/chart/run.sh

# The chart on a real kube-apiserver, which is built once.
test-kubernetes: tools
	tools/kubernetes/run.sh

# The profile by which release builds are optimised, made anew: two release builds, and calls of every kind.
profile:
	tools/install.sh
	tools/profile/renew.sh

# How fast it is, beside baselines: a table of the targets, after a release build. benches/run.py says
# what ONLY=T1,T2, ROUNDS, SECONDS, QUICK=1, DOCS=1 and PLAIN=0 do.
bench:
	tools/install.sh
	benches/run.py

# The callers of examples/, each built by its own tools, against real gateways; LANGUAGES="go java"
# chooses.
test-examples:
	tools/install.sh examples
	cargo build --locked
	tests/examples/run.sh

# The console in a real browser.
test-console:
	tools/install.sh console
	cargo build --locked
	tests/console/run.sh

# An image, TARGET=release or TARGET=development: by docker, or by buildah where no engine runs.
image:
	tools/image.sh $(or $(TARGET),release)

test-image: tools image
	tests/image/run.sh $(or $(TARGET),release)

# The chart as a package.
chart: tools
	tools/chart/package.sh

# The protos as an archive.
protos:
	tools/protos.sh pack $(VERSION)

check-version:
	tools/chart/package.sh --check $(VERSION)
