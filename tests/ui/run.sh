#!/usr/bin/env bash
# Tests the dashboard in Debian's Chromium: `tests/ui/run.sh`, or `tests/ui/run.sh http://host:port`
# for a running gateway. Installs what it needs; the npm package goes into target/ui-tools.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export UI_TOOLS=${UI_TOOLS:-"$here/../../target/ui-tools"}

if ! command -v "${CHROMIUM:-chromium}" >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core
fi
if [ ! -d "$UI_TOOLS/node_modules/playwright-core" ]; then
    mkdir -p "$UI_TOOLS"
    npm install --prefix "$UI_TOOLS" --no-audit --no-fund --no-save --silent playwright-core@1
fi
UI_TOOLS=$(cd "$UI_TOOLS" && pwd)
CHROMIUM=$(command -v "${CHROMIUM:-chromium}")
export CHROMIUM
if [ $# -gt 0 ]; then export URL_UNDER_TEST=${1%/}; fi
exec node --test --test-concurrency=1 "$here/dashboard.test.mjs"
