# shellcheck shell=bash
# For the scripts that install tools, sourced from the project's root: what is in .tools/, and at which version.

bin="$PWD/.tools/bin"
mkdir -p "$bin"

# missing NAME VERSION: whether .tools/ lacks that version of the tool.
missing() {
  [ "$(cat "$bin/.$1-version" 2>/dev/null)" != "$2" ] || return 1
  echo "installing $1 $2 into .tools/"
}
installed() { echo "$2" >"$bin/.$1-version"; }
