#!/usr/bin/env bash
# Licences, sources and banned crates; advisories where their database can be fetched.
set -euo pipefail
cd "$(dirname "$0")/.."

deny=.tools/bin/cargo-deny
"$deny" --locked check bans licenses sources

if timeout 60 "$deny" --locked fetch db >/dev/null 2>&1; then
  "$deny" --locked check --disable-fetch advisories
else
  echo "advisories: not checked, their database cannot be fetched from here"
fi
