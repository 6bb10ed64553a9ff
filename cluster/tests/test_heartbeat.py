from __future__ import annotations

import pytest

from cluster import services
from cluster.models import Node
from tests.api_callers import ROLES, assert_error, client_of

pytestmark = pytest.mark.django_db
URL = "/api/v1/cluster/heartbeat"
TOKEN = "a-cluster-token-of-some-length"


@pytest.fixture(autouse=True)
def token(settings):
    settings.CLUSTER_TOKEN = TOKEN


@pytest.fixture
def machine():
    client = client_of("anyone")
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {TOKEN}")
    return client


def test_a_machine_tells_its_figures_and_hears_what_changed(machine):
    services.join("worker-1", "10.0.0.2", 8081)
    Node.objects.update(last_seen=None)
    figures = {"cpu": {"percent": 12.5}}
    response = machine.post(URL, {"id": "worker-1", "system": figures}, format="json")
    assert response.json() == {"drained": False, "serving": False}
    node = Node.objects.get()
    assert node.system == figures
    assert node.last_seen is not None
    services.drain("worker-1")
    assert machine.post(URL, {"id": "worker-1"}, format="json").json()["drained"] is True


def test_people_are_no_machines():
    expected = {"anyone": 401, "user": 403, "operator": 403, "admin": 403}
    for role in ROLES:
        assert client_of(role).post(URL, {"id": "x"}, format="json").status_code == expected[role]


def test_a_removed_machine_is_told(machine):
    assert_error(machine.post(URL, {"id": "gone"}, format="json"), 404, "node_not_found")


def test_a_machine_cannot_overwrite_the_master(machine):
    master = services.register_this_machine()
    assert_error(machine.post(URL, {"id": master.name, "system": {}}, format="json"), 404, "node_not_found")


def test_too_much_is_refused(machine):
    services.join("worker-1", "10.0.0.2", 8081)
    huge = {"id": "worker-1", "system": {"x": "y" * 70_000}}
    assert_error(machine.post(URL, huge, format="json"), 413, "request_too_large")
    assert_error(machine.post(URL, {"id": "worker-1", "system": []}, format="json"), 400, "invalid_request")
