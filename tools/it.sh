# shellcheck shell=bash
# For tests written in shell, sourced from the project's root: `it` runs one and `finish` counts them. `work` is a folder
# that is gone at the end.

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# it SENTENCE COMMAND...: a test, which passes where the command succeeds, and what it printed is `fine`.
it() {
  local sentence=$1
  shift
  if "$@" >"$work/out" 2>&1 && fine; then
    passed=$((passed + 1))
    echo "ok    $sentence"
  else
    failed=$((failed + 1))
    echo "FAIL  $sentence"
    sed 's/^/      /' "$work/out" | head -40
  fi
}

# Whether $work/out is what a good command prints: a script may define it anew.
fine() { :; }

# The last line, and whether all tests passed.
finish() {
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
}
