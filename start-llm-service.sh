#!/usr/bin/env bash
# Finds Python, installs into .venv, and hands over to `manage.py`, where everything else is.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
venv="$here/.venv"
language=${LC_ALL:-${LC_MESSAGES:-${LANG:-}}}

# t ENGLISH CHINESE: the terminal's language
t() { case $language in zh*) printf '%s\n' "$2" ;; *) printf '%s\n' "$1" ;; esac }
fail() { t "$@" >&2; exit 1; }

help() {
  t "Usage: ./start-llm-service.sh [option]

Without an option: installs what is missing and runs the service until Ctrl-C.

  --background   run the service in the background; returns when it is ready
  --stop         stop the service that runs in this folder
  --status       show what runs
  --check-deps   check this machine and say what to do
  --debug        write detailed logs and show them in the terminal
  --build-llama  build llama.cpp for this processor, measure it, and use it when it is faster
                 (--openblas, --no-openblas: with or without OpenBLAS; --force: use it in any case)
  --help         this text

Later versions: --worker (join a cluster).
Settings are in .env; see .env.example." "用法：./start-llm-service.sh [选项]

不带选项：安装缺少的组件并运行服务，按 Ctrl-C 停止。

  --background   在后台运行，服务就绪后返回
  --stop         停止本目录中运行的服务
  --status       显示运行状态
  --check-deps   检查本机环境并给出处理办法
  --debug        写详细日志，并显示在终端
  --build-llama  为本机处理器编译 llama.cpp，实测比内置引擎快时才启用
                 （--openblas、--no-openblas：使用或不使用 OpenBLAS；--force：无论快慢都启用）
  --help         显示本说明

后续版本提供：--worker（加入集群）。
设置写在 .env 中，说明见 .env.example。"
}

# Prints the first Python that is new enough. It is run, not only found: a name on the path may be a shim with nothing behind it.
find_python() {
  for name in python3.13 python3.12 python3.11 python3 python3.14 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      printf '%s\n' "$name"
      return 0
    fi
  done
  return 1
}

make_venv() {
  python=$(find_python) || fail \
    "Python 3.11 or newer is needed. Debian/Ubuntu: sudo apt install python3 python3-venv; macOS: brew install python@3.13" \
    "需要 Python 3.11 或更高版本。Debian/Ubuntu：sudo apt install python3 python3-venv；macOS：brew install python@3.13"
  "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || fail \
    "This Python ($python) cannot make virtual environments. Debian/Ubuntu: sudo apt install python3-venv" \
    "此 Python（${python}）无法创建虚拟环境。Debian/Ubuntu：sudo apt install python3-venv"
  t "Making .venv ..." "正在创建 .venv …"
  "$python" -m venv --clear "$venv" || fail ".venv could not be made in $here: see above." "无法在 $here 中创建 .venv，原因见上。"
}

# The copy of requirements.txt is put into .venv last: an installation that was interrupted is done again.
installed() { [ -x "$venv/bin/python" ] && cmp -s "$here/requirements.txt" "$venv/requirements.installed"; }

install() {
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
  t "Installing packages into .venv (about 400 MB, the first time only) ..." "正在向 .venv 安装依赖（约 400 MB，仅首次）…"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r "$here/requirements.txt" || fail \
    "The installation failed: see above. Check the network (or PIP_INDEX_URL) and run this again." \
    "安装失败，原因见上。请检查网络（或设置 PIP_INDEX_URL）后重新运行。"
  cp "$here/requirements.txt" "$venv/requirements.new"
  mv "$venv/requirements.new" "$venv/requirements.installed"
}

# One installation at a time. The lock is a symbolic link that names its owner: made in one step, by one process only.
# When the owner has ended, the next one takes it over.
lock="$here/.venv.lock"
take_lock() {
  told=
  until ln -s "$$" "$lock" 2>/dev/null; do
    [ -w "$here" ] || fail "$here cannot be written. Give this user write access to it." "$here 不可写。请授予当前用户写权限。"
    owner=$(readlink "$lock" 2>/dev/null || true)
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
      rm -f "$lock"
    elif [ -z "$told" ]; then
      t "Waiting for another installation (process ${owner:-?}) ..." "正在等待另一个安装进程（${owner:-?}）…"
      told=1
    fi
    sleep 0.3
  done
  trap 'rm -f "$lock"' EXIT
  trap 'exit 130' INT TERM HUP
}

ensure_installed() {
  installed && return 0
  take_lock
  installed || install
  rm -f "$lock"
  trap - EXIT INT TERM HUP
}

run() {
  ensure_installed
  exec "$venv/bin/python" "$here/manage.py" "$@"
}

arguments=
build_arguments=
action=serve
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) help; exit 0 ;;
    --check-deps) action=checkdeps ;;
    --status) action=status ;;
    --stop) action=stop ;;
    --background | --debug) arguments="$arguments $1" ;;
    --build-llama) action=buildllama ;;
    --openblas | --no-openblas | --force) build_arguments="$build_arguments $1" ;;
    --worker)
      t "$1 comes in a later version." "$1 将在后续版本提供。" >&2
      exit 2 ;;
    *)
      t "Unknown option: $1" "未知选项：$1" >&2
      help >&2
      exit 2 ;;
  esac
  shift
done

if [ -n "$build_arguments" ] && [ "$action" != buildllama ]; then
  t "Only with --build-llama:$build_arguments" "仅可与 --build-llama 一起使用：$build_arguments" >&2
  exit 2
fi

# What is not installed does not run.
case $action in
  status | stop)
    if ! [ -x "$venv/bin/python" ]; then
      t "The service is not installed here, so it does not run." "服务尚未安装，没有运行。"
      exit 3
    fi ;;
esac

case $action in
  # shellcheck disable=SC2086  # options without spaces, split on purpose
  serve) run serve $arguments ;;
  # shellcheck disable=SC2086
  buildllama) run buildllama $build_arguments ;;
  *) run "$action" ;;
esac
