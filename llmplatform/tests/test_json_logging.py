"""logs/llm-app.log: JSON lines by several processes, rotated without a loss, without secrets."""

from __future__ import annotations

import json
import logging
import logging.config
import subprocess
import sys

import pytest

from llmplatform.lib import json_logging

WRITER = """
import logging, sys
from llmplatform.lib.json_logging import JsonFormatter, SharedRotatingFileHandler
handler = SharedRotatingFileHandler(sys.argv[1], max_bytes=20_000, kept_files=100, encoding="utf-8")
handler.setFormatter(JsonFormatter())
logger = logging.Logger("test")
logger.addHandler(handler)
for number in range(500):
    logger.info("%s-%d", sys.argv[2], number)
"""


@pytest.fixture
def log(tmp_path):
    """A logger that writes such a file, and a function that reads its lines."""
    path = tmp_path / "logs" / "llm-app.log"
    file_handler = json_logging.SharedRotatingFileHandler(str(path), encoding="utf-8", errors="backslashreplace")
    file_handler.setFormatter(json_logging.JsonFormatter())
    logger = logging.Logger("llmplatform.test")
    logger.addHandler(file_handler)
    yield logger, lambda: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    file_handler.close()


def test_a_line_says_when_who_and_what(log, monkeypatch):
    monkeypatch.setenv("LLM_PROCESS", "web")
    logger, lines = log
    logger.error("model %s failed", "千问", extra={"request_id": "req-1"})
    (line,) = lines()
    assert line["level"] == "ERROR"
    assert line["source"] == "web"
    assert line["message"] == "model 千问 failed"
    assert line["request_id"] == "req-1"


def test_an_exception_is_one_line(log):
    logger, lines = log
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logger.exception("broken")
    (line,) = lines()
    assert "ValueError: first\nsecond" in line["exception"]


def test_text_that_is_no_unicode_is_written_all_the_same(log):
    logger, lines = log
    logger.warning("bytes \udce9")
    assert lines()[0]["message"].startswith("bytes ")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abcdef123456",
        "password=hunter2hunter2",
        '{"api_key": "abcdef123456"}',
        "JWT_SECRET=abcdef123456",
        "key sk-abcdef123456 was used",
        "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoxfQ.c2lnbmF0dXJl",
    ],
)
def test_secrets_are_taken_out(text):
    shown = json_logging.redact(text)
    assert "[redacted]" in shown
    for secret in ("abcdef123456", "hunter2hunter2", "c2lnbmF0dXJl"):
        assert secret not in shown


@pytest.mark.parametrize("text", ["the token expired yesterday", "42 tokens, 12.5 tokens/s", "password incorrect"])
def test_ordinary_words_stay(text):
    assert json_logging.redact(text) == text


def test_a_secret_field_is_taken_out(log):
    logger, lines = log
    logger.info("login", extra={"password": "short"})
    assert lines()[0]["password"] == "[redacted]"


def test_several_processes_rotate_one_file_and_no_line_is_lost(tmp_path):
    path = tmp_path / "llm-app.log"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    files = sorted(tmp_path.glob("llm-app.log*"))
    messages = [json.loads(line)["message"] for file in files for line in file.read_text().splitlines()]
    assert sorted(messages) == sorted(f"{name}-{number}" for name in "abc" for number in range(500))
    assert len(files) > 5


def test_the_oldest_file_goes(tmp_path):
    path = tmp_path / "llm-app.log"
    handler = json_logging.SharedRotatingFileHandler(str(path), max_bytes=100, kept_files=2)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    for number in range(100):
        logger.info("line %d with some text to fill the file", number)
    handler.close()
    assert sorted(file.name for file in tmp_path.glob("llm-app*")) == ["llm-app.log", "llm-app.log.1", "llm-app.log.2"]


def test_the_terminal_gets_no_secret_and_nothing_twice(tmp_path, capsys):
    before = logging.root.handlers[:], logging.root.level
    try:
        logging.config.dictConfig(json_logging.configuration(tmp_path / "llm-app.log", "INFO"))
        logging.getLogger("test").warning("password=hunter2hunter2")
        logging.getLogger("test").error("said already", extra={"console": False})
    finally:
        for handler in logging.root.handlers[:]:
            if handler not in before[0]:
                handler.close()
        logging.root.handlers[:], logging.root.level = before
    shown = capsys.readouterr().err
    assert "password=[redacted]" in shown
    assert "said already" not in shown
    assert "said already" in (tmp_path / "llm-app.log").read_text()
