#!/usr/bin/env bash
# Builds every example by its own tools. Tests each against real gateways, a real Redis and the
# simulated Amazon Connect. LANGUAGES="go python" chooses; other arguments are unittest's.
# The program: PARTICIPANT_GATEWAY, or else target/debug/participant-gateway.
set -euo pipefail
cd "$(dirname "$0")/../.."

export PATH="$PWD/.tools/bin:$PWD/.tools/examples-venv/bin:$PATH"
export PARTICIPANT_GATEWAY="${PARTICIPANT_GATEWAY:-$PWD/target/debug/participant-gateway}"
export LANGUAGES="${LANGUAGES:-go python typescript java rust}"

# A name with two addresses, as a headless Service has: in a mount namespace of our own where
# /etc/hosts does not have it already.
name=gateways.test
addresses() { getent ahostsv4 $name | cut -d' ' -f1 | sort -u | xargs; }
if [ "$(addresses)" != "127.0.0.1 127.0.0.2" ]; then
  if [ -n "${IN_NAMESPACE:-}" ] || ! unshare --map-root-user --mount true 2>/dev/null; then
    echo "add two lines to /etc/hosts: '127.0.0.1 $name' and '127.0.0.2 $name'" >&2
    exit 1
  fi
  hosts=$(mktemp)
  { cat /etc/hosts; printf '127.0.0.1 %s\n127.0.0.2 %s\n' $name $name; } >"$hosts"
  # shellcheck disable=SC2016 # the shell inside the namespace expands it
  IN_NAMESPACE=1 exec unshare --map-root-user --mount \
    sh -c 'mount --bind "$1" /etc/hosts && rm -f "$1"; shift; exec "$@"' - "$hosts" "$0" "$@"
fi

for language in $LANGUAGES; do
  echo "building examples/$language"
  started=$(date +%s)
  tests/examples/build.sh "$language"
  echo "built examples/$language in $(($(date +%s) - started)) s"
done
exec python3 -B -m unittest discover --start-directory tests/examples --verbose "$@"
