#!/usr/bin/env bash
# Builds the release binaries and hands over to catalogue.py, whose --help explains the run.
# `--no-build` as the first argument takes the binaries as they are.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
run_on_stand catalogue.py "$@"
