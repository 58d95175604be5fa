# Thin names over commands that work by themselves.

TOOLS := $(CURDIR)/.tools

.PHONY: run test lint fmt tools

run:
	cargo run -- dev

# Installs what is missing, then runs every test.
test: tools
	cargo test --locked

# Formatting, clippy, the protos, the dependencies.
lint:
	tools/install.sh lint
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --no-default-features -- -D warnings
	$(TOOLS)/bin/buf lint
	tools/check-dependencies.sh

fmt:
	cargo fmt

# The tools of the tests, pinned, into .tools/; tools/install.sh says what it installs.
tools:
	tools/install.sh
