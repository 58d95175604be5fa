#!/usr/bin/env bash
# The chart on a real kube-apiserver (no nodes): installed, upgraded and strictly validated, in namespaces that enforce
# the restricted Pod Security Standard and warn by it. Building the server takes five minutes once, starting it seconds.
# `--bless` writes tests/chart/upgrade.txt anew, which lists what an upgrade from the chart of BEFORE changes.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

version=v1.34.1 # its go.mod says so, too
export PATH="$PWD/.tools/bin:$PATH"
bin="$PWD/.tools/bin"
. tools/it.sh
. tests/chart/cases.sh
make_parent
servers=()
trap 'kill "${servers[@]}" 2>/dev/null; wait; rm -rf "$work"' EXIT

for tool in kube-apiserver kubectl; do
  if [ "$(cat "$bin/.$tool-version" 2>/dev/null)" != $version ]; then
    echo "building $tool $version into .tools/"
    # Without the version, neither kubectl nor helm can read what the server says that it is.
    (cd tools/kubernetes && go build -mod=readonly -o "$bin/$tool" -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version \
      -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34" "k8s.io/kubernetes/cmd/$tool") || exit 1
    echo $version >"$bin/.$tool-version"
  fi
done
etcd=$(command -v etcd || echo "$PWD/.tools/etcd/usr/bin/etcd")
if ! [ -x "$etcd" ]; then
  echo "installing etcd (of Debian's package etcd-server) into .tools/"
  apt-get update -qq
  (cd .tools && apt-get download -qq -o APT::Sandbox::User=root etcd-server && dpkg-deb -x etcd-server_*.deb etcd && rm etcd-server_*.deb) || exit 1
fi

free_ports() { python3 -c '
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(one.getsockname()[1] for one in sockets))' "$1"; }
read -r client peer secure < <(free_ports 3)
"$etcd" --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
  --listen-peer-urls "http://127.0.0.1:$peer" --unsafe-no-fsync >"$work/etcd.log" 2>&1 &
servers+=($!)
openssl genrsa -out "$work/key" 2048 2>/dev/null
echo tok,admin,admin,system:masters >"$work/tokens"
kube-apiserver --etcd-servers "http://127.0.0.1:$client" --secure-port "$secure" --bind-address 127.0.0.1 --cert-dir "$work/certs" \
  --service-account-key-file "$work/key" --service-account-signing-key-file "$work/key" --service-account-issuer https://kubernetes.default.svc \
  --token-auth-file "$work/tokens" --authorization-mode RBAC --service-cluster-ip-range 10.0.0.0/24,fd00:10::/108 \
  --disable-admission-plugins ServiceAccount >"$work/server.log" 2>&1 &
servers+=($!)

export KUBECONFIG="$work/kubeconfig"
kubectl config set-cluster test --server "https://127.0.0.1:$secure" --insecure-skip-tls-verify >/dev/null
kubectl config set-credentials admin --token tok >/dev/null
kubectl config set-context test --cluster test --user admin >/dev/null
kubectl config use-context test >/dev/null
for _ in $(seq 120); do kubectl get --raw /readyz >/dev/null 2>&1 && break; sleep 0.5; done
kubectl get --raw /readyz >/dev/null || { tail -20 "$work/server.log"; exit 1; }

# Kubernetes 1.34 says this of every headless Service, since it looks at the affinity after defaulting it.
known='spec.SessionAffinity is ignored for headless services'

# A warning is a failure, too.
fine() { ! grep -v "$known" "$work/out" | grep -qiE 'warning|would violate|^W[0-9]{4}'; }
namespace() {
  kubectl create namespace "$1" && kubectl label namespace "$1" pod-security.kubernetes.io/enforce=restricted \
    pod-security.kubernetes.io/warn=restricted pod-security.kubernetes.io/audit=restricted
}
pods() {
  .tools/venv/bin/python -c '
import json, sys, yaml
pods = []
for one in yaml.safe_load_all(open(sys.argv[1])):
    if one and (one["kind"] == "Pod" or "template" in one.get("spec", {})):
        spec = one["spec"] if one["kind"] == "Pod" else one["spec"]["template"]["spec"]
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p%d" % len(pods)}, "spec": spec})
assert pods
json.dump({"apiVersion": "v1", "kind": "List", "items": pods}, open(sys.argv[2], "w"))' "$1" "$work/pods.json" &&
    kubectl -n "$2" create --dry-run=server --validate=strict -f "$work/pods.json"
}
changed() { if [ "$1" = $chart ]; then echo --set=podAnnotations.upgraded=yes; else echo --set=participant-gateway.podAnnotations.upgraded=yes; fi; }
refused_by_pod_security() {
  ! kubectl -n "$1" run root --image x --dry-run=server >"$work/root" 2>&1 && grep -q 'violates PodSecurity' "$work/root"
}

# As their projects publish them, in their Go modules, so that the server validates those kinds, too.
definitions() {
  kubectl create -f tools/kubernetes/crds.yaml || return
  local module path folder
  while read -r module path; do
    folder=$(go mod download -json "$module" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p') || return
    kubectl create -f "$folder/$path" || return
  done <tools/kubernetes/crds.txt
}
it "the server knows the optional kinds" definitions
kubectl wait --for condition=established crd --all --timeout 30s >/dev/null
for shared in grafana monitoring; do kubectl create namespace $shared >/dev/null; done

for helm in helm helm3; do
  for case in $cases $field; do
    in=${case#field/}-$helm
    from=$(chart_of "$case") with=$(values "$case")
    namespace "$in" >/dev/null
    $helm template gateway "$from" --namespace "$in" -f "$with" >"$work/$in.yaml"
    it "$helm installs $case" $helm upgrade --install gateway "$from" --namespace "$in" -f "$with"
    it "$helm upgrades $case in place" $helm upgrade --install gateway "$from" --namespace "$in" -f "$with" "$(changed "$from")"
    it "$helm rolls $case back" $helm rollback gateway 1 --namespace "$in"
    it "$case's pods are taken" pods "$work/$in.yaml" "$in"
    # The field managers differ from Helm's: taken over, since it is validation that is asked for.
    kubectl config set-context test --namespace "$in" >/dev/null
    it "$case is strictly valid" kubectl apply --server-side --force-conflicts --validate=strict --dry-run=server -f "$work/$in.yaml"
    it "$helm uninstalls $case" $helm uninstall gateway --namespace "$in"
  done
done
it "a pod that is not restricted would be refused" refused_by_pod_security default-helm

# An autoscaler takes over a release of five; `kubectl scale` stands for it, as no controller runs here.
replicas() { [ "$(kubectl -n "$1" get deployment gateway-participant-gateway -o jsonpath='{.spec.replicas}')" = "$2" ]; }
for helm in helm helm3; do
  in=scaled-$helm
  namespace "$in" >/dev/null
  upgrade() { $helm upgrade --install gateway $chart --namespace "$in" -f tests/chart/required.yaml "$@"; }
  it "$helm installs five replicas" upgrade --set replicaCount=5
  it "$helm gives them to an autoscaler" upgrade --set autoscaling.enabled=true
  it "all five are still there" replicas "$in" 5
  it "$helm upgrades before the autoscaler did anything" upgrade --set autoscaling.enabled=true,podAnnotations.a=b
  it "all five are still there" replicas "$in" 5
  it "the autoscaler makes them seven" kubectl -n "$in" scale deployment gateway-participant-gateway --replicas 7
  it "$helm upgrades again" upgrade --set autoscaling.enabled=true,podAnnotations.a=c
  it "all seven are still there" replicas "$in" 7
  it "the autoscaler makes them eight" kubectl -n "$in" scale deployment gateway-participant-gateway --replicas 8
  it "$helm upgrades once more" upgrade --set autoscaling.enabled=true,podAnnotations.a=d
  it "all eight are still there" replicas "$in" 8
  [ $helm = helm ] || continue # Helm 3 brings back the number of the older release; the autoscaler mends it
  it "the autoscaler makes them nine" kubectl -n "$in" scale deployment gateway-participant-gateway --replicas 9
  it "$helm rolls back" $helm rollback gateway --namespace "$in"
  it "all nine are still there" replicas "$in" 9
done

# From the chart of an older commit, or of the last landing: what changes is what tests/chart/upgrade.txt lists.
before=${BEFORE:-bcd748b}
git archive "$before" $chart | tar -x -C "$work" || exit 1
changes() { .tools/venv/bin/python tests/chart/manifests.py changes "$work/$1.before" "$work/$1.after" | sed "s|^|$2: |" | tee -a "$work/changes"; }
# Helm 3 keeps the number of replicas that runs, instead of leaving it to the autoscaler.
as_listed() { grep -v ' spec.replicas: null -> ' "$work/changes" | diff -u tests/chart/upgrade.txt -; }
for helm in helm helm3; do
  : >"$work/changes"
  for case in $cases; do
    in=before-$case-$helm
    namespace "$in" >/dev/null
    older() { $helm upgrade --install gateway "$work/$chart" --namespace "$in" -f "$(values "$case")"; }
    newer() { $helm upgrade gateway $chart --namespace "$in" -f "$(values "$case")"; }
    it "$helm installs $case by the older chart" older
    $helm get manifest gateway --namespace "$in" >"$work/$in.before"
    it "$helm upgrades it to this one" newer
    $helm get manifest gateway --namespace "$in" >"$work/$in.after"
    it "no object is another one" changes "$in" "$case"
    $helm uninstall gateway --namespace "$in" >/dev/null
  done
  [ "${1:-}" != --bless ] || [ $helm != helm ] || cp "$work/changes" tests/chart/upgrade.txt
  it "$helm changes what tests/chart/upgrade.txt lists, and nothing else" as_listed
done

finish
