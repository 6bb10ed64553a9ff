#!/usr/bin/env bash
# Every check and test. ./run-tests.sh [--no-skips] [arguments for pytest]
# --no-skips: a skipped test is a failure (for CI).
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
cd "$here"
venv="$here/.venv-test"

no_skips=
if [ "${1:-}" = --no-skips ]; then
  no_skips=--no-skips
  shift
fi

find_python() {
  for name in python3.13 python3.12 python3.11 python3 python3.14 python; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      printf '%s\n' "$name"
      return 0
    fi
  done
  echo "Python 3.11 or newer with venv is needed (Debian/Ubuntu: sudo apt install python3 python3-venv)" >&2
  return 1
}

if ! cmp -s requirements-dev.txt "$venv/requirements.installed"; then
  python=$(find_python)
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-input --require-hashes -r requirements-dev.txt
  cp requirements-dev.txt "$venv/requirements.installed"
fi
PATH="$venv/bin:$PATH"
export PATH

# The tests start several hundred processes: each would compile everything anew.
unset PYTHONDONTWRITEBYTECODE

# Nothing of a developer's own service: its .env, database and logs are left alone.
export LLM_HOME="$here/tests/output/home"
mkdir -p "$LLM_HOME"

step() {
  printf '\n== %s\n' "$*"
  "$@"
}

step ruff format --check .
step ruff check .
step mypy .
step bandit -q -c pyproject.toml -r accounts chat cluster gateway llmplatform models_app tools
step python tools/audit_dependencies.py
step lint-imports
step python manage.py makemigrations --check --dry-run
if [ -d locale ]; then
  step python tools/compile_messages.py --check
fi
# All of them in half as many processes again as there are cores, for they often wait, each file in one of them; what somebody
# picks, in one.
together=
[ $# -gt 0 ] || together="-n $(python -c 'import os; cores = os.cpu_count() or 1; print(cores + cores // 2)') --dist loadfile --no-loadscope-reorder --max-worker-restart=0 --durations=40 --durations-min=5"
# shellcheck disable=SC2086  # lists of words
step python -m pytest $no_skips $together "$@"
