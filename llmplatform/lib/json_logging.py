"""The service's own log: one JSON object a line in ``logs/llm-app.log``, rotated, without secrets and without prompts.

Several processes (web server, supervisor, parent) write the same file. Each line is one ``write`` on a file opened for appending,
so lines never mix and nobody waits for anybody: a library that takes a lock for every line (concurrent-log-handler) costs half as
much again, and a process that is stopped while it has that lock would stop the web server too. Only whoever renames a full
file takes a lock, and only if it is free.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

MAX_BYTES = 20 * 1024 * 1024
KEPT_FILES = 5
SECRET = re.compile(
    r"(?i)(bearer\s+|(?:api[-_]?key|password|secret|token)[\"']?\s*[=:]\s*[\"']?)([^\s\"',;&]{6,})"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+|\bsk-[\w-]{8,}"
)
SECRET_FIELDS = frozenset({"password", "token", "secret", "api_key", "authorization", "cookie"})
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "console"}


def redact(text: str) -> str:
    return SECRET.sub(lambda match: f"{match.group(1) or ''}[redacted]", text)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "source": os.environ.get("LLM_PROCESS", "command"),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        extra = {key: value for key, value in vars(record).items() if key not in STANDARD}
        for key, value in extra.items():
            line[key] = "[redacted]" if key in SECRET_FIELDS else redact(value) if isinstance(value, str) else value
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


class PlainFormatter(logging.Formatter):
    """For the terminal, which may be a file as well (``logs/serve.log``): no secret there either."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class NotShownAlready(logging.Filter):
    """``extra={"console": False}``: the terminal has been told in better words."""

    def filter(self, record: logging.LogRecord) -> bool:
        return bool(getattr(record, "console", True))


class SharedRotatingFileHandler(logging.handlers.WatchedFileHandler):
    """A watched file that whoever finds it too large renames; the others see the new file and reopen.

    On Windows a file that another process has open cannot be renamed; it is rotated at the next start.
    """

    def __init__(self, filename: str, max_bytes: int = MAX_BYTES, kept_files: int = KEPT_FILES, **options: Any) -> None:
        super().__init__(filename, **options)
        self.max_bytes = max_bytes
        self.kept_files = kept_files
        self._rotation = FileLock(str(Path(filename).with_name(f".{Path(filename).name}.lock")), timeout=0)

    def emit(self, record: logging.LogRecord) -> None:
        # An OSError here is a full disk or a folder that cannot be written: the service goes on without this line.
        with contextlib.suppress(OSError, Timeout):
            if self._is_full():
                self._rotate()
        with contextlib.suppress(OSError):
            super().emit(record)

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def _is_full(self) -> bool:
        return os.stat(self.baseFilename).st_size >= self.max_bytes

    def _rotate(self) -> None:
        with self._rotation:
            if not self._is_full():  # another process was quicker
                return
            for number in range(self.kept_files - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self.baseFilename}.{number}", f"{self.baseFilename}.{number + 1}")
            os.replace(self.baseFilename, f"{self.baseFilename}.1")


def configuration(path: Path, level: str) -> dict[str, Any]:
    """Django's LOGGING. Warnings and worse, or what ``LLM_CONSOLE_LEVEL`` says, also go to the terminal."""
    handlers: dict[str, Any] = {
        "file": {
            "()": "llmplatform.lib.json_logging.SharedRotatingFileHandler",
            "filename": str(path),
            "encoding": "utf-8",
            "errors": "backslashreplace",
            "delay": True,
            "formatter": "json",
        },
        "console": {
            "class": "logging.StreamHandler",
            "level": os.environ.get("LLM_CONSOLE_LEVEL", "WARNING"),
            "formatter": "plain",
            "filters": ["not_shown_already"],
        },
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {"()": "llmplatform.lib.json_logging.JsonFormatter"},
            "plain": {
                "()": "llmplatform.lib.json_logging.PlainFormatter",
                "fmt": "%(levelname)s %(name)s: %(message)s",
            },
        },
        "filters": {"not_shown_already": {"()": "llmplatform.lib.json_logging.NotShownAlready"}},
        "handlers": handlers,
        "root": {"handlers": ["file", "console"], "level": level},
        "loggers": {
            "daphne": {"level": "WARNING"},
            "twisted": {"level": "WARNING"},
            "httpx": {"level": "WARNING"},
            "httpcore": {"level": "WARNING"},
            "django.request": {"level": "ERROR"},
            "asyncio": {"level": "WARNING"},
            "filelock": {"level": "WARNING"},
            "axes": {"level": "ERROR"},  # accounts.lockout says what happens, without what people typed
        },
    }
