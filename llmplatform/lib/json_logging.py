"""The service's own log: one JSON object a line in ``logs/llm-app.log``, rotated, without secrets and without prompts.

Several processes (web server, supervisor, parent) write the same file, so each line is one ``write`` on a file opened for
appending, and a process reopens the file when another one has rotated it.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MAX_BYTES = 20 * 1024 * 1024
KEPT_FILES = 5
SECRET = re.compile(
    r"(?i)(bearer\s+|api[-_]?key[\"'=:\s]+|password[\"'=:\s]+|secret[\"'=:\s]+|token[\"'=:\s]+)([^\s\"',;&]{6,})"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+|\bsk-[\w-]{8,}"
)
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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
            line[key] = redact(value) if isinstance(value, str) else value
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


class SharedRotatingFileHandler(logging.handlers.WatchedFileHandler):
    """A watched file that whoever finds it too large renames; the others see the new inode and reopen."""

    def emit(self, record: logging.LogRecord) -> None:
        self._rotate_if_large()
        super().emit(record)

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def _rotate_if_large(self) -> None:
        try:
            if os.stat(self.baseFilename).st_size < MAX_BYTES:
                return
            for number in range(KEPT_FILES - 1, 0, -1):
                older = f"{self.baseFilename}.{number}"
                if os.path.exists(older):
                    os.replace(older, f"{self.baseFilename}.{number + 1}")
            os.replace(self.baseFilename, f"{self.baseFilename}.1")
        except OSError:  # another process rotates right now, or the folder is read-only: logging goes on as it is
            return


def configuration(path: Path, level: str) -> dict[str, Any]:
    """Django's LOGGING. Warnings and worse also go to the terminal, unless ``LLM_QUIET`` is set by the parent process."""
    handlers: dict[str, Any] = {
        "file": {
            "()": "llmplatform.lib.json_logging.SharedRotatingFileHandler",
            "filename": str(path),
            "encoding": "utf-8",
            "delay": True,
            "formatter": "json",
        },
        "console": {
            "class": "logging.StreamHandler",
            "level": os.environ.get("LLM_CONSOLE_LEVEL", "WARNING"),
            "formatter": "plain",
        },
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {"()": "llmplatform.lib.json_logging.JsonFormatter"},
            "plain": {"format": "%(levelname)s %(name)s: %(message)s"},
        },
        "handlers": handlers,
        "root": {"handlers": ["file", "console"], "level": level},
        "loggers": {
            "daphne": {"level": "WARNING"},
            "twisted": {"level": "WARNING"},
            "httpx": {"level": "WARNING"},
            "httpcore": {"level": "WARNING"},
            "django.request": {"level": "ERROR"},
            "asyncio": {"level": "WARNING"},
        },
    }
