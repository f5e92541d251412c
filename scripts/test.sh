#!/bin/sh
# Checks the project: lint, format, types, tests. The first failure ends it.
#
#     sh scripts/test.sh           without the tests marked slow
#     sh scripts/test.sh --slow    all of them
#
# Other arguments go to pytest. PYTHON names the Python to make .venv with.
set -eu

cd "$(dirname "$0")/.."
marks="not slow"
extra=dev
if [ "${1:-}" = --slow ]; then
    marks=""
    extra=dev-slow
    shift
fi

sh scripts/venv.sh "$extra"
python=.venv/bin/python
$python -m ruff check .
$python -m ruff format --check .
$python -m mypy
# A process per core, a whole file to one of them: its runs are shared by the tests in it. Files
# come in the order of conftest.py, long ones first.
$python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -m "$marks" "$@"
