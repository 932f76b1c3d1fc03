#!/usr/bin/env bash
# Make sure that napari windows can be opened and drawn in tests, on a machine without a screen too.
# With a display nothing is done. Otherwise Debian's packages are installed if this is root, and
# named in one sentence if it is not.
set -euo pipefail

packages=(
    xvfb xauth                                                   # the display, and its keys
    libgl1 libegl1 libopengl0 libgl1-mesa-dri                    # OpenGL in software
    libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1
    libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xkb1  # what Qt's xcb plugin links to
    libdbus-1-3 libglib2.0-0 libfontconfig1 fonts-dejavu-core
)

[ "$(uname)" = Linux ] || exit 0
[ -z "${DISPLAY:-}" ] || exit 0

if ! command -v dpkg-query >/dev/null; then
    command -v xvfb-run >/dev/null && exit 0
    echo "The window tests need a display: install xvfb-run, or set DISPLAY." >&2
    exit 1
fi

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
for package in "${packages[@]}"; do
    # Debian 13 renamed some libraries to ...t64 (64-bit time).
    is_installed "$package" || is_installed "${package}t64" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "The window tests need a display and these packages:" \
        "sudo apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "Installing with apt-get: ${missing[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    >/dev/null
