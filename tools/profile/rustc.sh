#!/usr/bin/env bash
# rustc.sh RUSTC ARGUMENT…: the compiler as .cargo/config.toml has Cargo call it. It optimises a release build by the
# profile beside this script: how often the program takes each branch under load. A profile fits one version of the
# compiler on one host, whose names it bears; any other builds without one. `RUSTC_WRAPPER= cargo build --release` builds
# without it, too, in a target folder of its own: Cargo does not see the difference.
# With PROFILE_COUNTS=FOLDER the program counts its branches, and writes them there: renew.sh makes the profile of them.
set -euo pipefail

arguments() {
  case " $* " in
    # The names in a program for another target are others, and so is what a sanitizer makes of it.
    *" --target "* | *" --target="* | *" -Zsanitizer="* | *" -Z sanitizer="*) return ;;
    # Build scripts and macros are not optimised.
    *" opt-level=3 "*) ;;
    *) return ;;
  esac
  if [ -n "${PROFILE_COUNTS:-}" ]; then
    echo "-Cprofile-generate=$PROFILE_COUNTS"
    return
  fi
  name=$("$1" -vV | sed -n 's/^host: //p; s/^release: //p' | paste -sd- -)
  profile=${0%/*}/$name.profdata
  if [ -f "$profile" ]; then
    # What has changed since the profile was made is built without it. What no call enters is optimised for its size.
    printf '%s\n' "-Cprofile-use=$profile" -Cllvm-args=-no-pgo-warn-mismatch -Cllvm-args=-pgso-lwss-only=false
  fi
}

added=()
while IFS= read -r argument; do added+=("$argument"); done < <(arguments "$@")
# By Bash, since other shells lose environment variables with a hyphen, of which Cargo has some. Its old versions take an
# empty array for an unset one.
exec "$@" ${added[@]+"${added[@]}"}
