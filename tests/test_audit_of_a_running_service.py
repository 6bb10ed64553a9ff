"""Who is told in the audit log of a real service: its own processes, commands, and people who write at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.running_service import Service, running

pytestmark = pytest.mark.e2e
PASSWORD = "plenty of rain today"
CHANGES = 20


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("audit"), starter=False) as started:
        yield started


def told(service: Service, query: str) -> list[dict[str, Any]]:
    with service.client() as client:
        answer = client.get(f"/api/v1/audit?limit=1000&{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def test_what_the_start_did_is_the_services_own_doing(quiet: Service):
    (made,) = told(quiet, "action=user.create&name=admin")
    assert (made["who"], made["address"]) == ("service:bringup", "")


def test_a_command_is_told_as_whoever_runs_it(quiet: Service):
    quiet.command("createadmin", "root")
    (made,) = told(quiet, "action=user.create&name=root")
    assert made["who"] == f"command:{psutil.Process().username()}"


def test_a_setting_that_was_edited_is_told_at_the_next_start(quiet: Service):
    quiet.stop()
    quiet.environment["QUEUE_LENGTH"] = "50"
    quiet.environment["CLUSTER_TOKEN"] = "another-token-of-some-length"
    quiet.start()
    (entry,) = told(quiet, "type=settings")
    assert entry["who"] == "service:bringup"
    assert entry["changes"] == {"QUEUE_LENGTH": ["", "50"], "CLUSTER_TOKEN": "changed"}


def test_people_who_write_at_once_are_not_mistaken_for_each_other(quiet: Service):
    people = ["anna", "bob", "cleo", "dan"]
    problems: list[str] = []

    def work(name: str) -> None:
        with httpx.Client(base_url=quiet.base_url, timeout=60) as client:
            made = client.post("/api/v1/auth/register", json={"username": name, "password": PASSWORD})
            client.headers["Authorization"] = f"Bearer {made.json()['token']}"
            together.wait()
            for number in range(CHANGES):
                answer = client.patch("/api/v1/auth/me", json={"first_name": f"{name} {number}"})
                if answer.status_code != 200:
                    problems.append(answer.text)

    together = threading.Barrier(len(people), timeout=60)
    threads = [threading.Thread(target=work, args=(name,)) for name in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    changes = told(quiet, "action=user.update")
    assert len(changes) == CHANGES * len(people)
    for entry in changes:
        assert entry["who"] == entry["name"]
        assert entry["changes"]["first_name"][1].startswith(entry["who"])
        assert entry["address"] == "127.0.0.1"
