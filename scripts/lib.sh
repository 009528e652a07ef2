# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables set here are for the scripts that source this
# Shared by the benchmark scripts; to be sourced. Sets `root`, and ends what `start` started when
# the script ends.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Linux allows 1,024 descriptors by default; 500 streams through a proxy need twice 500.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

started=()
scratch=$(mktemp -d)

cleanup() {
    local pid
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${started[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# need COMMAND PACKAGE: installs a Debian package when its command is missing and we may.
need() {
    local command=$1 package=$2
    PATH=$PATH:/usr/sbin:/sbin
    if command -v "$command" >/dev/null; then
        return
    fi
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "${0##*/}: $command is missing (Debian: sudo apt-get install $package)" >&2
        return 1
    fi
    echo "installing $package ..." >&2
    # No service is to be started by the installation: these programs run with our own files.
    local policy=/usr/sbin/policy-rc.d made=false installed=true
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        made=true
    fi
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq \
        --no-install-recommends "$package"; } >"$scratch/apt.log" 2>&1 || installed=false
    if $made; then
        rm -f "$policy"
    fi
    $installed || { tail -5 "$scratch/apt.log" >&2; return 1; }
}

# Builds the release binaries; $olla and $loadtest are their paths.
build() {
    local target=${CARGO_TARGET_DIR:-$root/target}
    olla=${OLLA_BIN:-$target/release/olla}
    loadtest=${LOADTEST_BIN:-$target/release/olla-loadtest}
    if [[ -z ${OLLA_BIN:-} ]]; then
        (cd "$root" && cargo build --release --bin olla) || fail "the gateway does not build"
    fi
    if [[ -z ${LOADTEST_BIN:-} ]]; then
        (cd "$root" && cargo build --release -p olla-loadtest) ||
            fail "the load tools do not build"
    fi
}

# start NAME COMMAND...: runs it in the background, its output in $scratch/NAME.{out,err}.
start() {
    local name=$1
    shift
    "$@" >"$scratch/$name.out" 2>"$scratch/$name.err" &
    started+=($!)
}

# wait_until SECONDS WHAT COMMAND...: repeats the command until it succeeds.
wait_until() {
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= limit)); then
            tail -n 5 "$scratch"/*.err >&2 || true
            fail "$what is not ready"
        fi
        sleep 0.05
    done
}

# The processors to pin to: the gateway on one, stub and client on the other. Empty when there is
# only one.
choose_cpus() {
    local cpus
    cpus=$(python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)))')
    read -r gateway_cpu load_cpu _ <<<"$cpus"
    on_gateway_cpu=() on_load_cpu=()
    if [[ -n ${load_cpu:-} ]] && command -v taskset >/dev/null; then
        on_gateway_cpu=(taskset -c "$gateway_cpu") on_load_cpu=(taskset -c "$load_cpu")
    else
        echo "${0##*/}: nothing is pinned; the figures mix the gateway with its load" >&2
    fi
}

# Starts the stub and the gateway in front of it; $stub_url and $gateway_url are where chat goes.
start_stub_and_gateway() {
    choose_cpus
    start stub "${on_load_cpu[@]}" "$loadtest" stub --model bench
    wait_until 10 "the stub" grep -q '^listening on' "$scratch/stub.out"
    local addr port
    addr=$(sed -n 's/^listening on //p' "$scratch/stub.out")
    port=$(python3 "$root/scripts/ports.py")
    cat >"$scratch/olla.toml" <<TOML
[server]
host = "127.0.0.1"
port = $port
workers = 1
pin_workers = false
io_driver = "${IO_DRIVER:-auto}"

# High enough never to refuse, but not off: the limiter is part of what is measured.
[server.rate_limits]
global_requests_per_minute = 1000000000
per_ip_requests_per_minute = 1000000000
burst_size = 100000000

[[discovery.static.endpoints]]
url = "http://$addr"
name = "stub"
type = "openai-compatible"
TOML
    start gateway "${on_gateway_cpu[@]}" "$olla" --config "$scratch/olla.toml"
    stub_url=http://$addr/v1/chat/completions
    gateway_url=http://127.0.0.1:$port/olla/openai/v1/chat/completions
    wait_until 15 "the gateway" "$loadtest" chat --url "$gateway_url" --model bench \
        --connections 1 --requests 1 --nonce
}

# cpu_ms PID: processor time of a process so far, in milliseconds.
cpu_ms() {
    python3 - "$1" <<'PYTHON'
import os, sys
fields = open(f"/proc/{sys.argv[1]}/stat").read().rsplit(")", 1)[1].split()
print((int(fields[11]) + int(fields[12])) * 1000 // os.sysconf("SC_CLK_TCK"))
PYTHON
}

# gateway_pid: the process that `start_stub_and_gateway` started last.
gateway_pid() {
    echo "${started[-1]}"
}

# body BYTES STREAM: a chat request of about that length.
body() {
    python3 - "$1" "$2" <<'PYTHON'
import sys
head = '{"model":"bench","stream":%s,"max_tokens":64,' % sys.argv[2]
head += '"messages":[{"role":"user","content":"'
tail = '"}]}'
text = 'Answer with \\"yes\\" or \\"no\\".\\n'
room = max(0, int(sys.argv[1]) - len(head) - len(tail))
print(head + text * (room // len(text)) + "." * (room % len(text)) + tail, end="")
PYTHON
}

# run_on_stand PROGRAM ARGUMENTS...: builds, unless --no-build comes first, and hands over to a
# program that takes the binaries as options.
run_on_stand() {
    local program=$root/scripts/$1 argument
    shift
    for argument in "$@"; do
        case $argument in
            -h | --help) exec python3 "$program" --help ;;
        esac
    done
    if [[ ${1:-} == --no-build ]]; then
        shift
        olla=${OLLA_BIN:-${CARGO_TARGET_DIR:-$root/target}/release/olla}
        loadtest=${LOADTEST_BIN:-${CARGO_TARGET_DIR:-$root/target}/release/olla-loadtest}
    else
        build
    fi
    python3 "$program" --bin "$olla" --loadtest-bin "$loadtest" "$@"
}
