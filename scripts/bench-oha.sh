#!/bin/sh
# Another name of `scripts/run bench-oha`; --help explains it.
exec "$(dirname "$0")/run" bench-oha "$@"
