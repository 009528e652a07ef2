#!/usr/bin/env bash
# wrk against the stub directly and against the gateway in front of it. `--help` tells the rest.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bench-wrk.sh [--seconds N]

Brings up the stub LLM server and the gateway (release builds, one worker pinned to one processor;
stub and wrk share another), runs wrk for N seconds (5) in each scenario, and prints requests a
second, latency, and the gateway's processor time for each request. Nothing stays running, all ports
are free ones. For the comparison with other proxies see compare.sh.

Environment: OLLA_BIN, LOADTEST_BIN   use these binaries instead of building
             IO_DRIVER                auto (default), io_uring or epoll

wrk is the Debian package of that name; it is installed when it is missing and you are root.
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
need wrk wrk || exit 1
build
start_stub_and_gateway
gateway=$(gateway_pid)

# run NAME CONNECTIONS BODY_BYTES WHERE URL
run() {
    local name=$1 connections=$2 bytes=$3 where=$4 url=$5 before after result
    body "$bytes" false >"$scratch/body.json"
    before=$(cpu_ms "$gateway")
    result=$(BENCH_BODY=$scratch/body.json timeout $((seconds + 20)) "${on_load_cpu[@]}" \
        wrk -t1 -c"$connections" -d"${seconds}s" -s "$root/scripts/bench-wrk.lua" "$url" |
        sed -n 's/^result //p')
    after=$(cpu_ms "$gateway")
    [[ -n $result ]] || fail "wrk gave no result for $name"
    awk -v name="$name" -v where="$where" -v cpu_ms=$((after - before)) '{
        cpu = where == "gateway" ? sprintf("%.1f", cpu_ms * 1000 / ($1 ? $1 : 1)) : "-"
        printf "%-22s %-8s %12.0f %10d %10d %10d %12s %9d\n",
            name, where, $1 * 1e6 / $3, $4, $5, $6, cpu, $2
    }' <<<"$result"
}

printf '%-22s %-8s %12s %10s %10s %10s %12s %9s\n' \
    scenario to requests/s p50_us p90_us p99_us cpu_us/req failures
for scenario in "chat-1 1 300" "chat-64 64 300" "chat-256 256 300" "prompt-100k 16 100000" \
    "prompt-1m 8 1000000"; do
    read -r name connections bytes <<<"$scenario"
    run "$name" "$connections" "$bytes" direct "$stub_url"
    run "$name" "$connections" "$bytes" gateway "$gateway_url"
done
