from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cluster import addresses, probe, services
from cluster.checks import cluster_token
from cluster.models import Node
from tests.api_callers import assert_error, client_of, forbidden_below

pytestmark = pytest.mark.django_db
URL = "/api/v1/cluster/join"
TOKEN = "a-cluster-token-of-some-length"


class Answers(BaseHTTPRequestHandler):
    """A server that answers as it was told; counts what it was asked."""

    status, body, location, asked = 200, b'{"status":"ok"}', "", []

    def do_GET(self):
        type(self).asked.append((self.path, self.headers["Host"]))
        self.send_response(self.status)
        if self.location:
            self.send_header("Location", self.location)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args):
        pass


@pytest.fixture
def engine():
    handler = type("Handler", (Answers,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    handler.port = server.server_address[1]
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def token(settings):
    settings.CLUSTER_TOKEN = TOKEN


def body(port: int, **more: object) -> dict[str, object]:
    return {"id": "worker-1", "host": "127.0.0.1", "port": port, "role": "worker", **more}


def with_token(token: str = TOKEN):
    client = client_of("anyone")
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


def test_an_operator_adds_a_machine_with_a_living_llama_server(engine):
    response = client_of("operator").post(URL, body(engine.port), format="json")
    assert response.status_code == 201
    assert (response.json()["id"], response.json()["serving"]) == ("worker-1", False)
    assert engine.asked == [("/health", f"127.0.0.1:{engine.port}")]
    assert client_of("admin").post(URL, body(engine.port), format="json").status_code == 200  # again: no second row
    assert Node.objects.count() == 1


def test_people_below_operators_may_not(engine):
    for role, status in forbidden_below("operator").items():
        assert client_of(role).post(URL, body(engine.port), format="json").status_code == status
    assert engine.asked == []


def test_a_machine_joins_with_the_cluster_token(engine, monkeypatch):
    monkeypatch.setattr(addresses, "refusal", lambda *args, **kwargs: "")  # its address would be another machine's
    assert with_token().post(URL, body(engine.port), format="json").status_code == 201


@pytest.mark.parametrize("wrong", ["", "another", TOKEN + "x", "схема"])
def test_another_token_is_refused(wrong):
    client = client_of("anyone", HTTP_AUTHORIZATION=f"Bearer {wrong}".encode().decode("latin-1"))
    assert_error(client.post(URL, body(1), format="json"), 401, "invalid_api_key")


def test_no_token_set_means_nobody_has_it(settings):
    settings.CLUSTER_TOKEN = ""
    assert client_of("anyone", HTTP_AUTHORIZATION="Bearer ").post(URL, body(1), format="json").status_code == 401


def test_the_token_beside_another_credential_is_refused(settings, admin_user):
    """Who it is stays open: as everywhere else."""
    both = {"Authorization": f"Bearer {TOKEN}", "x-api-key": "sk-" + "x" * 43}
    heartbeat = {"id": "worker-1", "system": {}}
    for headers, status in ((both, 401), ({**both, "x-api-key": TOKEN}, 404), ({"x-api-key": TOKEN}, 404)):
        for path, sent in ((URL, body(9)), (URL.replace("join", "heartbeat"), heartbeat)):
            answer = client_of("anyone").post(path, sent, format="json", headers=headers)
            assert answer.status_code == (status if status == 401 or path != URL else 400), (path, headers)
    browser = client_of("anyone")
    browser.force_login(admin_user)
    assert browser.post(URL, body(9), format="json", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 401


@pytest.mark.parametrize(
    ("token", "problems"), [("", 0), (TOKEN, 0), ("two words of it", 1), ("a,b", 1), ("schlüssel", 1)]
)
def test_a_token_that_no_header_can_hold_is_told_at_start(settings, token, problems):
    settings.CLUSTER_TOKEN = token
    assert len(cluster_token(None)) == problems


def test_a_token_opens_nothing_else():
    assert with_token().get("/api/v1/cluster/nodes").status_code == 401


def test_a_machine_cannot_name_loopback():
    assert_error(with_token().post(URL, body(9), format="json"), 400, "address_refused")


NEVER = """169.254.169.254 ::ffff:169.254.169.254 fe80::1 fd00:ec2::254 100.100.100.200 224.0.0.1 0.0.0.0 ::
255.255.255.255 nö-host! a_b:c http://x nowhere.invalid 2852039166 0xa9.0xfe.0xa9.0xfe"""


@pytest.mark.parametrize("host", NEVER.split())
def test_addresses_that_nobody_may_have_called(host, monkeypatch):
    monkeypatch.setattr(probe, "_health", lambda *args: pytest.fail("called"))
    assert_error(client_of("admin").post(URL, body(80, host=host), format="json"), 400, "address_refused")
    assert not Node.objects.exists()


def test_the_services_own_port_is_refused(settings):
    settings.SERVER_PORT = 27001
    assert_error(client_of("operator").post(URL, body(27001), format="json"), 400, "address_refused")


def test_a_name_with_one_forbidden_address_among_good_ones_is_refused(monkeypatch):
    found = [(2, 1, 6, "", (address, 80)) for address in ("10.0.0.5", "169.254.169.254")]
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *args, **kwargs: found)
    assert_error(client_of("operator").post(URL, body(80, host="mixed.example"), format="json"), 400, "address_refused")


@pytest.mark.parametrize(
    ("status", "answer", "location"),
    [
        (503, b'{"error":{"message":"Loading model"}}', ""),
        (200, b"<html>", ""),
        (200, b'{"status":"error"}', ""),
        (200, b"[]", ""),
        (302, b"", "http://127.0.0.1/health"),
        (401, b"", ""),
    ],
)
def test_what_is_no_ready_llama_server_is_refused(engine, status, answer, location):
    engine.status, engine.body, engine.location = status, answer, location
    assert_error(client_of("operator").post(URL, body(engine.port), format="json"), 422, "probe_failed")
    assert len(engine.asked) == 1  # no redirect followed
    assert not Node.objects.exists()


def test_nobody_there(engine):
    closed = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    port = closed.server_address[1]
    closed.server_close()
    error = assert_error(client_of("operator").post(URL, body(port), format="json"), 422, "probe_failed")
    assert "Errno" not in error["message"]


def test_a_taken_id_is_refused(engine):
    services.join("worker-1", "10.0.0.2", 8081)
    assert_error(client_of("operator").post(URL, body(engine.port), format="json"), 409, "node_exists")
    master = services.register_this_machine()
    taken = body(engine.port, id=master.name)
    assert_error(client_of("operator").post(URL, taken, format="json"), 409, "node_exists")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "a/b"}, "id"),
        ({"id": ""}, "id"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"port": "x"}, "port"),
        ({"role": "master"}, "role"),
        ({"extra": 1}, "extra"),
        ({"host": None}, "host"),
    ],
)
def test_wrong_bodies_name_the_field(change, field):
    error = assert_error(client_of("operator").post(URL, body(80) | change, format="json"), 400, "invalid_request")
    assert list(error["details"]) == [field]


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"\xff\xfe", b"{", json.dumps("text").encode()])
def test_other_bodies_are_errors_not_tracebacks(raw):
    response = client_of("operator").generic("POST", URL, raw, content_type="application/json")
    assert_error(response, 400, "invalid_request")


@pytest.mark.django_db(transaction=True)
async def test_joined_machines_are_watched(engine):
    from asgiref.sync import sync_to_async

    create = sync_to_async(Node.objects.create)
    await create(name="here", host="127.0.0.1", port=engine.port)
    await create(name="gone", host="127.0.0.1", port=1)
    await probe.check_joined_nodes()
    nodes = await sync_to_async(lambda: dict(Node.objects.values_list("name", "last_seen")))()
    assert nodes["here"] is not None
    assert nodes["gone"] is None
