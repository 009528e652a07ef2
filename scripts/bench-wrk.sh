#!/bin/sh
# Another name of `scripts/run bench-wrk`; --help explains it.
exec "$(dirname "$0")/run" bench-wrk "$@"
