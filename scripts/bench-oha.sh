#!/usr/bin/env bash
# oha against the stub directly and against the gateway in front of it. `--help` tells the rest.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bench-oha.sh [--seconds N]

Brings up the stub LLM server and the gateway (release builds, one worker pinned to one processor;
stub and oha share another), runs oha for N seconds (5) in each scenario, and prints requests a
second, latency, time to the first byte, and the gateway's processor time for each request. Nothing
stays running, all ports are free ones. For the comparison with other proxies see compare.sh.

chat-64      64 connections, as fast as answers come
chat-rate    2,000 requests a second on a schedule; latency counts from when a request was due
prompt-100k  16 connections, 100 KB prompts
streams-100  100 connections, event streams of 20 events in 0.4 s

Environment: OLLA_BIN, LOADTEST_BIN   use these binaries instead of building
             IO_DRIVER                auto (default), io_uring or epoll

oha is installed with `cargo install oha --locked` when it is missing, which takes some minutes.
TEXT
}

seconds=5
while (($#)); do
    case $1 in
        --seconds) seconds=${2:?a number}; shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done

# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
if ! command -v oha >/dev/null; then
    echo "installing oha, which takes some minutes ..." >&2
    cargo install oha --locked || fail "oha could not be installed"
fi
build
start_stub_and_gateway
gateway=$(gateway_pid)

# Reads oha's report and what the gateway spent; tells one line. Requests that the end of the time
# cut off are no failures.
tell=$(cat <<'PYTHON'
import json, sys
name, where, cpu_ms = sys.argv[1:]
report = json.load(sys.stdin)
statuses = report["statusCodeDistribution"]
answers = sum(statuses.values())
errors = report["errorDistribution"]
failures = sum(n for kind, n in errors.items() if kind != "aborted due to deadline")
failures += answers - statuses.get("200", 0)
def us(times, key):
    value = times.get(key)
    return "-" if value is None else f"{value * 1e6:.0f}"
late, first = report["latencyPercentiles"], report.get("firstBytePercentiles", {})
cpu = f"{int(cpu_ms) * 1000 / max(answers, 1):.1f}" if where == "gateway" else "-"
print(f"{name:<13}{where:<9}{answers / report['summary']['total']:>11.0f}"
      f"{us(late, 'p50'):>10}{us(late, 'p99'):>10}{us(first, 'p50'):>10}{us(first, 'p99'):>10}"
      f"{cpu:>12}{failures:>10}")
PYTHON
)

# run NAME CONNECTIONS BODY_BYTES STREAM WHERE URL [OPTION...]
run() {
    local name=$1 connections=$2 bytes=$3 stream=$4 where=$5 url=$6 before after
    shift 6
    body "$bytes" "$stream" >"$scratch/body.json"
    before=$(cpu_ms "$gateway")
    timeout $((seconds + 30)) "${on_load_cpu[@]}" oha --no-tui --output-format json \
        --worker-threads 1 -z "${seconds}s" -c "$connections" -m POST -T application/json \
        -D "$scratch/body.json" "$@" "$url" >"$scratch/oha.json" || fail "oha failed in $name"
    after=$(cpu_ms "$gateway")
    python3 -c "$tell" "$name" "$where" $((after - before)) <"$scratch/oha.json"
}

printf '%-13s%-9s%11s%10s%10s%10s%10s%12s%10s\n' \
    scenario to requests/s p50_us p99_us ttfb_p50 ttfb_p99 cpu_us/req failures
for to in "direct $stub_url" "gateway $gateway_url"; do
    read -r where url <<<"$to"
    run chat-64 64 300 false "$where" "$url"
    run chat-rate 64 300 false "$where" "$url" -q 2000 --latency-correction
    run prompt-100k 16 100000 false "$where" "$url"
    run streams-100 100 300 true "$where" "$url"
done
