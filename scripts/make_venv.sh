#!/usr/bin/env bash
# make_venv.sh FOLDER: a virtual environment with a Python that we support and a pip that knows dependency groups.
set -euo pipefail

supported='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))'

for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13 python3.14; do
  # Running it is the test: version managers leave names on PATH that start nothing.
  if "$candidate" -c "$supported" >/dev/null 2>&1; then
    echo "Making $1 with $("$candidate" --version) …"
    "$candidate" -m venv "$1"
    # Before 25.1 pip did not install dependency groups.
    exec "$1/bin/python" -m pip --disable-pip-version-check --no-input --quiet install --upgrade 'pip>=25.1'
  fi
done

cat >&2 <<'MESSAGE'
No Python from 3.11 to 3.14 with the venv module was found. Install one and run make again:
  Debian, Ubuntu   sudo apt install python3 python3-venv
  Fedora           sudo dnf install python3.12
  macOS            brew install python@3.12
  elsewhere        https://www.python.org/downloads/
or name one: make demo PYTHON=/path/to/python3.12
MESSAGE
exit 1
