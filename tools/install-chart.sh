#!/usr/bin/env bash
# Installs the tools of the chart's tests that are missing, pinned, into .tools/ (promtool: Debian's package, where we
# are root). Says what it installs; asks nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

helm=4.3.1
helm3=3.22.0
helm3_kubernetes=37
helm_unittest=1.1.2 # its go.mod says so, too
helm_docs=1.14.2
kubernetes_validate=1.37.0

. tools/pinned.sh

# Helm's version, and the Kubernetes version that it assumes without a cluster, come from the linker, as in its releases.
if missing helm $helm; then
  GOBIN="$bin" go install -ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=v$helm" "helm.sh/helm/v4/cmd/helm@v$helm"
  installed helm $helm
fi

if missing helm3 $helm3; then
  mkdir -p .tools/helm3
  kubernetes="-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=$helm3_kubernetes \
    -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=$helm3_kubernetes"
  GOBIN="$PWD/.tools/helm3" go install -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=v$helm3 $kubernetes" \
    "helm.sh/helm/v3/cmd/helm@v$helm3"
  ln -sf ../helm3/helm "$bin/helm3"
  installed helm3 $helm3
fi

# `go install` refuses a module with a `replace`: a module of our own repeats it.
if missing untt $helm_unittest; then
  (cd tools/helm-unittest && go build -mod=readonly -ldflags "-s -w" -o "$bin/untt" github.com/helm-unittest/helm-unittest/cmd/helm-unittest)
  installed untt $helm_unittest
fi

if missing helm-docs $helm_docs; then
  GOBIN="$bin" go install -ldflags "-s -w" "github.com/norwoodj/helm-docs/cmd/helm-docs@v$helm_docs"
  installed helm-docs $helm_docs
fi

if missing kubernetes-validate $kubernetes_validate; then
  [ -x .tools/venv/bin/pip ] || python3 -m venv .tools/venv
  .tools/venv/bin/pip install --quiet --disable-pip-version-check "kubernetes-validate==$kubernetes_validate"
  installed kubernetes-validate $kubernetes_validate
fi

if ! [ -x "$bin/promtool" ] && ! command -v promtool >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing promtool (of Debian's package prometheus) into .tools/"
    apt-get update -qq
    # Unpacked, not installed: the package would start a server.
    (cd .tools && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb prometheus && rm prometheus_*.deb)
    ln -sf ../prometheus/usr/bin/promtool "$bin/promtool"
  else
    echo "promtool is missing: install it (Debian: apt-get install prometheus)" >&2
    exit 1
  fi
fi
