"""The whole of ``./start-llm-service.sh --build-llama``: fetch, compile, try, measure, and only then use."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import filelock
from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from llmplatform.service import env_file, preflight
from llmplatform.service.llama_build import compiling, source, tools, trying
from llmplatform.service.llama_build.problems import BuildFailed
from llmplatform.service.llama_build.source import Source
from llmplatform.service.llama_build.trying import Comparison
from llmplatform.service.terminal import Progress, complain, say

NAME = "LLAMA_CPP_PATH"
INTERRUPTED = 130
TAIL_LINES = 15


@dataclass(frozen=True)
class Options:
    """``openblas``: auto uses it where it is found. ``force``: use the result though it is slower."""

    openblas: Literal["auto", "on", "off"] = "auto"
    force: bool = False
    rounds: int = trying.ROUNDS


def build(options: Options, wanted: Source = source.LLAMA_CPP) -> int:
    """The exit code. Everything is said on the terminal."""
    try:
        with _interruptible(), _lock():
            _build(options, wanted)
    except KeyboardInterrupt:
        say()
        say(_("Interrupted. Run this again, and it goes on where it stopped."))
        return INTERRUPTED
    except BuildFailed as error:
        if error.log:
            complain("\n".join(error.log.splitlines()[-TAIL_LINES:]))
        complain(_("No llama-server was built: %(why)s") % {"why": error})
        return 1
    except OSError as error:
        complain(_("No llama-server was built: %(why)s") % {"why": error})
        return 1
    return 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM like Ctrl-C: what was started is ended, what is done is kept."""

    def interrupt(*_ignored: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _lock() -> Iterator[None]:
    settings.RUN_DIR.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(settings.RUN_DIR / "build-llama.lock", timeout=0):
            yield
    except filelock.Timeout as error:
        raise BuildFailed(_("another build runs in this folder.")) from error


def _build(options: Options, wanted: Source) -> None:
    folder: Path = settings.HOME_DIR / "llama-cpp"
    work = folder / f"build-{wanted.version}"
    _check_disk(work, wanted)
    found = tools.find(work / "tools", say)
    openblas = _choose_openblas(options, found.compiler)
    place = folder / f"{wanted.version}-{processor_mark(openblas)}" / "bin" / compiling.TARGET
    log: Path = settings.LOG_DIR / "build-llama.log"
    if place.exists():
        say(_("%(path)s was built before; it is tried again.") % {"path": place})
    else:
        say(
            _("Building llama.cpp %(version)s for this processor. This takes 5 to 30 minutes; log: %(log)s")
            % {"version": wanted.version, "log": log}
        )
        _compile(wanted, found, work, place, openblas, log)
    comparison = _try(place, options.rounds)
    _tell(comparison)
    use(place, comparison, options, openblas)
    shutil.rmtree(work, ignore_errors=True)


def _check_disk(work: Path, wanted: Source) -> None:
    work.mkdir(parents=True, exist_ok=True)
    free, there = shutil.disk_usage(work).free, sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    if free + there < wanted.disk:
        raise BuildFailed(
            _("%(needed).1f GB of disk space are needed in %(folder)s, %(free).1f GB are free.")
            % {"needed": wanted.disk / 1e9, "folder": work, "free": free / 1e9}
        )


def _choose_openblas(options: Options, compiler: str) -> bool:
    if options.openblas == "off":
        return False
    found = tools.has_openblas(compiler)
    if options.openblas == "on" and not found:
        raise BuildFailed(_("OpenBLAS was not found. Debian/Ubuntu: sudo apt install libopenblas-dev"))
    say(_("OpenBLAS was found and is used.") if found else _("OpenBLAS was not found; it is built without."))
    return found


def processor_mark(openblas: bool) -> str:
    """Another processor needs another build: part of the folder's name, so that a moved folder is noticed."""
    words = [platform.machine().lower(), *sorted(preflight.processor_flags())]
    mark = f"{words[0]}-{hashlib.sha256(' '.join(words).encode()).hexdigest()[:8]}"
    return f"{mark}-openblas" if openblas else mark


def _compile(wanted: Source, found: tools.Tools, work: Path, place: Path, openblas: bool, log: Path) -> None:
    text = source.ensure(wanted, work, _bar(_("Source"), ""))
    build = work / ("build-openblas" if openblas else "build")
    made = compiling.compile_server(found, text, build, openblas, log, _bar(_("Compiling"), "%d / %d"))
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.part")
    shutil.copy2(made, part)
    os.replace(part, place)


def _bar(label: str, detail: str) -> Callable[[int, int], None]:
    progress = Progress()
    return lambda done, total: progress.update(label, done, total, detail % (done, total) if detail else "")


def _try(place: Path, rounds: int) -> Comparison:
    file = trying.model_file()
    log = settings.LOG_DIR / "engines" / "build-llama.log"
    return asyncio.run(trying.compare(place, file, log, _bar(_("Measuring"), "%d / %d"), rounds))


def _tell(comparison: Comparison) -> None:
    rows = [(_("built now"), comparison.built)]
    if comparison.embedded is not None:
        rows.insert(0, (_("built-in engine"), comparison.embedded))
    say(_("It answers as it should. Tokens per second with %(model)s:") % {"model": comparison.model})
    for name, speeds in rows:
        say(
            "  "
            + _("%(name)s: %(prompt).0f reading, %(answer).0f writing")
            % {"name": name, "prompt": speeds.prompt, "answer": speeds.answer}
        )
    if comparison.ratio is not None:
        say(_("Ratio (what was built / built-in engine): %(ratio).2f") % {"ratio": comparison.ratio})


def use(place: Path, comparison: Comparison, options: Options, openblas: bool) -> None:
    """Sets LLAMA_CPP_PATH, unless what was built is slower. Raises OSError."""
    value = place.relative_to(settings.HOME_DIR).as_posix()
    if comparison.ratio is not None and comparison.ratio < 1 and not options.force:
        say(
            _("It is slower than the built-in engine, so %(name)s stays as it is. Use it all the same with --force.")
            % {"name": NAME}
        )
        if openblas:
            say(_("Without OpenBLAS (--no-openblas) it may be faster."))
        return
    old = settings.LLAMA_CPP_PATH
    env_file.set_value(settings.ENV_FILE, NAME, value, timezone.localdate())
    say(
        _("%(name)s=%(value)s is set in .env. A running service takes it up within seconds.")
        % {"name": NAME, "value": value}
    )
    if old and old != value:
        say(_("Before it was %(old)s.") % {"old": old})
    if os.environ.get(NAME):
        say(_("The environment variable %(name)s is set too, and stands above .env: remove it.") % {"name": NAME})
