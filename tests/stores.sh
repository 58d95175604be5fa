#!/usr/bin/env bash
# The store's tests once more, on every other server that tools/install.sh has got. What they were built for is not built
# again.
set -euo pipefail
cd "$(dirname "$0")/.."

for server in redis-server-6.2 valkey-server; do
  program="$PWD/.tools/bin/$server"
  if [ ! -x "$program" ]; then
    echo "SKIPPED: no $server here" >&2
    continue
  fi
  "$program" --version
  # Clusters are made with commands that 6.2 does not have, and Sentinel is another program.
  REDIS_SERVER="$program" cargo test --locked --quiet --test integration -- admission_store:: --skip topologies
done
