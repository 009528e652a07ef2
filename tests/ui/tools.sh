# shellcheck shell=bash
# What the tests and pictures of the dashboard need; to be sourced. Debian's Chromium and Node, which
# are installed when they are missing and we may, and playwright-core as package-lock.json has it,
# below target/. Sets UI_TOOLS, CHROMIUM and OLLA_BIN.

# shellcheck source-path=SCRIPTDIR source=../../scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
ui=$root/tests/ui
target=${CARGO_TARGET_DIR:-$root/target}

need "${CHROMIUM:-chromium}" chromium
need node nodejs
need npm npm
CHROMIUM=$(command -v "${CHROMIUM:-chromium}")

UI_TOOLS=$target/ui-tools
mkdir -p "$UI_TOOLS"
if ! cmp -s "$ui/package-lock.json" "$UI_TOOLS/installed.json"; then
    cp "$ui/package.json" "$ui/package-lock.json" "$UI_TOOLS/"
    npm ci --prefix "$UI_TOOLS" --no-audit --no-fund --silent
    cp "$ui/package-lock.json" "$UI_TOOLS/installed.json"
fi
UI_TOOLS=$(cd "$UI_TOOLS" && pwd)

if [[ -z ${OLLA_BIN:-} ]]; then
    (cd "$root" && cargo build --quiet --bin olla) || fail "the gateway does not build"
    OLLA_BIN=$target/debug/olla
fi
export UI_TOOLS CHROMIUM OLLA_BIN
