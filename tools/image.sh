#!/usr/bin/env bash
# Builds the image: `tools/image.sh [release|development]`.
#
# Where a Docker engine runs, by the Dockerfile, under the name IMAGE (and pushed, with PUSH=1).
# Where none does, buildah puts the same files into an OCI image, under .tools/image/, with this
# machine's libc. The program is PROGRAM, or is built here. VERSION, REVISION and CREATED become
# labels.
set -euo pipefail
program=${PROGRAM:+$(realpath "$PROGRAM")}
cd "$(dirname "$0")/.."

target=${1:-release}
case $target in
  release | development) ;;
  *) echo "the image is release or development, not $target" >&2; exit 64 ;;
esac
version=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)}
revision=${REVISION:-$(git rev-parse HEAD || echo unknown)}
created=${CREATED:-$(date -u +%Y-%m-%dT%H:%M:%SZ)}
version=${version#v}
suffix=
[ "$target" = release ] || suffix=-simulator
image=${IMAGE:-ghcr.io/participant-gateway/participant-gateway:$version$suffix}

if docker info >/dev/null 2>&1; then
  docker buildx build --target "$target" --tag "$image" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created" \
    "$([ "${PUSH:-}" = 1 ] && echo --push || echo --load)" .
  echo "built $image"
  exit
fi

echo "no Docker engine here: building by buildah"
command -v buildah >/dev/null || { echo "buildah is missing: install it (Debian: apt-get install buildah)" >&2; exit 1; }
if [ -z "$program" ]; then
  features=()
  [ "$target" = development ] || features=(--no-default-features)
  cargo build --locked --release "${features[@]}"
  program=${CARGO_TARGET_DIR:-target}/release/participant-gateway
fi
files=$(mktemp -d)
container=
trap 'rm -rf "$files"; [ -z "$container" ] || buildah rm "$container" >/dev/null' EXIT
tools/image-files.sh "$program" "$files"

# The Dockerfile's last stages, by hand: what it sets is read from it.
from_dockerfile() { sed -n "s/^$1 //p" Dockerfile | tail -1; }
store=$PWD/.tools/image
buildah() { command buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs "$@"; }
container=$(buildah from scratch)
buildah copy --quiet "$container" "$files" /
labels=()
while IFS= read -r label; do
  label=${label//\$\{VERSION\}/$version}
  label=${label//\$\{REVISION\}/$revision}
  labels+=(--label "${label//\$\{CREATED\}/$created}")
done < <(grep -oE 'org\.opencontainers\.image\.[a-z]+="[^"]*"' Dockerfile | tr -d '"')
buildah config --user "$(from_dockerfile USER)" --entrypoint "$(from_dockerfile ENTRYPOINT)" --cmd "--help" \
  --env "$(from_dockerfile ENV)" --port 50051 --port 9090 "${labels[@]}" "$container"
buildah commit --quiet "$container" "$image" >/dev/null
rm -rf "$store/$target.oci"
buildah push --quiet "$image" "oci:$store/$target.oci:$version"
buildah rmi "$image" >/dev/null
echo "built $image, as .tools/image/$target.oci ($(du -sh "$store/$target.oci" | cut -f1) packed)"
