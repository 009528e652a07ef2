#!/usr/bin/env bash
# Checks the project: tests, format, lints, and where the tools are there dependencies and shell
# scripts. Every step runs even after a failure; the end names those that failed.
#
#   scripts/check.sh          everything
#   scripts/check.sh fmt      one step or several: test fmt clippy deny shell
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

failed=()

# step NAME SECONDS COMMAND...: runs a command for so long at the most.
step() {
    local name=$1 seconds=$2 code=0
    shift 2
    echo "== $name: $*"
    timeout --kill-after=30 "$seconds" "$@" || code=$?
    case $code in
        0) ;;
        124 | 137) failed+=("$name (not done within $seconds s)") ;;
        *) failed+=("$name (exit code $code)") ;;
    esac
}

check() {
    case $1 in
        test) step test 2400 cargo test --workspace ;;
        fmt) step fmt 120 cargo fmt --all --check ;;
        clippy) step clippy 1200 cargo clippy --workspace --all-targets -- -D warnings ;;
        deny) optional cargo-deny && step deny 300 cargo deny --all-features check ;;
        shell) optional shellcheck && step shell 60 shellcheck -x scripts/*.sh .ci/run ;;
        *)
            echo "check.sh: no step $1; there are test fmt clippy deny shell" >&2
            exit 2
            ;;
    esac
}

optional() {
    command -v "$1" >/dev/null && return
    echo "== $1 is not installed, left out"
    return 1
}

if [[ $# -eq 0 ]]; then
    set -- test fmt clippy deny shell
fi
for name in "$@"; do
    check "$name"
done

if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "all good"
