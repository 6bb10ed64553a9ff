"""The way of a first user: a fresh checkout, one command, the printed curl line, the guide's other scripts, stop."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.running_service import PROJECT, Service, environment, new_service, put_starter_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What git would clone, as it stands in the working tree."""
    target = tmp_path / "a folder with spaces"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        source = PROJECT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target


def test_a_fresh_checkout_answers_a_real_chat(checkout: Path) -> None:
    put_starter_model(checkout / "models")  # the download itself is tested with the starter model's own tests
    service = new_service(checkout)
    service.environment = {**environment(checkout), **_ports(service)}
    script = str(checkout / "start-llm-service.sh")

    def run(*argv: str) -> str:
        finished = subprocess.run(
            argv, cwd="/", env=service.environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    try:
        started = run(script, "--background")
        curl = next(line for line in started.splitlines() if line.startswith("curl "))
        answer = json.loads(run("bash", "-c", curl.replace("curl ", "curl -sS ", 1)))
        assert answer["choices"][0]["message"]["content"]
        assert "smollm2-135m-instruct" in run(script, "--status")
        assert "token" in run(str(checkout / "test-llama-server.sh"))
        run(script, "--check-deps")
        run(script, "--stop")
        assert service.processes() == []
        log = (checkout / "logs" / "serve.log").read_text()
        bearer = curl.split("Bearer ", 1)[1].split('"', 1)[0]
        assert bearer not in log
    finally:
        service.kill_what_is_left()


def _ports(service: Service) -> dict[str, str]:
    return {"SERVER_HOST": "127.0.0.1", "SERVER_PORT": str(service.port), "LLAMA_CPP_PORT": str(service.model_port)}
