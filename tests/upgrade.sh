#!/usr/bin/env bash
# The tests of two releases on one Redis, with the release to come as a program of its own. It is the same code, built
# to write the next layout.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# As the tests are built, so that no dependency is built anew.
cargo test --locked --features next-layout --test explore --no-run
cp "${CARGO_TARGET_DIR:-target}/debug/participant-gateway" "$folder"
NEXT_LAYOUT_PROGRAM="$folder/participant-gateway" cargo test --locked --test integration -- upgrades::
