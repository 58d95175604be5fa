#!/usr/bin/env bash
# What tools/image.sh built by buildah, looked at and run as a pod would: read-only, as 65532, with the pod's arguments.
# `run.sh [release|development]`; the simulated Connect comes from PARTICIPANT_GATEWAY, or target/debug.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

target=${1:-release}
for tool in bwrap python3; do
  command -v $tool >/dev/null || { echo "$tool is missing: install it (Debian: bubblewrap, python3)" >&2; exit 1; }
done
[ -d ".tools/image/$target.oci" ] || { echo "there is no image: run tools/image.sh $target, where no Docker engine runs" >&2; exit 1; }
image=$PWD/.tools/image/$target.oci
export PATH="$PWD/.tools/bin:$PATH"
export PARTICIPANT_GATEWAY="${PARTICIPANT_GATEWAY:-$PWD/target/debug/participant-gateway}"
. tools/it.sh

# The image's config and its files.
python3 - "$image" "$work" <<'END' || exit 1
import json, pathlib, sys, tarfile
image, work = map(pathlib.Path, sys.argv[1:])
blob = lambda digest: image / "blobs" / digest.replace(":", "/")
manifest = json.loads(blob(json.loads((image / "index.json").read_text())["manifests"][0]["digest"]).read_text())
(work / "config.json").write_bytes(blob(manifest["config"]["digest"]).read_bytes())
for layer in manifest["layers"]:
    tarfile.open(blob(layer["digest"])).extractall(work / "root", filter="tar")
END
config() { python3 -c 'import json, sys; print(eval(sys.argv[2], json.load(open(sys.argv[1]))["config"]))' "$work/config.json" "$1"; }
is() { local got; got=$(config "$1"); [ "$got" = "$2" ] || { echo "$1 is $got"; false; }; }
small() { local kib; kib=$(du -sk "$work/root" | cut -f1); echo "$kib KiB"; [ "$kib" -le 25600 ]; }
libraries() { ldd "$work/root/participant-gateway" | grep -oE '/[^ ]+'; }
only() {
  (cd "$work/root" && find . -type f -printf '/%P\n' | sort) |
    diff - <((printf '/etc/ssl/certs/ca-certificates.crt\n/participant-gateway\n' && libraries) | sort)
}
# The layer's own modes: below, bwrap takes the files' owner for the user that the program runs as.
for_all() {
  ! find "$work/root" -mindepth 1 \( -type d ! -perm -005 -o -type f ! -perm -004 -o \
    \( -name participant-gateway -o -name 'ld-*' \) ! -perm -005 \) | grep .
}
simulator() { run simulate --help; }
no_simulator() { ! simulator; }

# As a container of a pod: no other files, none writable, nobody's user, no capabilities.
cat >"$work/run" <<END
#!/usr/bin/env bash
mounted=\$(grep -oE '/[^ ]*/config/config.yaml' <<<"\$*" | sed 's|/config/config.yaml||')
[ -z "\$mounted" ] || { mkdir -p "$work/root\$mounted"; bind=(--ro-bind "\$mounted" "\$mounted"); chmod -R a+rX "\$mounted"; }
mkdir -p "$work/root/proc" "$work/root/dev"
status=\$(mktemp -p "$work")
bwrap --unshare-user --uid 65532 --gid 65532 --unshare-ipc --unshare-uts --cap-drop ALL --ro-bind "$work/root" / \\
  --proc /proc --dev /dev "\${bind[@]}" --setenv SSL_CERT_FILE /etc/ssl/certs/ca-certificates.crt \\
  --die-with-parent --json-status-fd 3 -- /participant-gateway "\$@" 3>"\$status" &
# Signals are for the program: bwrap itself would only die of them.
trap 'kill "\$(grep -oE '"'"'"child-pid": [0-9]+'"'"' "\$status" | grep -oE "[0-9]+\$")"' TERM
wait \$!; code=\$?
while kill -0 \$! 2>/dev/null; do wait \$!; code=\$?; done
exit \$code
END
chmod +x "$work/run"
run() { "$work/run" "$@"; }
serves() {
  helm template gateway helm/participant-gateway -f helm/participant-gateway/values-dev.yaml >"$work/dev.yaml" &&
    GATEWAY=$work/run .tools/venv/bin/python tests/chart/program.py serve "$work/dev.yaml"
}

it "it holds the program, its libraries and the CAs, and nothing else" only
it "it is 25 MiB large at most" small
it "it runs as 65532" is User 65532:65532
it "its entry point is the program" is Entrypoint "['/participant-gateway']"
it "it has the labels of OCI" is 'all(Labels.get("org.opencontainers.image." + one) for one in "title source licenses version revision created".split())' True
it "any user can read its files, and run the program" for_all
if [ "$target" = development ]; then it "it has the simulator" simulator; else it "it has no simulator" no_simulator; fi
it "it starts, on a root that it cannot write to" run --version
it "it serves a call with the pod's arguments, and drains at SIGTERM" serves

finish
