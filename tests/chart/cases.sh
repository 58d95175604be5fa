# shellcheck shell=bash
# shellcheck disable=SC2034 # those who source it use the variables
# The values files that the scripts test the chart with. Source this after `work` is set.

chart=helm/participant-gateway
cases="default dev eks trial full"
field=$(cd tests/chart/field && printf 'field/%s\n' ./*.yaml | sed 's|\./||; s|\.yaml$||')

# values CASE: its file.
values() {
  case $1 in
    default) echo tests/chart/required.yaml ;;
    dev | eks) echo "$chart/values-$1.yaml" ;;
    *) echo "tests/chart/$1.yaml" ;;
  esac
}

# chart_of CASE: this chart, or one that depends on it, where the values are written for such a one.
chart_of() {
  if grep -q '^participant-gateway:' "$(values "$1")"; then echo "${work:?}/parent"; else echo "$chart"; fi
}

# make_parent: makes the chart that depends on this one.
make_parent() {
  mkdir -p "$work/parent/charts" "$work/parent/templates"
  cp -r "$chart" "$work/parent/charts/participant-gateway"
  touch "$work/parent/values.yaml"
  printf '%s\n' 'apiVersion: v2' 'name: parent' 'version: 0.1.0' 'dependencies:' \
    '  - {name: participant-gateway, version: 0.1.0, condition: participant-gateway.enabled}' >"$work/parent/Chart.yaml"
}
