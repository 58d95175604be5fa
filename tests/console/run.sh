#!/usr/bin/env bash
# The console in a real browser, over real gateways, a real Redis and the simulated Amazon Connect.
# Pictures go to target/console/; `--bless` runs for five minutes, and puts them into docs/images/.
# The program: PARTICIPANT_GATEWAY, or else target/debug/participant-gateway.
set -euo pipefail
cd "$(dirname "$0")/../.."

export PATH="$PWD/.tools/bin:$PATH"
export PARTICIPANT_GATEWAY="${PARTICIPANT_GATEWAY:-$PWD/target/debug/participant-gateway}"
for browser in "${BROWSER:-}" chromium chromium-browser google-chrome; do
  [ -n "$browser" ] && BROWSER=$(command -v "$browser") && break
done
export BROWSER
if [ "${1:-}" = --bless ]; then
  export WARM_UP_S=240
fi
node --test --test-reporter=spec tests/console/console.test.js
if [ "${1:-}" = --bless ]; then
  mkdir -p docs/images
  cp target/console/{rest,throttled,redis-lost}-{light,dark}.png target/console/narrow-light.png docs/images/
fi
