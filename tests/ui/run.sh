#!/usr/bin/env bash
# Tests the dashboard in Debian's Chromium, against a mock and in front of the real gateway:
# `tests/ui/run.sh`, or `tests/ui/run.sh http://host:port` for a gateway that runs.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"

tests=("$ui/dashboard.test.mjs" "$ui/gateway.test.mjs")
if [[ $# -gt 0 ]]; then
    export URL_UNDER_TEST=${1%/}
    tests=("$ui/dashboard.test.mjs")
fi
node --test "${tests[@]}"
