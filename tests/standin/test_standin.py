"""The stand-in answers as llama-server does and misbehaves as told, otherwise tests on top of it prove nothing."""

import json

import httpx
import pytest

from tests import standin

CHAT = {"messages": [{"role": "user", "content": "hello there"}]}


def chat(server: standin.StandIn, **fields) -> httpx.Response:
    return httpx.post(
        server.base_url + "/v1/chat/completions", headers=server.headers, json={**CHAT, **fields}, timeout=10
    )


def events(text: str) -> list:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def test_answers_as_the_real_one():
    with standin.start(model="m", slots=2, context=100) as server:
        assert httpx.get(server.base_url + "/health").json() == {"status": "ok"}
        assert httpx.get(server.base_url + "/v1/models").status_code == 401
        answer = chat(server, max_tokens=3).json()
        assert answer["choices"][0] == {
            "finish_reason": "length",
            "index": 0,
            "message": {"role": "assistant", "content": "word0 word1 word2 "},
        }
        assert answer["usage"]["completion_tokens"] == answer["timings"]["predicted_n"] == 3
        too_long = chat(server, messages=[{"role": "user", "content": "x " * 200}])
        assert too_long.status_code == 400
        assert too_long.json()["error"]["type"] == "exceed_context_size_error"
        assert [entry["state"] for entry in server.requests_seen()] == ["done"]


def test_streams_with_usage_at_the_end():
    with standin.start(chunks=64, reasoning="let me think") as server:
        answer = chat(server, stream=True, stream_options={"include_usage": True})
        chunks = events(answer.text)
        assert len(chunks) == 1 + 3 + 64 + 2
        assert chunks[-1]["usage"]["completion_tokens"] == 64
        assert answer.text.endswith("data: [DONE]\n\n")


def test_cut_in_the_middle_and_client_gone():
    with standin.start(cut_after=2) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            chat(server, stream=True)
        assert server.wait_for(lambda seen: seen[0]["state"] == "closed")[0]["deltas"] == 2
        server.switch(cut_after=None, token_seconds=0.05, chunks=1000)
        with httpx.stream(
            "POST", server.base_url + "/v1/chat/completions", headers=server.headers, json={**CHAT, "stream": True}
        ) as answer:
            next(answer.iter_bytes())
        assert server.wait_for(lambda seen: seen[1]["state"] == "closed")[1]["deltas"] < 1000


def test_crash_errors_and_loading():
    with standin.start(error_status=503, error_times=1, crash_after_deltas=1) as server:
        assert chat(server).status_code == 503
        assert chat(server).status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            chat(server, stream=True)
        assert server.process.wait(10) == 134
    with standin.start(never_healthy=True) as server:
        assert httpx.get(server.base_url + "/health").status_code == 503


def test_embeddings_only_when_asked():
    with standin.start(embeddings=True) as server, standin.start() as other:
        body = {"input": ["a", "b"]}
        vectors = httpx.post(server.base_url + "/v1/embeddings", headers=server.headers, json=body).json()
        assert [row["index"] for row in vectors["data"]] == [0, 1]
        assert httpx.post(other.base_url + "/v1/embeddings", headers=other.headers, json=body).status_code == 501
