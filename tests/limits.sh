#!/usr/bin/env bash
# Prints a line for each promise under overload, hang-ups and a stalled Redis, with what is seen now; and what fails.
set -euo pipefail
cd "$(dirname "$0")/.."

topics=(overload:: faults::credentials redis_use::)
cargo test --locked --test integration -- --nocapture --test-threads=4 "${topics[@]}" |
  grep -E '^(row: |test .*FAILED|test result)'
