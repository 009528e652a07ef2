#!/usr/bin/env bash
# Takes the pictures of the dashboard in docs/dashboard anew; about three minutes.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
need pngquant pngquant

pictures=$root/docs/dashboard
node "$ui/shots.mjs" "$pictures"
# Flat colours: a palette is a third of the size, and looks the same.
pngquant --force --ext .png --skip-if-larger --strip "$pictures"/*.png
