#!/usr/bin/env bash
# Packages the chart into .tools/chart/; `package.sh --check VERSION` only compares crate and chart with a version.
set -euo pipefail
cd "$(dirname "$0")/../.."

crate=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
chart=$(sed -n 's/^version: //p' helm/participant-gateway/Chart.yaml)
app=$(sed -n 's/^appVersion: "\(.*\)"/\1/p' helm/participant-gateway/Chart.yaml)

if [ "${1:-}" = --check ]; then
  for one in "crate $crate" "chart $chart" "appVersion $app"; do
    [ "${one#* }" = "$2" ] || { echo "$one is not $2: set it before tagging" >&2; exit 1; }
  done
  exit
fi

rm -rf .tools/chart
.tools/bin/helm package helm/participant-gateway --destination .tools/chart
