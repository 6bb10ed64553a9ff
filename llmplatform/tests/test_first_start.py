"""Secrets in .env, the folder's lock, and what run/serve.json tells."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from llmplatform.lib import process_identity
from llmplatform.lib.configuration import PROJECT_DIR, ConfigurationError, read_env_file
from llmplatform.service import first_start, run_folder

GUIDE_VARIABLES = [
    "DATABASE_URL",
    "JWT_SECRET",
    "SERVER_PORT",
    "LLAMA_CPP_PORT",
    "LLAMA_CPP_PATH",
    "MODELS_PATH",
    "MODEL_CONFIG_PATH",
    "TOKEN_RATE",
    "DEFAULT_TOKENS",
]
OUR_VARIABLES = [
    "SERVER_HOST",
    "ALLOWED_HOSTS",
    "REGISTRATION",
    "CLUSTER_TOKEN",
    "CLUSTER_ENGINE",
    "REDIS_URL",
    "LOG_LEVEL",
    "LOG_DIR",
    "METRICS_ALLOW",
    "TLS_CERT",
    "TLS_KEY",
]


@pytest.fixture
def env(tmp_path):
    return tmp_path / ".env"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once(env):
    assert first_start.ensure_secrets(env, {}) == list(first_start.SECRETS)
    made = read_env_file(env).values
    assert all(len(made[name]) >= 40 for name in first_start.SECRETS)
    assert len(set(made.values())) == len(first_start.SECRETS)
    assert mode(env) == 0o600

    assert first_start.ensure_secrets(env, {}) == []
    assert read_env_file(env).values == made


def test_what_stands_in_the_file_is_kept(env):
    env.write_text("# mine\nSERVER_PORT=9000\nJWT_SECRET=my-own-secret-of-some-length", encoding="utf-8")
    env.chmod(0o644)
    assert first_start.ensure_secrets(env, {}) == ["SECRET_KEY", "CLUSTER_TOKEN"]
    assert env.read_text(encoding="utf-8").startswith(
        "# mine\nSERVER_PORT=9000\nJWT_SECRET=my-own-secret-of-some-length\n"
    )
    assert read_env_file(env).values["JWT_SECRET"] == "my-own-secret-of-some-length"
    assert mode(env) == 0o600


def test_a_complete_file_is_closed_to_others(env):
    env.write_text("".join(f"{name}=some-secret-{name}\n" for name in first_start.SECRETS))
    env.chmod(0o644)
    before = env.read_text()
    assert first_start.ensure_secrets(env, {}) == []
    assert (env.read_text(), mode(env)) == (before, 0o600)


def test_secrets_of_the_environment_are_not_made_again(env):
    assert first_start.ensure_secrets(env, {"JWT_SECRET": "from-the-environment"}) == ["SECRET_KEY", "CLUSTER_TOKEN"]
    assert "JWT_SECRET" not in read_env_file(env).values


def test_a_link_stays_a_link(tmp_path, env):
    target = tmp_path / "elsewhere.env"
    target.write_text("SERVER_PORT=9000\n")
    env.symlink_to(target)
    first_start.ensure_secrets(env, {})
    assert env.is_symlink()
    assert "JWT_SECRET" in read_env_file(target).values


def test_the_example_copied_as_the_guide_says_is_good(env):
    shutil.copyfile(PROJECT_DIR / ".env.example", env)
    assert first_start.ensure_secrets(env, {}) == list(first_start.SECRETS)
    found = read_env_file(env).values
    assert found["DATABASE_URL"] == "sqlite3://./llm.db"
    assert all(found[name] for name in first_start.SECRETS)


def test_the_example_names_every_variable_of_the_guide():
    text = (PROJECT_DIR / ".env.example").read_text(encoding="utf-8")
    for name in GUIDE_VARIABLES + OUR_VARIABLES:
        assert f"\n{name}=" in text or f"\n# {name}=" in text, name


def test_a_folder_that_is_none_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for call in (
        lambda: first_start.ensure_secrets(tmp_path / "file" / ".env", {}),
        lambda: run_folder.take_lock(tmp_path / "file"),
    ):
        with pytest.raises(ConfigurationError) as raised:
            call()
        assert str(tmp_path / "file") in str(raised.value)
        assert "\n" not in str(raised.value)


def test_one_lock_for_a_folder_and_the_holder_is_named(tmp_path):
    started = process_identity.started_at(os.getpid())
    lock = run_folder.take_lock(tmp_path)
    run_folder.write(tmp_path, run_folder.Running(os.getpid(), started, "http://localhost:22000", "1"))
    with pytest.raises(run_folder.AlreadyServing) as raised:
        run_folder.take_lock(tmp_path)
    assert str(os.getpid()) in str(raised.value)
    assert "http://localhost:22000" in str(raised.value)
    lock.release()
    run_folder.take_lock(tmp_path).release()


def test_a_record_of_a_process_that_is_gone_counts_as_none(tmp_path):
    (tmp_path / "run").mkdir()
    run_folder.write(tmp_path, run_folder.Running(os.getpid(), 1.0, "http://localhost:22000", "1"))
    assert run_folder.read(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"children": 3}', "null"])
def test_a_broken_record_counts_as_none(tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "serve.json").write_text(text)
    assert run_folder.read(tmp_path) is None
