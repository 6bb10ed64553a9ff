from __future__ import annotations

import pytest

from cluster import selectors, services
from cluster.models import Node
from tests.api_callers import assert_error, client_of, forbidden_below, statuses

pytestmark = pytest.mark.django_db
URL = "/api/v1/cluster/nodes"


@pytest.fixture
def worker() -> Node:
    node, _created = services.join("worker-1", "10.0.0.2", 8081)
    return node


def test_only_operators_see_machines():
    assert statuses("get", URL) == {**forbidden_below("operator"), "operator": 200, "admin": 200}


def test_the_list_shows_the_master_as_serving_and_the_joined_machine_as_not(worker):
    services.register_this_machine()
    master, joined = client_of("operator").get(URL).json()["nodes"]
    assert (master["role"], master["serving"], master["alive"]) == ("master", True, True)
    assert master["system"]["cpu"]["cores"]["logical"] >= 1
    assert (joined["id"], joined["serving"], joined["alive"]) == ("worker-1", False, True)


def test_the_list_costs_one_query(worker, django_assert_num_queries):
    for number in range(20):
        services.join(f"more-{number}", "10.0.0.9", 1000 + number)
    with django_assert_num_queries(1):
        assert len(selectors.nodes()) == 21


@pytest.mark.parametrize("action", ["drain", "resume"])
def test_draining_and_resuming_is_for_operators(worker, action):
    url = f"{URL}/worker-1/{action}"
    assert statuses("post", url) == {**forbidden_below("operator"), "operator": 200, "admin": 200}


def test_drain_and_resume_say_what_is_now(worker):
    client = client_of("operator")
    assert client.post(f"{URL}/worker-1/drain").json()["drained"] is True
    assert selectors.node("worker-1").drained
    assert client.post(f"{URL}/worker-1/resume").json()["drained"] is False
    assert not selectors.node("worker-1").drained


def test_removing_is_for_operators(worker):
    for role, status in forbidden_below("operator").items():
        assert client_of(role).delete(f"{URL}/worker-1").status_code == status
    assert client_of("operator").delete(f"{URL}/worker-1").status_code == 204
    assert not Node.objects.exists()


def test_the_master_stays():
    master = services.register_this_machine()
    assert_error(client_of("admin").delete(f"{URL}/{master.name}"), 409, "master_node")


@pytest.mark.parametrize(("method", "tail"), [("delete", ""), ("post", "/drain"), ("post", "/resume")])
def test_an_unknown_machine_is_told(method, tail):
    assert_error(getattr(client_of("operator"), method)(f"{URL}/nobody{tail}"), 404, "node_not_found")


def test_this_machine_keeps_its_row_and_name():
    first = services.register_this_machine()
    Node.objects.filter(pk=first.pk).update(name="renamed-by-hand")
    assert services.register_this_machine().name == "renamed-by-hand"
    assert Node.objects.count() == 1


def test_a_worker_with_this_machines_name_does_not_stop_the_start(monkeypatch):
    monkeypatch.setattr(services, "host_name", lambda: "Box.example.org")
    services.join("boxexampleorg", "10.0.0.2", 8081)
    assert services.register_this_machine().name == "boxexampleorg-2"


def test_the_supervisors_heartbeat_makes_the_row_when_it_is_missing():
    services.heartbeat_this_machine()
    services.heartbeat_this_machine()
    assert selectors.is_alive(Node.objects.get(role="master"))
