#!/bin/sh
# Make a virtual environment with a Python of at least 3.11 and install this project into it.
# Usage: scripts/venv.sh FOLDER EXTRAS   (EXTRAS: a comma-separated list, may be empty)
set -eu
folder=$1
extras=$2

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ ! -x "$folder/bin/python" ]; then
    python=
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 && new_enough "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        found=$(python3 --version 2>/dev/null || echo "no python3")
        echo "JobMaster needs Python 3.11 or newer; found: $found." >&2
        echo "Install one (Debian, Ubuntu: apt-get install python3.11 python3.11-venv; macOS: brew install python@3.12)" >&2
        echo "or name it: make PYTHON=/path/to/python3.11 ..." >&2
        exit 1
    fi
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "$python ($version) has no venv module, which this Makefile needs." >&2
        echo "Install it (Debian, Ubuntu: apt-get install python$version-venv or python3-venv) and run make again." >&2
        exit 1
    fi
    "$python" -m venv "$folder"
fi
if [ -n "$extras" ]; then target=".[$extras]"; else target="."; fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$target"
