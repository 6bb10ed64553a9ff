from __future__ import annotations

import json

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from cluster import log_following
from models_app.models import ModelConfig
from models_app.process import log_path
from tests.api_callers import assert_error, client_of, forbidden_below, statuses, token_of

NAME = "qwen2.5:7b"
URL = f"/api/v1/models/{NAME}/logs"


pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def folder(settings, tmp_path, transactional_db):
    settings.LOG_DIR = tmp_path
    ModelConfig.objects.create(name=NAME, file="q.gguf")
    log_path(NAME, 1).parent.mkdir()


def test_only_operators():
    assert statuses("get", URL) == {**forbidden_below("operator"), "operator": 200, "admin": 200}


def test_the_last_lines_of_each_replica_and_of_no_other_model():
    log_path(NAME, 1).write_text("".join(f"line {number}\n" for number in range(3000)))
    log_path(NAME, 2).write_bytes(b"\x1b[32mgreen\x1b[0m\r\nlast\n")
    log_path(f"{NAME}-1", 1).write_text("somebody else's\n")
    client = client_of("operator")
    assert client.get(URL, {"lines": 2}).json()["logs"] == [
        {"replica": 1, "lines": ["line 2998", "line 2999"]},
        {"replica": 2, "lines": ["green", "last"]},
    ]
    assert client.get(URL, {"replica": 2}).json()["logs"] == [{"replica": 2, "lines": ["green", "last"]}]


def test_keys_in_a_log_are_not_shown():
    log_path(NAME, 1).write_text("srv: api_key: abcdef0123456789\n")
    assert "abcdef0123456789" not in json.dumps(client_of("operator").get(URL).json())


def test_no_log_yet():
    assert client_of("operator").get(URL).json() == {"logs": []}


def test_an_unknown_model():
    assert_error(client_of("operator").get("/api/v1/models/..%2F..%2Fllm-app/logs"), 404, "not_found")
    assert_error(client_of("operator").get("/api/v1/models/nobody/logs"), 404, "model_not_found")


@pytest.mark.parametrize("query", [{"lines": 0}, {"lines": 5001}, {"replica": -1}, {"replica": "x"}, {"name": "x"}])
def test_wrong_queries_name_the_field(query):
    error = assert_error(client_of("operator").get(URL, query), 400, "invalid_request")
    assert list(error["details"]) == list(query)


async def test_following(monkeypatch, settings):
    monkeypatch.setattr(log_following, "POLL_SECONDS", 0.01)
    log_path(NAME, 1).write_text("one\ntwo\n")
    token = await sync_to_async(token_of)("operator")
    response = await AsyncClient().get(f"{URL}?follow=1&lines=1", headers={"Authorization": f"Bearer {token}"})
    events = aiter(response)
    assert b'data: {"replica": 1, "line": "two"}' in await anext(events)
    with log_path(NAME, 1).open("a") as stream:
        stream.write("three\n")
    assert await anext(events) == b'data: {"replica": 1, "line": "three"}\n\n'
    response.close()
