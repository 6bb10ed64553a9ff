"""The curl and log commands of the user's deployment guide, as a user pastes them: only address, model and user name differ.

docs/guide-check.md lists them with what they give.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.running_service import Service, wait_for

pytestmark = pytest.mark.e2e

MODEL = "smollm2-135m-instruct"


class Shell:
    """Runs lines of the guide in the service's folder, with ``<token>`` and the address filled in."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.token = service.token()

    def __call__(self, line: str, **variables: str) -> str:
        line = line.replace("http://localhost:8080", self.service.base_url).replace("<token>", self.token)
        line = line.replace("qwen2-7b-instruct", MODEL)
        finished = subprocess.run(
            ["bash", "-c", line],
            cwd=self.service.home,
            env={**self.service.environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert finished.returncode == 0, (line, finished.stdout, finished.stderr)
        return finished.stdout

    def json(self, line: str) -> Any:
        return json.loads(self(line.replace("curl ", "curl -sS ", 1)))


@pytest.fixture(scope="module")
def shell(service: Service) -> Iterator[Shell]:
    return Shell(service)


def test_register_and_log_in(shell: Shell) -> None:
    name, password = f"guide-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    registered = shell.json(
        f"""curl -X POST http://localhost:8080/api/v1/auth/register -H "Content-Type: application/json" \
        -d '{{"username":"{name}","password":"{password}","email":"{name}@example.com"}}'"""
    )
    assert registered["user"]["username"] == name
    assert registered["user"]["balance"]["available"] == 1_000_000  # 1,000 tokens at 0.001 credits
    assert registered["token"] == registered["access"]
    logged_in = shell.json(
        f"""curl -X POST http://localhost:8080/api/v1/auth/login -H "Content-Type: application/json" \
        -d '{{"username":"{name}","password":"{password}"}}'"""
    )
    assert logged_in["token"]


def test_the_guide_s_own_account_is_refused_with_the_reasons(shell: Shell) -> None:
    """`admin` exists from the first start on, and "password" is no password: each is said."""
    answer = shell.json(
        """curl -X POST http://localhost:8080/api/v1/auth/register -H "Content-Type: application/json" \
        -d '{"username":"admin","password":"password","email":"admin@example.com"}'"""
    )
    assert answer["error"]["code"] == "invalid_request"
    assert set(answer["error"]["details"]) == {"username", "password"}


def test_models_start_and_chat(shell: Shell) -> None:
    models = shell.json('curl -H "Authorization: Bearer <token>" http://localhost:8080/api/v1/models')
    [model] = [entry for entry in models["models"] if entry["modelName"] == MODEL]
    assert model["contextLength"]
    started = shell.json(
        'curl -X POST -H "Authorization: Bearer <token>" '
        "http://localhost:8080/api/v1/models/qwen2-7b-instruct/start?wait=60"
    )
    assert started["state"] == "ready"
    answer = shell.json(
        """curl -X POST -H "Authorization: Bearer <token>" -H "Content-Type: application/json" \
        -d '{"message":"你好","max_tokens":20}' http://localhost:8080/api/v1/models/qwen2-7b-instruct/chat"""
    )
    assert answer["model"] == MODEL
    assert answer["response"]
    assert answer["usage"]["completion_tokens"] <= 20


def test_a_native_conversation_goes_on_and_stands_on_the_chat_page(shell: Shell) -> None:
    def say(message: str, conversation: str) -> Any:
        body = json.dumps({"message": message, "max_tokens": 8, "conversation": conversation})
        return shell.json(
            f"""curl -X POST -H "Authorization: Bearer <token>" -H "Content-Type: application/json" \
            -d '{body}' http://localhost:8080/api/v1/models/qwen2-7b-instruct/chat"""
        )

    begun = say("My name is Ada.", "new")
    told = say("What is my name?", begun["conversation"])
    assert told["conversation"] == begun["conversation"]
    assert told["usage"]["prompt_tokens"] > begun["usage"]["prompt_tokens"]
    refused = say("Hello", "00000000-0000-0000-0000-000000000000")
    assert refused["error"]["code"] == "invalid_request"


def test_openai_chat_completions(shell: Shell) -> None:
    answer = shell.json(
        """curl -X POST -H "Authorization: Bearer <token>" -H "Content-Type: application/json" \
        -d '{"model": "qwen2-7b-instruct", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 20}' \
        http://localhost:8080/api/v1/v1/chat/completions"""
    )
    assert answer["model"] == MODEL
    assert answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("monitoring/metrics", "counters"),
        ("monitoring/system", "memory"),
        ("logs", "entries"),
        ("cluster/stats", "replicas"),
    ],
)
def test_monitoring(shell: Shell, path: str, key: str) -> None:
    answer = shell.json(f'curl -H "Authorization: Bearer <token>" http://localhost:8080/api/v1/{path}')
    assert answer[key]


def test_cluster_join_by_hand_probes_the_machine_first(shell: Shell) -> None:
    """Nothing listens at the guide's example address here, so the answer is the reason and not a node that never works."""
    answer = shell.json(
        """curl -X POST -H "Authorization: Bearer <token>" -H "Content-Type: application/json" \
        -d '{"id": "worker-1", "host": "127.0.0.2", "port": 9, "role": "worker"}' \
        http://localhost:8080/api/v1/cluster/join"""
    )
    assert answer["error"]["code"]
    assert answer["error"]["message"]


def test_logs_by_hand(shell: Shell) -> None:
    wait_for(lambda: (shell.service.home / "logs" / "llm-app.log").exists(), "the log")
    lines = shell("tail -n 5 logs/llm-app.log").splitlines()
    assert all(json.loads(line)["level"] for line in lines)
    shell("grep ERROR logs/*.log || true")
