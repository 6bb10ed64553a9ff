"""/healthz and /readyz, and what a wrong page says."""

from __future__ import annotations

import os

import pytest
from django.db import OperationalError, connection
from django.test import Client, RequestFactory
from django.urls import path

from llmplatform import urls, views
from llmplatform.lib import process_identity


def fail(request):
    raise RuntimeError("a secret of ours: /etc/passwd")


urlpatterns = [*urls.urlpatterns, path("api/v1/fail", fail), path("fail", fail)]
handler400, handler403, handler404, handler500 = urls.handler400, urls.handler403, urls.handler404, urls.handler500


@pytest.fixture
def supervisor(settings, tmp_path):
    """Writes down which process is the supervisor."""
    settings.RUN_DIR = tmp_path

    def write(pid: int, started: float | None = None) -> None:
        begun = started or process_identity.started_at(pid)
        (tmp_path / "supervisor.json").write_text(f'{{"pid": {pid}, "started": {begun}}}')

    return write


def test_healthz_asks_nothing(client):
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}


@pytest.mark.django_db
def test_readyz_when_all_is_well(client, supervisor):
    supervisor(os.getpid())
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "database": True, "supervisor": True})


@pytest.mark.django_db
def test_readyz_names_a_supervisor_that_is_gone(client, supervisor):
    supervisor(os.getpid(), started=1.0)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["supervisor"] is False


@pytest.mark.django_db
def test_readyz_names_a_database_that_does_not_answer(client, supervisor, monkeypatch):
    supervisor(os.getpid())

    def cursor():
        raise OperationalError("gone")

    monkeypatch.setattr(connection, "cursor", cursor)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["database"] is False


@pytest.mark.urls("llmplatform.tests.test_health_pages")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "status", "code"), [("no-such", 404, "not_found"), ("fail", 500, "internal_error")]
)
def test_wrong_addresses_and_errors(address, status, code):
    client = Client(raise_request_exception=False)
    program = client.get(f"/api/v1/{address}")
    assert program.status_code == status
    assert program.json()["error"]["code"] == code
    person = client.get(f"/{address}")
    assert person.status_code == status
    assert person["Content-Type"].startswith("text/html")
    for answer in (program, person):
        assert b"passwd" not in answer.content
        assert b"Traceback" not in answer.content


@pytest.mark.django_db
def test_a_form_from_elsewhere_is_told_so(rf: RequestFactory):
    program = views.csrf_failure(rf.post("/api/v1/keys"))
    assert (program.status_code, b"permission_denied" in program.content) == (403, True)
    assert views.csrf_failure(rf.post("/login")).status_code == 403
