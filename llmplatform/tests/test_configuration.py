"""Reading .env: what is right is taken, what is wrong is one line that says where and what to do."""

from __future__ import annotations

import pytest

from llmplatform.lib import database_url
from llmplatform.lib.configuration import PLACEHOLDER_SECRETS, ConfigurationError, EnvFile, Settings, read_env_file


@pytest.fixture
def env_file(tmp_path):
    def write(text: str):
        path = tmp_path / ".env"
        path.write_text(text, encoding="utf-8")
        return read_env_file(path)

    return write


def settings(**values: str) -> Settings:
    return Settings(EnvFile(None, values), {})


def test_the_guides_form_is_read(env_file):
    found = env_file("# comment\n\nSERVER_PORT=8080\nexport NAME='with space'\nEMPTY=\nTEXT=a # comment\n")
    assert found.values == {"SERVER_PORT": "8080", "NAME": "with space", "EMPTY": "", "TEXT": "a"}


def test_a_file_from_windows_is_read(tmp_path):
    path = tmp_path / ".env"
    path.write_bytes(b"\xef\xbb\xbfSERVER_PORT=8080\r\nNAME=a\r\n")
    assert read_env_file(path).values == {"SERVER_PORT": "8080", "NAME": "a"}


def test_a_missing_file_is_no_settings(tmp_path):
    assert read_env_file(tmp_path / ".env").values == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=1\nB=2\nthis is no setting\n", 3),
        ("'unclosed=1\n", 1),
        ("A=1\n\n\n# comment\nB='unclosed\nC=3\n", 5),
    ],
)
def test_a_line_that_is_not_understood_is_named(env_file, text, line):
    with pytest.raises(ConfigurationError, match=rf"line {line}\b"):
        env_file(text)


def test_a_file_that_is_no_text_is_one_line(tmp_path):
    path = tmp_path / ".env"
    path.write_bytes(b"A=\xff\xfe\n")
    with pytest.raises(ConfigurationError) as raised:
        read_env_file(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_environment_comes_before_the_file():
    found = Settings(EnvFile(None, {"A": "file", "B": "file"}), {"A": "environment"})
    assert (found.text("A"), found.text("B"), found.text("C", "default")) == ("environment", "file", "default")


@pytest.mark.parametrize("value", ["http", "0", "65536", "8080.5", "-1"])
def test_a_port_that_is_none_is_named(value):
    with pytest.raises(ConfigurationError, match="SERVER_PORT="):
        settings(SERVER_PORT=value).integer("SERVER_PORT", 8080, 1, 65535)


def test_an_empty_value_is_the_default():
    assert settings(SERVER_PORT=" ").integer("SERVER_PORT", 8080, 1, 65535) == 8080


@pytest.mark.parametrize(
    ("value", "micro"), [("0.001", 1000), ("0", 0), ("1", 1_000_000), ("0.000001", 1), ("1e-3", 1000)]
)
def test_a_price_is_whole_micro_credits(value, micro):
    assert settings(TOKEN_RATE=value).micro_credits("TOKEN_RATE", "0") == micro


@pytest.mark.parametrize("value", ["-1", "0.0000001", "free", "NaN", "inf"])
def test_a_price_that_cannot_be_kept_exactly_is_refused(value):
    with pytest.raises(ConfigurationError, match="TOKEN_RATE="):
        settings(TOKEN_RATE=value).micro_credits("TOKEN_RATE", "0")


def test_a_choice_names_what_there_is():
    with pytest.raises(ConfigurationError, match="open, closed"):
        settings(REGISTRATION="maybe").choice("REGISTRATION", "open", ("open", "closed"))


@pytest.mark.parametrize(("value", "flag"), [("yes", True), ("0", False), ("", True), ("Off", False)])
def test_flags(value, flag):
    assert settings(FLAG=value).flag("FLAG", True) is flag


@pytest.mark.parametrize("value", sorted(PLACEHOLDER_SECRETS))
def test_a_secret_from_an_example_is_refused_by_name(value):
    with pytest.raises(ConfigurationError, match="JWT_SECRET"):
        settings(JWT_SECRET=value).secret("JWT_SECRET")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite3://./llm.db", "/home/llm.db"),
        ("sqlite:///llm.db", "/home/llm.db"),
        ("sqlite:////var/lib/llm.db", "/var/lib/llm.db"),
        ("sqlite3://data/llm.db", "/home/data/llm.db"),
    ],
)
def test_sqlite_paths_are_seen_from_the_services_folder(tmp_path, url, name):
    parsed = database_url.parse(url, tmp_path / "home")
    expected = name if name.startswith("/var") else str(tmp_path) + name
    assert parsed["ENGINE"] == "django.db.backends.sqlite3"
    assert str(parsed["NAME"]) in {expected, expected.replace("/llm.db", "/./llm.db")}
    assert parsed["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_postgresql(tmp_path):
    parsed = database_url.parse("postgres://u:p%40ss@host:5433/name", tmp_path)
    assert parsed["ENGINE"] == "django.db.backends.postgresql"
    assert (parsed["USER"], parsed["PASSWORD"], parsed["HOST"], parsed["PORT"], parsed["NAME"]) == (
        "u",
        "p@ss",
        "host",
        5433,
        "name",
    )


@pytest.mark.parametrize("url", ["mongodb://x", "llm.db", "", "sqlite3://"])
def test_a_database_url_that_is_none_is_one_line(tmp_path, url):
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        database_url.parse(url, tmp_path)


def test_a_secret_that_can_be_guessed_is_refused_without_showing_it():
    with pytest.raises(ConfigurationError, match="JWT_SECRET") as caught:
        settings(JWT_SECRET="fifteen-letters").secret("JWT_SECRET")
    assert "fifteen-letters" not in str(caught.value)
    assert settings(JWT_SECRET="sixteen-letters!").secret("JWT_SECRET") == "sixteen-letters!"
    assert settings(JWT_SECRET="").secret("JWT_SECRET") == ""
