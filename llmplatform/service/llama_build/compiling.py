"""Configure and compile, at low priority, with a log that is kept. A build that was interrupted goes on where it stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
from django.utils.translation import gettext as _

from llmplatform.service.llama_build.problems import BuildFailed
from llmplatform.service.llama_build.tools import Tools
from models_app import machine, topology

TARGET = "llama-server"
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",  # one file that can be moved
    "GGML_NATIVE": "ON",  # for this very processor
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    # No page of its own, no downloads, no programs that a model may run.
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_SUBPROCESS": "OFF",
}
JOB_BYTES = 10**9  # what compiling one of the larger files takes
NICE, BELOW_NORMAL = 10, 0x4000  # POSIX, Windows
STEP = re.compile(rb"^\[(\d+)/(\d+)\]")
TAIL = 4000  # characters of the log that are shown
END_SECONDS = 5


def compile_server(
    tools: Tools, source: Path, build: Path, openblas: bool, log: Path, progress: Callable[[int, int], None]
) -> Path:
    """The program. Raises BuildFailed."""
    choices = {
        **OPTIONS,
        "GGML_BLAS": "ON" if openblas else "OFF",
        **({"GGML_BLAS_VENDOR": "OpenBLAS"} if openblas else {}),
    }
    configure = [tools.cmake, "-S", str(source), "-B", str(build), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools.ninja}"]
    configure += [f"-DCMAKE_CXX_COMPILER={tools.compiler}", *(f"-D{name}={value}" for name, value in choices.items())]
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    _run(configure, log, lambda _line: None, _("CMake could not prepare the build."))

    def told(line: bytes) -> None:
        if step := STEP.match(line):
            progress(int(step[1]), int(step[2]))

    make = [tools.cmake, "--build", str(build), "--target", TARGET, "--parallel", str(jobs())]
    _run(make, log, told, _("The compiler reported an error."))
    program = next((path for path in (build / "bin" / TARGET, build / TARGET) if path.is_file()), None)
    if program is None:
        raise BuildFailed(_("the build ended without llama-server."))
    return program


def jobs() -> int:
    """Files compiled at once: one for each core, as far as memory goes."""
    return max(1, min(topology.physical_cores(), machine.available_memory() // JOB_BYTES))


def _run(argv: Sequence[str], log: Path, told: Callable[[bytes], None], failure: str) -> None:
    with log.open("ab") as stream, _child(argv) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        for line in process.stdout:
            stream.write(line)
            told(line)
        code = process.wait()
    if code != 0:
        text = log.read_text(encoding="utf-8", errors="replace")
        if "No space left on device" in text:
            failure = _("the disk is full.")
        elif code == -signal.SIGKILL or "Killed signal terminated program" in text:
            failure = _("a compiler was killed, most likely because memory ran out. Stop models and run this again.")
        raise BuildFailed(failure, text[-TAIL:])


@contextlib.contextmanager
def _child(argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """In a group of its own, so that nothing of it is left when we are interrupted."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    with contextlib.suppress(psutil.Error):
        psutil.Process(process.pid).nice(NICE if os.name == "posix" else BELOW_NORMAL)
    try:
        yield process
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    family = psutil.Process(process.pid).children(recursive=True)
    killer = threading.Timer(END_SECONDS, process.kill)
    killer.start()
    process.terminate()  # ninja ends its compilers and removes what they had half written
    process.wait()
    killer.cancel()
    for left in family:
        with contextlib.suppress(psutil.Error):
            left.kill()
