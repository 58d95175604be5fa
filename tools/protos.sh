#!/usr/bin/env bash
# The protos: `protos.sh pack VERSION` makes the archive of a release in .tools/protos/;
# `protos.sh breaking` compares with the last tag.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
  pack)
    name=participant-gateway-protos-$2
    rm -rf .tools/protos
    mkdir -p ".tools/protos/$name"
    cp -r proto/. LICENSE examples/service-config.json ".tools/protos/$name"
    # The same files make the same bytes, on every machine.
    tar --create --gzip --file ".tools/protos/$name.tar.gz" --directory .tools/protos \
      --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX "$name"
    rm -r ".tools/protos/$name"
    echo ".tools/protos/$name.tar.gz"
    ;;
  breaking)
    # On a tag itself, the one before it.
    last=$(git describe --tags --abbrev=0 --match 'v[0-9]*' HEAD^ 2>/dev/null || true)
    if [ -z "$last" ]; then
      echo "no release to compare the protos with"
      exit
    fi
    .tools/bin/buf breaking --against ".git#tag=$last"
    ;;
  *)
    echo "usage: protos.sh pack VERSION | breaking" >&2
    exit 64
    ;;
esac
