#!/usr/bin/env bash
# Drives the gateway with the official client libraries: see try_clients.py.
# Needs Python 3.10 or newer with pip and venv, Node 18 or newer with npm, and about 2 GB of disk.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
cache=${OLLA_CLIENTS_DIR:-$root/target/clients}

# The direct needs, pinned.
clients=(
    anthropic==2.13.0
    ollama==0.6.3
    openai==3.54.0
)
litellm='litellm[proxy]==1.108.7'
sdk=@anthropic-ai/sdk@1.13.0

usage() {
    cat <<'TEXT'
usage: try-clients.sh [--bin PATH]

Starts real servers (llama.cpp's with a small model, LiteLLM's proxy in front of it), simulated
ones (Ollama, LM Studio) and two gateways in front of them, all on loopback, and checks what the
Python packages openai, anthropic and ollama and the JavaScript package @anthropic-ai/sdk see.
Exit status 1 if a check fails. Installs what it needs below target/ (or $OLLA_CLIENTS_DIR and
$OLLA_REAL_LLM_DIR) at the first run.

--bin PATH   the gateway to try; without it, the release build of this tree, made if need be
TEXT
}

fail() {
    echo "try-clients.sh: $*" >&2
    exit 1
}

# install_venv NAME PACKAGE...: a virtual environment of its own, since LiteLLM wants other versions.
install_venv() {
    local name=$1
    shift
    local done=$cache/$name.installed
    if [[ -f $done && $(<"$done") == "$*" ]]; then
        return
    fi
    echo "try-clients.sh: installing $*" >&2
    rm -rf "${cache:?}/$name" "$done"
    python3 -m venv "$cache/$name" || fail "no virtual environment (Debian: python3-venv)"
    "$cache/$name/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
        fail "pip cannot install $*"
    echo "$*" >"$done"
}

install_node_packages() {
    local done=$cache/node.installed
    if [[ -f $done && $(<"$done") == "$sdk" ]]; then
        return
    fi
    echo "try-clients.sh: installing $sdk" >&2
    rm -rf "$cache/node" "$done"
    mkdir -p "$cache/node"
    echo '{"private": true}' >"$cache/node/package.json"
    npm install --prefix "$cache/node" --silent --no-audit --no-fund --save-exact "$sdk" ||
        fail "npm cannot install $sdk"
    echo "$sdk" >"$done"
}

bin=
while (($#)); do
    case $1 in
    --bin)
        if (($# < 2)); then
            usage >&2
            exit 2
        fi
        bin=$2
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

for command in python3 node npm; do
    command -v "$command" >/dev/null || fail "$command is missing"
done
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "Python 3.10 is needed"
"$here/real-llm.sh" setup
mkdir -p "$cache"
# Two set-ups at once would write into each other's files.
exec 9>"$cache/lock"
flock 9
install_venv python "${clients[@]}"
install_venv litellm "$litellm"
install_node_packages
exec 9>&-

if [[ -z $bin ]]; then
    cargo build --release --manifest-path "$root/Cargo.toml" --bin olla
    bin=${CARGO_TARGET_DIR:-$root/target}/release/olla
fi
bin=$(realpath "$bin")

# The addresses are on loopback: a proxy of the environment must not see them.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
OLLA_SERVER_VERSIONS="$litellm $("$here/real-llm.sh" versions)"
export OLLA_SERVER_VERSIONS
# What a program imports from beside it must leave no compiled files in the source tree.
export PYTHONDONTWRITEBYTECODE=1
exec "$cache/python/bin/python" "$here/try_clients.py" --bin "$bin" \
    --backends "$here/real-llm.sh" --litellm "$cache/litellm/bin/litellm" \
    --node-packages "$cache/node"
