#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET…]: builds the fuzz targets and runs each for so long. What a target finds is in
# fuzz/artifacts/TARGET. It needs no nightly toolchain: coverage is the compiler's own, and sanitizers are left out.
# fuzz.sh --minimize [TARGET…]: copies the found inputs that cover the most into fuzz/corpus, as cover-01 to cover-24.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_fuzz=0.13.2

. tools/pinned.sh

if missing cargo-fuzz $cargo_fuzz; then
  cargo install --quiet --locked --debug --root .tools "cargo-fuzz@$cargo_fuzz"
  installed cargo-fuzz $cargo_fuzz
fi
export PATH="$bin:$PATH"

seconds=$1
shift
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cargo fuzz list)

cargo fuzz build --sanitizer none
for target in "${targets[@]}"; do
  # What a run finds interesting grows outside of the repository.
  grown=fuzz/target/grown/$target
  mkdir -p "$grown"
  if [ "$seconds" = --minimize ]; then
    fewer=$(mktemp -d)
    cargo fuzz run --sanitizer none "$target" "$fewer" "fuzz/corpus/$target" "$grown" -- -set_cover_merge=1
    rm -f fuzz/corpus/"$target"/cover-*
    number=0
    # In the order in which they were chosen: each covers more than any that follows.
    while read -r input; do
      number=$((number + 1))
      cp "$fewer/$input" "fuzz/corpus/$target/cover-$(printf %02d $number)"
    done < <(find "$fewer" -type f -printf '%T@ %f\n' | sort -n | head -24 | cut -d' ' -f2)
    rm -rf "$fewer"
  else
    echo "fuzzing $target for $seconds s"
    cargo fuzz run --sanitizer none "$target" "$grown" "fuzz/corpus/$target" -- \
      "-max_total_time=$seconds" -timeout=20 -rss_limit_mb=1024 -print_final_stats=1
  fi
done
