#!/usr/bin/env bash
# image-files.sh PROGRAM FOLDER: puts the files of the image into FOLDER: the program without its symbols, the shared
# libraries that it is linked with, and the CAs.
set -euo pipefail
program=$1 folder=$2

install -D --strip "$program" "$folder/participant-gateway"
ldd "$program" | grep -oE '/[^ ]+' | xargs cp --parents --dereference --target-directory "$folder"
install -D --mode 644 "${CA_CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}" "$folder/etc/ssl/certs/ca-certificates.crt"
