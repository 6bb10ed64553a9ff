"""The whole description against a running service, as each role: no server's error, no answer outside of the description, nothing
of another person's.

With ``LLM_API_EXAMPLES=100`` every role tries the boundary values of every field and so many random requests for each
operation; without it there is a shorter form for CI. ``LLM_API_SEED`` makes other ones. What fails is told with a curl command.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import standin
from tests.running_service import PROJECT, Service, running, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MODEL = "smollm2-135m-instruct"
SCOPES = ["inference", "models:read", "models:write", "usage:read", "admin"]
PASSWORD = "jh8&laks-d1"
EXAMPLES = os.environ.get("LLM_API_EXAMPLES", "")
SEED = os.environ.get("LLM_API_SEED", "1")
# Boundary values of each field take up to 4,000 requests. Without EXAMPLES: a few random requests (wrong values of every field
# are sent by tests/test_api_fuzz.py).
EVERYTHING = ["--phases", "coverage,fuzzing"]
FEW = "4"
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
CHECKS = [
    "is_described",
    "is_no_servers_error",
    "tells_nothing_hidden",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "allow_header_conformance",
]
ROLES = ("anyone", "user", "key", "operator", "admin")


@dataclass
class Caller:
    """One who asks; the rest is for ``checks``."""

    headers: dict[str, str]
    hidden: dict[str, str]
    kept: dict[str, list[int]] = field(default_factory=dict)
    stops_models: bool = False


class World:
    """A service, one who asks for each role, and Ann, whose things are marked."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.admin = service.client()
        self.marks = {name: f"zq-{name}-{secrets.token_hex(4)}" for name in ("name", "note", "talk", "key")}
        self.ann = self._ann()
        self.callers = {role: self._caller(role) for role in ROLES}  # before the limit of registrations is reached

    def _register(self, name: str, **fields: str) -> dict[str, Any]:
        body = {"username": name, "password": PASSWORD, **fields}
        return self._post(httpx.Client(base_url=self.service.base_url, timeout=30), "auth/register", **body)

    @staticmethod
    def _post(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
        answer = client.post(f"/api/v1/{path}", json=body)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    def _ann(self) -> dict[str, str]:
        """Somebody with one of everything; what of it nobody may tell, by name."""
        name, talk = self.marks["name"], self.marks["talk"]
        made = self._register(name, email=f"{name}@example.org")
        self._post(self.admin, f"users/{made['user']['id']}/credits", amount=10**9, note=self.marks["note"])
        with self.service.client(made["access"]) as client:
            client.patch("/api/v1/auth/me", json={"last_name": name}).raise_for_status()
            key = self._post(client, "keys", name=self.marks["key"], models=[MODEL])["key"]
            said = self._post(client, f"models/{MODEL}/chat", message=talk, max_tokens=4, conversation="new")
        assert said["conversation"]
        return {"her key": key, "her token": made["access"], "what she said": talk}

    def _caller(self, role: str) -> Caller:
        """Operators see everybody's usage and ledger, administrators all but secrets and what people say to models."""
        theirs = {**self.ann, **secrets_of(self.service)}
        if role == "admin":
            own = self.admin.get("/api/v1/auth/me").json()["id"]
            return Caller(
                {"Authorization": self.admin.headers["Authorization"]}, theirs, {"user_id": [own]}, stops_models=True
            )
        if role == "operator":
            made = self._register(f"operator-{secrets.token_hex(3)}")
            self.admin.patch(f"/api/v1/users/{made['user']['id']}", json={"role": role}).raise_for_status()
            return Caller({"Authorization": f"Bearer {made['access']}"}, theirs, stops_models=True)
        hers = {**theirs, **{f"her {name}": mark for name, mark in self.marks.items()}}
        if role == "anyone":
            return Caller({}, hers)
        made = self._register(f"{role}-{secrets.token_hex(3)}")
        if role == "user":
            return Caller({"Authorization": f"Bearer {made['access']}"}, hers)
        with self.service.client(made["access"]) as client:
            key = self._post(client, "keys", name="all scopes", scopes=SCOPES)
        return Caller({"x-api-key": key["key"]}, hers, {"key_id": [key["id"]]})


def secrets_of(service: Service) -> dict[str, str]:
    """What the service keeps to itself, whoever asks."""
    lines = (line.partition("=") for line in (service.home / ".env").read_text().splitlines())
    return {name: value for name, _equals, value in lines if re.search("SECRET|TOKEN$", name) and len(value) > 15}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Of its own: its models are stopped and removed here."""
    home = tmp_path_factory.mktemp("description")
    engine = standin.write_executable(home / "llama-server")
    with running(home / "home", LLAMA_CPP_PATH=str(engine), DEFAULT_TOKENS="1000000") as service:
        wait_for(service.model_is_ready, "a model that is ready", 120)
        yield World(service)
        broken = [entry for entry in service.log() if "exception" in entry and entry["source"] == "web"]
        assert broken == [], json.dumps(broken[:3], indent=1)


@pytest.mark.parametrize("role", ROLES)
def test_what_each_role_is_answered(world: World, role: str, tmp_path: Path) -> None:
    caller = world.callers[role]
    found = schemathesis(world.service, caller, tmp_path)
    assert found.returncode == 0, found.stdout[-20_000:]
    tested = re.search(r"Tested: (\d+)", found.stdout)
    assert tested is not None
    assert int(tested[1]) > 60, found.stdout[-2000:]
    if role != "anyone":  # so that it was not all about nobody
        me = httpx.get(f"{world.service.base_url}/api/v1/auth/me", headers=caller.headers, timeout=30)
        assert me.json()["role"] == {"key": "user"}.get(role, role)


def schemathesis(service: Service, caller: Caller, folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)]
    argv += ["run", f"{service.base_url}/api/schema", "--checks", ",".join(CHECKS), "--continue-on-failure"]
    argv += EVERYTHING if EXAMPLES else ["--phases", "fuzzing"]
    argv += ["--max-examples", EXAMPLES or FEW, "--seed", SEED, "--request-timeout", "20", "--no-color"]
    headers = {"Accept": "application/json", **caller.headers}
    argv += [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    given = {
        "SCHEMATHESIS_HOOKS": "tests.api_description.checks",
        "API_TEST": json.dumps(asdict(caller)),
        "PYTHONPATH": str(PROJECT),
    }
    return subprocess.run(argv, cwd=folder, env={**os.environ, **given}, capture_output=True, text=True)
