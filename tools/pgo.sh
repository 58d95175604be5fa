#!/usr/bin/env bash
# pgo.sh: the release program with profile-guided optimisation, as target/pgo/participant-gateway. It builds a program that
# counts, lets benches/train.py make calls of every kind at it, and builds the program once more by what was counted.
# It takes two release builds, and llvm-profdata of the compiler's own LLVM: `rustup component add llvm-tools`, or Debian's.
set -euo pipefail
cd "$(dirname "$0")/.."

version() { rustc -vV | sed -n "s/^$1: //p"; }
host=$(version host)
llvm=$(version 'LLVM version')
sysroot=$(rustc --print sysroot)

profdata() {
  command -v "$sysroot/lib/rustlib/$host/bin/llvm-profdata" || command -v "llvm-profdata-${llvm%%.*}"
}
merge=$(profdata) || {
  tools/install.sh llvm "${llvm%%.*}"
  merge=$(profdata)
}

out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/pgo
counts=$out/counts
profile=$out/gateway.profdata
rm -rf "$counts"
mkdir -p "$counts"

# release FLAGS PACKAGE…: with --target, so that build scripts and macros do not count.
release() {
  RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --locked --release --target "$host" "${@:2}"
}
export CARGO_TARGET_DIR=$out/profile-generate
release "-Cprofile-generate=$counts" -p participant-gateway
release "-Cprofile-generate=$counts" -p participant-gateway-benches --bin generate --bin collect
LLVM_PROFILE_FILE=$counts/%m_%p.profraw benches/train.py "$out/profile-generate/$host/release"
"$merge" merge --sparse -o "$profile" "$counts"
# Cargo does not see that the profile has changed.
export CARGO_TARGET_DIR=$out/profile-use
rm -rf "$CARGO_TARGET_DIR"
release "-Cprofile-use=$profile" -p participant-gateway
install "$out/profile-use/$host/release/participant-gateway" "$out/participant-gateway"
echo "$out/participant-gateway"
