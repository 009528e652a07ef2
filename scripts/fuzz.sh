#!/bin/sh
# Fuzzes every target for a while: scripts/fuzz.sh [seconds each, 600 unless told] [target...]
# Needs a nightly toolchain (rustup toolchain install nightly) and installs cargo-fuzz if it is
# not there. What is found is under fuzz/artifacts or engine/fuzz/artifacts.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-600}
case $seconds in
  '' | *[!0-9]*)
    echo "fuzz: '$seconds' is no number of seconds: scripts/fuzz.sh [seconds each] [target...]" >&2
    exit 2
    ;;
esac
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- head chunk inspect translate

command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
for target in "$@"; do
  case $target in
    head | chunk) dir=engine/fuzz ;;
    inspect | translate) dir=fuzz ;;
    *)
      echo "fuzz: no target '$target'; there are head, chunk, inspect and translate" >&2
      exit 2
      ;;
  esac
  cargo +nightly fuzz run --fuzz-dir "$dir" "$target" -- \
    -max_total_time="$seconds" -max_len=16384 -print_final_stats=1
done
