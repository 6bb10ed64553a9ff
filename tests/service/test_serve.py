"""``manage.py serve`` with real children and a real model."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.e2e


def test_a_started_service_is_ready_and_answers(service):
    assert service.is_ready()
    assert service.model_is_ready()
    body = {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 8,
    }
    with service.client() as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
