#!/usr/bin/env bash
# image-files.sh PROGRAM FOLDER: puts the files of the image into FOLDER: the program without its symbols, the shared
# libraries that it is linked with, and the CAs. All of them can be read by any user, whatever this shell's umask.
set -euo pipefail
umask 022
program=$1 folder=$2

install -D --strip "$program" "$folder/participant-gateway"
# A static program has no libraries, and ldd fails of that.
libraries=$(ldd "$program") || libraries=
if grep 'not found' <<<"$libraries" >&2; then exit 1; fi
{ grep -oE '/[^ ]+' <<<"$libraries" || true; } | xargs --no-run-if-empty cp --parents --dereference --target-directory "$folder"
install -D --mode 644 "${CA_CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}" "$folder/etc/ssl/certs/ca-certificates.crt"
