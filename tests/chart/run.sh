#!/usr/bin/env bash
# Every test of the chart, the alerts and the dashboards; `--bless` writes the golden renders and the chart's README anew.
# The program that the config is given to: PARTICIPANT_GATEWAY, or else target/debug/participant-gateway.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

export PATH="$PWD/.tools/bin:$PATH"
export PARTICIPANT_GATEWAY="${PARTICIPANT_GATEWAY:-$PWD/target/debug/participant-gateway}"
python="$PWD/.tools/venv/bin/python"
here=tests/chart
. tools/it.sh
. tests/chart/cases.sh
make_parent

render() { "$1" template gateway "$(chart_of "$2")" --namespace participants -f "$(values "$2")" "${@:3}"; }

refuses() {
  local expected=$1
  shift
  if helm template gateway $chart -f $here/required.yaml "$@" >"$work/refused" 2>&1; then
    echo "it was accepted"
    return 1
  fi
  cat "$work/refused"
  grep -qE -- "$expected" "$work/refused"
}
takes() { helm template gateway $chart -f $here/required.yaml "$@"; }
same() { diff -u "$1" "$2"; }
as_generated() { (cd $chart && helm-docs --dry-run --log-level error) | same $chart/README.md -; }
as_a_dependency() {
  { printf 'global: {any: thing}\nparticipant-gateway:\n  enabled: true\n'; sed 's/^/  /' $here/required.yaml; } >"$work/parent.yaml"
  helm template gateway "$work/parent" -f "$work/parent.yaml" | grep -q 'kind: Deployment'
}
unit_tests() {
  untt -f 'tests/*_test.yaml' $chart >"$work/unit" 2>&1
  local code=$?
  cat "$work/unit"
  return $code
}
packaged() {
  helm package $chart --destination "$work" &&
    ! tar -tzf "$work"/participant-gateway-*.tgz | grep -E '/tests/[a-z]*_test.yaml|gotmpl'
}
schema_of_the_program() { "$PARTICIPANT_GATEWAY" schema | tools/chart/schema.py --check; }
# `subject-digest` of each image's attestation, beside the images that the release makes.
sbom_of_each_image() {
  "$python" -c '
import re, yaml
jobs = yaml.safe_load(open(".github/workflows/release.yml"))["jobs"]
steps = [step.get("with", {}) for step in jobs["publish"]["steps"]]
of = lambda key: sorted(re.findall(r"outputs\.(\w+)", " ".join(step.get(key, "") for step in steps)))
made = sorted(jobs["image"]["strategy"]["matrix"]["target"])
assert of("image") == of("subject-digest") == made, (of("image"), of("subject-digest"), made)
files = [[step[key] for step in steps if key in step] for key in ("output-file", "sbom-path")]
assert files[0] == files[1] and len(set(files[0])) == len(made), files'
}
# But for the one that is here, and stays what it is.
pinned() { ! grep -rn 'uses:' .github | grep -vE 'uses: (\./|[A-Za-z0-9./-]+@[0-9a-f]{40} # v[0-9.]+$)'; }
rules_of_the_render() {
  "$python" -c '
import sys, yaml
rules = next(one for one in yaml.safe_load_all(open(sys.argv[1])) if one["kind"] == "PrometheusRule")
yaml.safe_dump(rules["spec"], open(sys.argv[2], "w"))' "$(file eks .helm)" "$work/rules.yaml" &&
    promtool check rules "$work/rules.yaml"
}

# The very lines of the document, with this chart in place of the published one.
check_as_documented() {
  local folder=$work/documented
  mkdir "$folder"
  { awk '/^```/ { if (found) print block; found = 0; block = "" } /participant-gateway check/ { found = 1 } !/^```/ { block = block $0 "\n" }' docs/deploying.md; } >"$folder/lines"
  grep -q 'participant-gateway check' "$folder/lines" || { echo "no such lines"; return 1; }
  cp $chart/values-eks.yaml "$folder/values.yaml"
  cat - "$folder/lines" >"$folder/script" <<END
set -euo pipefail
helm() { command helm "\${@/oci:*/$PWD/$chart}"; }
participant-gateway() { "$PARTICIPANT_GATEWAY" "\$@"; }
END
  (cd "$folder" && bash script)
}

# The dashboards have a test of their own: in a golden render they would hide the rest.
golden() { render helm "$1" --set dashboards.enabled=false; }
file() { echo "$work/${1//\//-}$2.yaml"; }
for case in $cases $field; do
  for helm in helm helm3; do
    render $helm "$case" >"$(file "$case" .$helm)" 2>"$work/error" || { echo "$helm cannot render $case"; cat "$work/error"; }
  done
done
if [ "${1:-}" = --bless ]; then
  mkdir -p $here/golden
  for case in default dev eks; do golden $case >"$here/golden/$case.yaml"; done
  (cd $chart && helm-docs --log-level error)
fi
as_before() { golden "$1" | same "$here/golden/$1.yaml" -; }
twice_the_same() { render helm "$1" | cmp - "$(file "$1" .helm)"; }

for helm in helm helm3; do
  it "$helm lints the chart, strictly" $helm lint --strict $chart
  for case in $cases $field; do
    it "$helm lints the chart with $case, strictly" $helm lint --strict "$(chart_of "$case")" -f "$(values "$case")"
  done
done
for case in default dev eks; do
  it "$case renders as before (--bless after looking at the difference)" as_before $case
done
it "the unit tests pass" unit_tests
for case in $cases $field; do
  rendered=$(file "$case" .helm)
  it "helm 3 renders $case as helm 4 does" "$python" $here/manifests.py same "$(file "$case" .helm3)" "$rendered"
  it "$case renders the same twice" twice_the_same "$case"
  it "$case fits Kubernetes' schemas" "$python" $here/manifests.py schemas "$rendered"
  it "$case fits the restricted Pod Security Standard" "$python" $here/manifests.py restricted "$rendered"
  it "$case mounts whole directories and keeps secrets out of its ConfigMap" "$python" $here/manifests.py mounts "$rendered"
  it "$case has a config that the program accepts" "$python" $here/program.py check "$rendered"
done
for case in $field; do
  it "$case is shown in docs/deploying.md, as it is" "$python" $here/field.py "$(values "$case")"
done
it "dev serves a call, with the pod's arguments, and ends at SIGTERM" "$python" $here/program.py serve "$(file dev .helm)"

it "the config is checked by the lines of docs/deploying.md" check_as_documented

it "a misspelled key is refused" refuses "additional properties 'replicas' not allowed" --set replicas=3
it "a misspelled key of a part is refused" refuses "additional properties 'enable' not allowed" --set autoscaling.enable=true
it "a misspelled key of the config is refused" refuses "additional properties 'listn' not allowed" --set config.server.listn=x
it "a misspelled key of a tenant is refused" refuses "additional properties 'rates' not allowed" --set config.tenants.acme.rates=1/s
it "a misspelled alert is refused" refuses "additional properties 'ParticipantGatewayUp' not allowed" --set prometheusRule.alerts.ParticipantGatewayUp.enabled=false
it "a rate without a unit is refused" refuses "tenants/acme/rate" --set config.tenants.acme.rate=20
it "a tenant without a burst is refused" refuses "missing property 'burst'" --set config.tenants.b.rate=1/s,config.tenants.b.instances='{*}'
it "a digest that is none is refused" refuses "image/digest" --set image.digest=latest
it "a grace period that is too short is refused, with what to do" refuses "set at least 35 " --set terminationGracePeriodSeconds=30
it "an old Kubernetes is refused" refuses "requires kubeVersion: >=1.30" --kube-version 1.29.0
it "global and enabled are allowed" takes --set global.a=b --set enabled=true
it "it is a dependency of other charts" as_a_dependency
it "every value may be null, or is asked for in a sentence" "$python" $here/nulls.py
it "it can be packaged, without its tests" packaged
it "the schema of config is the program's" schema_of_the_program
it "the README's table is generated from the values" as_generated

it "the alerts are sound rules" promtool check rules $chart/files/alerts.yaml
it "the rendered alerts are sound rules" rules_of_the_render
it "the alerts ring when they should, and only then" promtool test rules $here/alerts_test.yaml
it "every alert has its runbook and its switch" "$python" $here/metrics.py runbooks
it "every metric and label of alerts and dashboards is documented, and the other way round" "$python" $here/metrics.py names
it "panels follow the dashboard's variables and show what they say" "$python" $here/metrics.py panels
it "the dashboards are what their script says" tools/chart/dashboards.py --check
it "a release has an SBOM of each image" sbom_of_each_image
it "every action of the workflows is pinned by its digest" pinned

# The unit tests count one by one.
unit=$(sed -n 's/^Tests: *\(.*\), [0-9]* total.*/\1/p' "$work/unit")
unit_passed=$(grep -oE '[0-9]+ passed' <<<"$unit" | cut -d' ' -f1)
unit_failed=$(grep -oE '[0-9]+ failed' <<<"$unit" | cut -d' ' -f1)
passed=$((passed + ${unit_passed:-0}))
failed=$((failed + ${unit_failed:-0}))
finish
