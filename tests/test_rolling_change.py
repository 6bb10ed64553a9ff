"""New settings for a model that many are using: llama.cpp's real server, the OpenAI client, the whole service."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from tests.running_service import Service, running, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
MODEL = "smollm2-135m-instruct"
CLIENTS = 8


def streams(service: Service, token: str, over: threading.Event, begun: threading.Semaphore) -> list[str]:
    """One answer after the other until ``over``: how each ended."""
    client = openai.OpenAI(base_url=f"{service.base_url}/v1", api_key=token, max_retries=0, timeout=120)
    ends: list[str] = []
    while not over.is_set():
        try:
            answer = client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "Count from one to fifty."}],
                max_tokens=40,
                stream=True,
            )
            begun.release()
            last: str | None = None
            for event in answer:
                last = event.choices[0].finish_reason if event.choices else last
            ends.append(last or "cut")
        except openai.OpenAIError as error:
            ends.append(repr(error))
    return ends


def test_no_request_of_many_clients_notices_a_new_context_length(tmp_path: Path) -> None:
    with running(tmp_path, LOGIN_RATE="1000") as service, service.client() as operator:
        token, over, begun = service.token(), threading.Event(), threading.Semaphore(0)
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(streams, service, token, over, begun) for _ in range(CLIENTS)]
            try:
                assert begun.acquire(timeout=60)
                pids = {engine.pid for engine in service.engines()}
                answer = operator.patch(f"/api/v1/models/{MODEL}", json={"contextLength": 2048})
                assert answer.status_code == 200, answer.text
                wait_until_changed(service, pids)
            finally:
                over.set()
            ends = [end for client in clients for end in client.result()]
        assert len(ends) > CLIENTS
        assert set(ends) <= {"stop", "length"}, ends
        [entry] = operator.get("/api/v1/models").json()["models"]
        assert (entry["contextLength"], entry["state"], len(entry["running"])) == (2048, "ready", 1)


def wait_until_changed(service: Service, before: set[int]) -> None:
    """Until none of those engines runs and another one does."""

    def done() -> bool:
        now = {engine.pid for engine in service.engines()}
        return bool(now) and not now & before

    wait_for(done, "the new version alone", 120)
