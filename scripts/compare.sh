#!/usr/bin/env bash
# Builds the release binaries, sees to nginx and HAProxy, and hands over to compare.py, whose --help
# explains the measurement. `--no-build` as the first argument takes the binaries as they are.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for argument in "$@"; do
    case $argument in
        -h | --help) python3 "$root/scripts/compare.py" --help; exit ;;
    esac
done

need nginx nginx || true
need haproxy haproxy || true
if [[ ${1:-} == --no-build ]]; then
    shift
else
    build
    set -- --bin "$olla" --loadtest-bin "$loadtest" "$@"
fi
PATH=$PATH:/usr/sbin:/sbin python3 "$root/scripts/compare.py" "$@"
