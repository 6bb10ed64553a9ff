#!/usr/bin/env bash
# ./test-llama-server.sh [MODEL]: asks the running service for a short answer and says how fast it came.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
if [ ! -x "$here/.venv/bin/python" ]; then
  case ${LC_ALL:-${LC_MESSAGES:-${LANG:-}}} in
    zh*) echo "服务尚未安装：请先运行 ./start-llm-service.sh" >&2 ;;
    *) echo "Not installed yet: run ./start-llm-service.sh first" >&2 ;;
  esac
  exit 1
fi
exec "$here/.venv/bin/python" "$here/manage.py" testmodel "$@"
