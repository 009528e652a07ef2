#!/usr/bin/env bash
# Checks the project: tests, format, lints, and where their tools are installed the dashboard in a
# browser, the Python, JavaScript and shell code, and the dependencies. Every step runs even after a
# failure; the end lists those that failed. A step in CHECK_REQUIRED fails without its tools instead
# of being skipped.
#
#   scripts/check.sh          everything
#   scripts/check.sh fmt      one step or several: test ui fmt clippy python javascript shell deny
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

steps=(fmt python javascript shell clippy test ui deny)
failed=()

# step NAME SECONDS COMMAND...: runs a command within a time limit.
step() {
    local name=$1 seconds=$2 code=0 begin=$SECONDS
    shift 2
    echo "== $name: $*"
    timeout --kill-after=30 "$seconds" "$@" || code=$?
    case $code in
        0) ;;
        124 | 137) failed+=("$name (not done within $seconds s)") ;;
        *) failed+=("$name (exit code $code)") ;;
    esac
    echo "== $name: $((SECONDS - begin)) s"
}

check() {
    case $1 in
        test) step test 2400 cargo test --workspace ;;
        ui) needs ui python3 chromium node npm && step ui 420 scripts/run ui ;;
        fmt) step fmt 120 cargo fmt --all --check ;;
        clippy) step clippy 1200 cargo clippy --workspace --all-targets -- -D warnings ;;
        python) needs python python3 pip3 && lint python ;;
        javascript) needs javascript python3 node npm && lint javascript ;;
        shell) needs shell python3 shellcheck && lint shell ;;
        deny) needs deny cargo-deny && step deny 300 cargo deny --all-features check ;;
        *)
            echo "check.sh: unknown step \"$1\"; the steps are ${steps[*]}" >&2
            exit 2
            ;;
    esac
}

lint() {
    step "$1" 240 scripts/run lint --languages "$1"
}

# needs STEP COMMAND...: whether the tools of a step are installed; reports a step without them.
needs() {
    local name=$1 tool
    shift
    for tool in "$@"; do
        command -v "$tool" >/dev/null && continue
        if [[ " ${CHECK_REQUIRED:-} " == *" $name "* ]]; then
            failed+=("$name ($tool is not installed)")
        else
            echo "== $name: $tool is not installed, skipped"
        fi
        return 1
    done
}

if [[ $# -eq 0 ]]; then
    set -- "${steps[@]}"
fi
for name in "$@"; do
    check "$name"
done

if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "all good"
