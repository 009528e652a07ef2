#!/bin/sh
# Another name of `scripts/run compare`; --help explains it.
exec "$(dirname "$0")/run" compare "$@"
