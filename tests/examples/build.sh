#!/usr/bin/env bash
# Makes one example's stubs, builds it and lints it, by the commands that examples/README.md shows.
set -euo pipefail
cd "$(dirname "$0")/../../examples/$1"

case $1 in
  go)
    go generate ./...
    go build -o gen/participant ./cmd/participant
    go vet ./...
    test -z "$(gofmt -l .)"
    ;;
  python)
    venv=../../.tools/examples-venv
    [ -x $venv/bin/pip ] || python3 -m venv $venv
    $venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
    python -m grpc_tools.protoc -I ../../proto --python_out=. --pyi_out=. --grpc_python_out=. \
      participantgateway/v1/participant_service.proto participantgateway/v1/quota_service.proto
    ruff check --quiet .
    ruff format --quiet --check .
    mypy --no-error-summary callers
    ;;
  typescript)
    npm ci --silent --no-fund --no-audit
    npm run --silent generate
    npm run --silent build
    npm run --silent lint
    ;;
  java)
    mvn --quiet --batch-mode --no-transfer-progress spotless:check package
    ;;
  rust)
    cargo fmt --check
    cargo clippy --quiet --locked --all-targets -- -D warnings
    cargo build --quiet --locked
    ;;
  *)
    echo "unknown language: $1" >&2
    exit 64
    ;;
esac
