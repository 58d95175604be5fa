#!/usr/bin/env bash
# renew.sh: makes the profile of release builds anew, for this compiler on this host. It builds two programs that count
# their branches, lets benches/train.py make calls of every kind at them, and keeps the counts. One has the simulator. The
# other has none, as the released image: the names in a program depend on its features. It takes llvm-profdata of the
# compiler's own LLVM: `rustup component add llvm-tools`, or Debian's. What makes the calls is counted, too.
set -euo pipefail
cd "$(dirname "$0")/../.."

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

profile=tools/profile/$host-$(version release).profdata
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")/counting
export CARGO_TARGET_DIR PROFILE_COUNTS=$CARGO_TARGET_DIR/counts
unset RUSTC_WRAPPER
rm -rf "$PROFILE_COUNTS"
mkdir -p "$PROFILE_COUNTS"
# One after the other: built together, each package would get the other's features of a library.
cargo build --locked --release -p participant-gateway --no-default-features
released=$CARGO_TARGET_DIR/released/participant-gateway
install -D "$CARGO_TARGET_DIR/release/participant-gateway" "$released"
cargo build --locked --release -p participant-gateway
cargo build --locked --release -p participant-gateway-benches --bin generate --bin collect
export LLVM_PROFILE_FILE=$PROFILE_COUNTS/%m_%p.profraw
benches/train.py "$CARGO_TARGET_DIR/release"
benches/train.py "$CARGO_TARGET_DIR/release" "$released"
"$merge" merge --text -o "$CARGO_TARGET_DIR/counts.txt" "$PROFILE_COUNTS"
# Small functions that no call has entered are left out: with them the file would be 2.5 × as large. The large ones
# stay, so that the compiler knows that they are cold, and makes them small.
awk 'BEGIN { RS = ""; FS = "\n"; ORS = "\n\n" }
     { keep = NR == 1 || $5 > 8; for (i = 7; !keep && i <= 6 + $5; i++) keep = $i != "0" }
     keep' "$CARGO_TARGET_DIR/counts.txt" >"$CARGO_TARGET_DIR/profile.txt"
"$merge" merge -o "$profile" "$CARGO_TARGET_DIR/profile.txt"
echo "$profile"
