"""``manage.py serve`` that cannot start: one clear line that says what to do, no traceback, nothing left behind."""

from __future__ import annotations

import json
import socket

import pytest

from tests.running_service import Service, new_service

pytestmark = pytest.mark.e2e


@pytest.fixture
def stopped(tmp_path) -> Service:
    """A folder in which nothing was started yet."""
    return new_service(tmp_path / "home", STARTER_MODEL="none")


def refusal(service: Service, *command: str) -> str:
    """What was said. The first start shows its checks as well: only what went wrong is of interest."""
    finished = service.command(*(command or ("serve",)))
    said = finished.stdout + finished.stderr
    assert finished.returncode == 1, said
    assert "Traceback" not in said
    assert service.processes() == []
    lines = [line for line in said.splitlines() if not line.startswith(("✓", "!"))]
    assert len(lines) == 1, said
    return lines[0]


def test_a_line_of_env_that_is_not_understood(stopped):
    (stopped.home / ".env").write_text("SERVER_HOST=127.0.0.1\nwhat is this\n")
    line = refusal(stopped)
    assert "line 2" in line
    assert str(stopped.home / ".env") in line


@pytest.mark.parametrize("command", ["serve", "checkdeps", "status"])
def test_a_placeholder_secret_is_refused_by_name(stopped, command):
    (stopped.home / ".env").write_text("JWT_SECRET=your-secret-key-change-in-production\n")
    line = refusal(stopped, command)
    assert "JWT_SECRET" in line
    assert "your-secret-key-change-in-production" in line


def test_a_setting_that_is_wrong_is_named(stopped):
    stopped.environment.pop("SERVER_PORT")
    (stopped.home / ".env").write_text("SERVER_PORT=eighty\n")
    assert "SERVER_PORT=eighty" in refusal(stopped)


def test_a_used_port_names_who_has_it_and_the_setting(stopped):
    with socket.create_server(("127.0.0.1", stopped.port)):
        line = refusal(stopped)
    assert str(stopped.port) in line
    assert "SERVER_PORT" in line
    assert "python" in line


def test_the_same_port_for_web_and_models(stopped):
    stopped.environment["LLAMA_CPP_PORT"] = str(stopped.port)
    line = refusal(stopped)
    assert "LLAMA_CPP_PORT" in line


@pytest.mark.parametrize("setting", ["MODELS_PATH", "LOG_DIR"])
def test_a_folder_that_cannot_be_written(stopped, setting):
    # A file where the folder should be: the tests may run as root, for whom every folder can be written.
    (stopped.home / "in-the-way").write_text("")
    stopped.environment[setting] = str(stopped.home / "in-the-way" / "below")
    line = refusal(stopped)
    assert setting in line
    assert str(stopped.home / "in-the-way") in line


def test_a_service_folder_that_cannot_be_written(stopped):
    (stopped.home / "run").write_text("")
    assert str(stopped.home / "run") in refusal(stopped)


def test_a_database_that_cannot_be_opened(stopped):
    stopped.environment["DATABASE_URL"] = "sqlite3://./no/such/folder/llm.db"
    line = refusal(stopped)
    assert "unable to open database file" in line
    assert "DATABASE_URL" in line


def test_an_engine_that_is_none(stopped):
    stopped.environment["LLAMA_CPP_PATH"] = "./no/llama-server"
    assert "LLAMA_CPP_PATH=./no/llama-server" in refusal(stopped)


def test_refusals_are_in_the_terminals_language(stopped):
    """Each message goes through the catalogue; here it is enough that the catalogue is asked for."""
    stopped.environment["LANG"] = "zh_CN.UTF-8"
    (stopped.home / ".env").write_text("what is this\n")
    assert str(stopped.home / ".env") in refusal(stopped)


def test_nothing_runs_so_status_and_stop_say_so(stopped):
    for command in ("status", "stop"):
        finished = stopped.command(command)
        assert finished.returncode == 3
        assert len(finished.stdout.splitlines()) == 1
        assert "Traceback" not in finished.stderr


def test_checkdeps_says_how_the_machine_is(stopped):
    finished = stopped.command("checkdeps")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for word in ("Python", "GB", str(stopped.port), str(stopped.home)):
        assert word in finished.stdout
    assert not (stopped.home / ".env").exists()


def test_a_second_serve_names_the_running_one(service):
    finished = service.command("serve")
    assert finished.returncode == 1
    assert str(service.pids()["serve"]) in finished.stderr
    assert str(service.port) in finished.stderr
    assert service.is_ready()


def test_an_answer_to_a_wrong_path_has_the_apis_shape(service):
    with service.client() as client:
        for path, status in (("/api/v1/no/such/thing", 404), ("/v1/nothing", 404)):
            answer = client.get(path)
            assert answer.status_code == status
            assert set(json.loads(answer.text)["error"]) >= {"code", "message"}
        page = client.get("/no/such/page", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
