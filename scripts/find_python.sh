#!/bin/sh
# Print the command of a Python that can build the environment: 3.11 or later, and able to start.
# PYTHON=... overrides the search and is then taken or refused, never replaced by another.
set -eu

# A pyenv shim exists for every version that was ever installed and fails when that version is not the selected
# one, so a candidate has to run. The repository's own .venv is no candidate: it may be about to be rebuilt.
usable() {
    "$1" -c 'import os, sys
own = os.path.realpath(".venv")
sys.exit(sys.version_info < (3, 11) or os.path.realpath(sys.prefix) == own)' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
    if usable "$PYTHON"; then
        echo "$PYTHON"
        exit 0
    fi
    echo "PYTHON=$PYTHON does not start, is older than 3.11, or is the .venv itself: name a Python 3.11 or later." >&2
    exit 1
fi

for candidate in python3.13 python3.12 python3.11 python3 python \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3 /usr/bin/python3 /usr/local/bin/python3; do
    if usable "$candidate"; then
        echo "$candidate"
        exit 0
    fi
done
echo "No Python 3.11 or later found. Install one, or name it: make PYTHON=/path/to/python3 ..." >&2
exit 1
