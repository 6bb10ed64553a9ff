"""Is this machine fit to run the service? One verdict a line, and what to do where it is not."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil

from llmplatform import settings
from llmplatform.lib.early_messages import translate as _
from llmplatform.service import run_folder
from llmplatform.service.terminal import say

Level = Literal["ok", "note", "problem"]
GB = 10**9
MARKS = {"ok": "✓", "note": "!", "problem": "✗"}


@dataclass(frozen=True)
class Verdict:
    level: Level
    text: str
    remedy: str = ""


def all_checks() -> list[Verdict]:
    checks: list[Callable[[], Verdict]] = [python, processor, cores, memory, disk, engine, server_port, llama_port]
    return [check() for check in checks] + certificates() + folders()


def show(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        pair = {"finding": verdict.text, "remedy": verdict.remedy}
        say(f"{MARKS[verdict.level]} " + (_("%(finding)s: %(remedy)s") % pair if verdict.remedy else verdict.text))


def python() -> Verdict:
    version = platform.python_version()
    if sys.version_info < (3, 11):  # noqa: UP036 - somebody may run manage.py with an older one
        return Verdict("problem", f"Python {version}", _("install Python 3.11 or newer"))
    return Verdict("ok", f"Python {version}")


def processor() -> Verdict:
    machine = platform.machine().lower()
    if machine in {"arm64", "aarch64"}:
        return Verdict("ok", _("processor %(name)s with NEON") % {"name": machine})
    flags = processor_flags()
    if not flags:
        return Verdict("note", _("processor %(name)s: its instruction sets could not be read") % {"name": machine})
    if "avx2" not in flags:
        return Verdict(
            "problem",
            _("processor without AVX2"),
            _("the built-in engine needs AVX2; build llama-server for this processor and set LLAMA_CPP_PATH"),
        )
    found = ", ".join(flag.upper() for flag in ("avx2", "fma", "f16c", "avx512f", "amx_int8") if flag in flags)
    return Verdict("ok", _("processor with %(flags)s") % {"flags": found})


def processor_flags() -> set[str]:
    """The processor's instruction sets in lower case; empty where this system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return set(line.partition(":")[2].split())
    except OSError:
        pass
    if sys.platform == "darwin":
        names = ["sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features"]
        answer = subprocess.run(names, capture_output=True, text=True, check=False, timeout=5)
        return set(answer.stdout.lower().split())
    if sys.platform == "win32":
        import ctypes  # the module has no windll elsewhere

        has_avx2 = bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(40))
        return {"avx2"} if has_avx2 else {"sse2"}
    return set()


def cores() -> Verdict:
    count = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    text = _("%(count)d processor cores") % {"count": count}
    if count < 8:
        return Verdict("note", text, _("enough for small models; 8 or more are recommended"))
    return Verdict("ok", text)


def memory() -> Verdict:
    figures = psutil.virtual_memory()
    text = _("memory %(total).0f GB, %(free).1f GB free") % {
        "total": figures.total / GB,
        "free": figures.available / GB,
    }
    if figures.available < 1 * GB:
        return Verdict("problem", text, _("at least 1 GB must be free: end other programs or add memory"))
    if figures.total < 15 * GB:
        return Verdict("note", text, _("enough for small models; 16 GB or more are recommended"))
    return Verdict("ok", text)


def disk() -> Verdict:
    folder = _nearest_existing(settings.MODELS_PATH)
    free = shutil.disk_usage(folder).free
    text = _("%(free).0f GB free on the disk of %(path)s") % {"free": free / GB, "path": settings.MODELS_PATH}
    if free < 0.5 * GB:
        return Verdict("problem", text, _("free at least 0.5 GB, or set MODELS_PATH to another disk"))
    if free < 50 * GB:
        return Verdict("note", text, _("50 GB are recommended for several models"))
    return Verdict("ok", text)


def engine() -> Verdict:
    if settings.LLAMA_CPP_PATH:
        path = settings.HOME_DIR / Path(settings.LLAMA_CPP_PATH).expanduser()
        if os.access(path, os.X_OK) and path.is_file():
            return Verdict("ok", _("engine %(path)s") % {"path": path})
        return Verdict(
            "problem",
            _("LLAMA_CPP_PATH=%(path)s is no program") % {"path": settings.LLAMA_CPP_PATH},
            _("remove the line to use the built-in engine"),
        )
    if find_spec("xllamacpp") is None:
        return Verdict("problem", _("the built-in engine is not installed"), _("run ./start-llm-service.sh"))
    return Verdict("ok", _("built-in llama.cpp engine"))


def server_port() -> Verdict:
    port = settings.SERVER_PORT
    running = run_folder.read(settings.HOME_DIR)
    if running is not None:
        return Verdict("ok", _("port %(port)d: this service, process %(pid)d") % {"port": port, "pid": running.pid})
    error = _listen_error(settings.SERVER_HOST.strip("[]"), port)
    if error is None:
        return Verdict("ok", _("port %(port)d is free") % {"port": port})
    if isinstance(error, PermissionError):
        text = _("port %(port)d: this user may not listen there") % {"port": port}
        return Verdict("problem", text, _("set SERVER_PORT in .env to 1024 or more"))
    if error.errno != errno.EADDRINUSE:
        text = _("SERVER_HOST=%(host)s is no address of this machine (%(reason)s)") % {
            "host": settings.SERVER_HOST,
            "reason": error.strerror or error,
        }
        return Verdict("problem", text, _("set it to 0.0.0.0 for every network, or 127.0.0.1 for this machine only"))
    return Verdict("problem", _used(port), _("end it, or set SERVER_PORT in .env to another port"))


def llama_port() -> Verdict:
    port = settings.LLAMA_CPP_PORT
    if port == settings.SERVER_PORT:
        return Verdict(
            "problem",
            _("LLAMA_CPP_PORT and SERVER_PORT are both %(port)d") % {"port": port},
            _("set one of them in .env to another port"),
        )
    if _free("127.0.0.1", port) or run_folder.read(settings.HOME_DIR) is not None:
        return Verdict("ok", _("port %(port)d and up for the models") % {"port": port})
    return Verdict("note", _used(port), _("the models take the next free ports"))


def _used(port: int) -> str:
    holder = port_holder(port)
    text = _("port %(port)d is in use") % {"port": port}
    return f"{text} ({holder})" if holder else text


def _free(host: str, port: int) -> bool:
    return _listen_error(host, port) is None


def _listen_error(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name == "posix":  # as the web server does: connections that just ended are no hindrance
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:  # socket.gaierror is one
        return error
    return None


def port_holder(port: int) -> str:
    """``nginx, process 812``, or empty where the system does not tell."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                name = psutil.Process(connection.pid).name()
                return _("%(name)s, process %(pid)d") % {"name": name, "pid": connection.pid}
    except psutil.Error:
        pass
    return ""


def certificates() -> list[Verdict]:
    """Only where TLS_CERT is set."""
    if not settings.TLS_CERT:
        return []
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.TLS_CERT, settings.TLS_KEY or None)
    except OSError as error:  # ssl.SSLError is one
        text = _("TLS_CERT=%(path)s cannot be used (%(reason)s)") % {
            "path": settings.TLS_CERT,
            "reason": error.strerror or error,
        }
        remedy = _("name a certificate in PEM form, and its key in TLS_KEY; or remove both lines")
        return [Verdict("problem", text, remedy)]
    return [Verdict("ok", _("certificate %(path)s") % {"path": settings.TLS_CERT})]


def folders() -> list[Verdict]:
    wanted = {"": settings.HOME_DIR, "MODELS_PATH": settings.MODELS_PATH, "LOG_DIR": settings.LOG_DIR}
    return [_folder(name, path) for name, path in wanted.items()]


def _folder(name: str, path: Path) -> Verdict:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return Verdict("ok", _("%(path)s can be written") % {"path": path})
    except OSError as error:
        remedy = _("give this user write access to it")
        if name:
            remedy = _("give this user write access to it, or set %(name)s to another folder") % {"name": name}
        text = _("%(path)s cannot be written (%(reason)s)") % {"path": path, "reason": error.strerror or error}
        return Verdict("problem", text, remedy)


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
