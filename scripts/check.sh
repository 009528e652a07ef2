#!/usr/bin/env bash
# Checks the project: tests, format, lints, and where the tools are there the dashboard in a browser,
# dependencies and shell scripts. Every step runs even after a failure; the end names those that
# failed. A step in CHECK_REQUIRED fails when its tools are missing, instead of being left out.
#
#   scripts/check.sh          everything
#   scripts/check.sh fmt      one step or several: test ui fmt clippy deny shell
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
        ui) optional ui chromium node npm && step ui 420 tests/ui/run.sh ;;
        fmt) step fmt 120 cargo fmt --all --check ;;
        clippy) step clippy 1200 cargo clippy --workspace --all-targets -- -D warnings ;;
        deny) optional deny cargo-deny && step deny 300 cargo deny --all-features check ;;
        shell) optional shell shellcheck && step shell 60 shellcheck -x scripts/*.sh tests/ui/*.sh .ci/run ;;
        *)
            echo "check.sh: no step $1; there are test ui fmt clippy deny shell" >&2
            exit 2
            ;;
    esac
}

# optional STEP COMMAND...: whether the tools of a step are there; tells what becomes of it if not.
optional() {
    local name=$1 tool
    shift
    for tool in "$@"; do
        command -v "$tool" >/dev/null && continue
        if [[ " ${CHECK_REQUIRED:-} " == *" $name "* ]]; then
            failed+=("$name ($tool is not installed)")
        else
            echo "== $name: $tool is not installed, left out"
        fi
        return 1
    done
}

if [[ $# -eq 0 ]]; then
    set -- test ui fmt clippy deny shell
fi
for name in "$@"; do
    check "$name"
done

if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "all good"
