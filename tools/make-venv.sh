#!/usr/bin/env bash
# Make a virtual environment with a Python that this project supports.
# usage: tools/make-venv.sh FOLDER   (PYTHON=... chooses an interpreter)
set -euo pipefail

folder=${1:?usage: tools/make-venv.sh FOLDER}
wanted='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
    echo "Installing with apt-get: $*"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null && "$candidate" -c "$wanted" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

if ! python=$(find_python); then
    if can_apt && ! command -v python3 >/dev/null; then
        apt_install python3 python3-venv
    fi
    if ! python=$(find_python); then
        echo "Python 3.11, 3.12 or 3.13 is needed and none of ${PYTHON:-python3, python3.13," \
            "python3.12, python3.11} is one: install it, or name it: make PYTHON=/path/to/python" >&2
        exit 1
    fi
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian keeps the venv module in a package of its own.
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if can_apt; then
        apt_install "$package"
    else
        echo "$python cannot make virtual environments: sudo apt-get install $package" >&2
        exit 1
    fi
fi

echo "Making $folder with $("$python" --version) ($python)"
trap 'rm -rf "$folder"' ERR INT TERM  # half an environment would pass for a whole one
"$python" -m venv "$folder"
