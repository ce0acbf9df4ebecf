#!/bin/sh
# Make the virtual environment $2 with the interpreter $1; on Debian the module for that is a package of its own.
set -eu
if ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "python3-venv is missing: installing it"
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y python3-venv >/dev/null
    else
        echo "python3-venv is missing: as root, apt-get install python3-venv" >&2
        exit 1
    fi
fi
"$1" -m venv "$2"
