#!/usr/bin/env bash
# Asks Prometheus's own tool what it thinks of the metrics of a running gateway, of the alert rules
# and of their tests. Needs promtool (Debian: package prometheus) and curl.
#
#   scripts/check-metrics.sh                        with `olla demo` of target/debug, on a free port
#   scripts/check-metrics.sh http://gateway:40114   with a gateway that runs
#   OLLA_BIN=target/release/olla scripts/check-metrics.sh
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# Names that promtool would have chosen differently. They are Olla's, and its users' dashboards know
# them; every other complaint is an error.
inherited='^olla_(endpoints_total|models_total) non-counter metrics should not have "_total" suffix$
^olla_(endpoint|model|models)_traffic_bytes counter metrics should have "_total" suffix$
^olla_endpoint_models_count non-histogram and non-summary metrics should not have "_count" suffix$
^olla_([a-z0-9]+_)*latency_ms metric names should not contain abbreviated units$'

need promtool prometheus || exit 1
need curl curl || exit 1

url=${1:-}
if [[ -z $url ]]; then
    bin=${OLLA_BIN:-${CARGO_TARGET_DIR:-target}/debug/olla}
    [[ -x $bin ]] || fail "$bin is not there: cargo build, or OLLA_BIN=..."
    for _ in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 12000))
        "$bin" demo --port "$port" >"$scratch/demo.log" 2>&1 &
        demo=$!
        started+=("$demo")
        url=http://localhost:$port
        # `--retry-connrefused`: until the socket is open; a taken port ends the demo at once.
        if curl -sf -o /dev/null --retry 20 --retry-connrefused --retry-delay 1 --max-time 60 \
            "$url/internal/ready" && kill -0 "$demo" 2>/dev/null; then
            break
        fi
        url=
    done
    [[ -n $url ]] || fail "the demo does not start: $(tail -3 "$scratch/demo.log")"
    # A model has series once it was asked for.
    curl -sf -o /dev/null --max-time 30 "$url/olla/proxy/v1/embeddings" \
        -d '{"model":"nomic-embed-text:latest","input":"hello"}' || fail "the demo does not answer"
fi

curl -sf --max-time 10 "$url/internal/metrics" >"$scratch/metrics" || fail "$url has no metrics"
series=$(grep -vc '^#' "$scratch/metrics") || fail "$url/internal/metrics has no series"

# 0 = fine, 3 = readable, with complaints about style; everything else is not readable.
code=0
promtool check metrics <"$scratch/metrics" >"$scratch/complaints" 2>&1 || code=$?
if [[ $code -ne 0 && $code -ne 3 ]]; then
    cat "$scratch/complaints" >&2
    fail "$url/internal/metrics cannot be read (promtool: exit code $code)"
fi
if grep -vE "$inherited" "$scratch/complaints" >&2; then
    fail "promtool complains about the metrics above"
fi
echo "metrics: $series series, $(wc -l <"$scratch/complaints") inherited names"

promtool check rules docs/alerts/olla.rules.yml
promtool test rules docs/alerts/olla.tests.yml
