#!/usr/bin/env bash
# Run a command with a display: the one that is there, or a virtual one.
set -euo pipefail

if [ "$(uname)" != Linux ] || [ -n "${DISPLAY:-}" ]; then
    exec "$@"
fi
exec xvfb-run -a -s "-screen 0 1600x1000x24" "$@"
