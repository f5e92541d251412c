#!/bin/sh
# Makes the virtual environment .venv with kerasft in it, at the versions of constraints.txt.
#
#     sh scripts/venv.sh            what kerasft needs
#     sh scripts/venv.sh dev        and what its fast tests need
#     sh scripts/venv.sh dev-slow   and what the slow ones need
#
# An environment that is up to date is used again. PYTHON names the Python to take.
set -eu

extra=${1:-}
cd "$(dirname "$0")/.."

find_python() {
    for python in ${PYTHON:-} python3.12 python3.13 python3.11 python3 python; do
        if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    echo "Error: no Python 3.11, 3.12 or 3.13 found. Install one, or name it: PYTHON=... sh $0" >&2
    return 1
}

# The stamp holds what the environment was made from. One with more serves those who need less.
stamp=.venv/kerasft-installed
sources=$(cat pyproject.toml scripts/constraints.txt | cksum)
if [ -f "$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
    case $(cat "$stamp") in
    "$sources in $PWD ${extra:-}" | "$sources in $PWD dev-slow") exit 0 ;;
    "$sources in $PWD dev") [ "$extra" = dev-slow ] || exit 0 ;;
    esac
fi

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    rm -rf .venv
    if ! "$python" -m venv .venv >/dev/null 2>&1 &&
        ! "$python" -m virtualenv -q .venv >/dev/null 2>&1; then
        rm -rf .venv
        echo "Error: $python has no working 'venv' module. On Debian and Ubuntu it is a package" \
            "of its own: apt-get install $(basename "$python")-venv" >&2
        exit 1
    fi
fi

echo "Installing kerasft and what it needs into .venv (some minutes the first time) ..." >&2
rm -f "$stamp"
# Of 14,500 files the tests import some thousand, and Python compiles these when it does: compiling
# all of them takes a minute of the installation.
case $extra in dev*) compile=--no-compile ;; *) compile=--compile ;; esac
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$compile" \
    --constraint scripts/constraints.txt --editable ".${extra:+[$extra]}" >&2
echo "$sources in $PWD ${extra:-}" >"$stamp"
