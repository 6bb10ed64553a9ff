"""Settings for speed, memory and other kinds of models, as llama.cpp's own server takes them: each has the effect it names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import psutil
import pytest
from django.conf import settings as project

from models_app import health, process, services
from models_app.launchers.local import LocalLauncher
from models_app.preparation import Circumstances, NotStartable, prepare
from models_app.selectors import wanted_models
from models_app.tests.random_models import EMBEDDER, RERANKER, random_model
from tests.running_service import put_starter_model

pytestmark = [pytest.mark.e2e, pytest.mark.django_db]
REPEATING = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, " * 8
MIB = 1024 * 1024
BUSY_SECONDS = 0.05  # five of the ticks by which Linux counts; threads that only wait use none
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


class Asked:
    """A running engine."""

    def __init__(self, base_url: str, key: str, log: Path, pid: int) -> None:
        self.process = psutil.Process(pid)
        self.client = httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        self.log = log

    def post(self, path: str, **body: Any) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def resident(self) -> int:
        """Bytes."""
        return int(self.process.memory_info().rss)

    def busy_threads(self, **body: Any) -> int:
        """How many threads the engine shares a request's computation among."""
        before = {thread.id: thread.user_time for thread in self.process.threads()}
        self.post("/completion", **body)
        spent = [thread.user_time - before.get(thread.id, 0) for thread in self.process.threads()]
        return sum(one > BUSY_SECONDS for one in spent)

    def completes(self) -> str:
        return str(
            self.post("/completion", prompt="One two three one two three one", n_predict=12, temperature=0)["content"]
        )


@contextmanager
def engine(home: Path, **fields: Any) -> Iterator[Asked]:
    """The engine of a model with those settings, as the supervisor would start it."""
    put_starter_model(project.MODELS_PATH)
    services.create_model({"name": "m", "file": FILE, "context_length": 512, "slots": 1, **fields})
    [model] = wanted_models()
    prepared = prepare(model.wanted, Circumstances())
    nonce, log = process.new_nonce(), home / "engine.log"
    started = LocalLauncher().start(model.wanted, prepared.chosen, 1, nonce, log)
    asked = Asked(f"http://127.0.0.1:{prepared.chosen.port}", process.engine_key(nonce), log, started.process.pid)
    try:
        until_healthy(asked, started.process)
        yield asked
    finally:
        started.process.end()


def until_healthy(asked: Asked, running: process.EngineProcess) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert running.poll() is None, asked.log.read_text()
        assert time.monotonic() < deadline, asked.log.read_text()
        try:
            if asked.client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)


def test_the_context_in_fewer_bits_takes_less_memory(home):
    """8,192 tokens of this model take 180 MiB in 16 bits, 96 MiB in 8 and 51 MiB in 4."""
    taken = {}
    for cache_type in ("f16", "q8_0", "q4_0"):
        with engine(home, context_length=8192, cache_type=cache_type) as asked:
            assert asked.completes()
            taken[cache_type] = asked.resident()
        services.delete_model("m")
    assert taken["f16"] - taken["q8_0"] > 60 * MIB
    assert taken["q8_0"] - taken["q4_0"] > 25 * MIB


def test_more_prompt_tokens_at_once_take_more_memory(home):
    """Asked for at the start; taken when a prompt is as long."""
    asked_for = []
    for ubatch in (32, 2048):
        with engine(home, context_length=4096, ubatch=ubatch, flash_attention="on") as asked:
            assert asked.completes()
            asked_for.append(asked.process.memory_info().data)
        services.delete_model("m")
    assert asked_for[1] - asked_for[0] > 40 * MIB


def test_prompts_have_threads_of_their_own(home):
    with engine(home, context_length=4096, threads=1, batch_threads=2) as asked:
        reading = asked.busy_threads(prompt="one two " * 200, n_predict=1)
        writing = asked.busy_threads(prompt="one", n_predict=200, ignore_eos=True)
        assert (reading, writing) == (2, 1)


def test_no_prompt_cache(home):
    with engine(home, prompt_cache=0) as asked:
        assert asked.completes()
        assert "requires --cache-ram, disabling" in asked.log.read_text()


@pytest.mark.parametrize(
    "fields", [{"speculative": "ngram"}, {"speculative": "draft", "draft_file": FILE}], ids=["ngram", "draft"]
)
def test_guessing_ahead_changes_the_speed_and_not_the_answer(home, fields):
    with engine(home, **fields) as asked:
        guessed = asked.completes()
        assert asked.post("/completion", prompt=REPEATING, n_predict=24, temperature=0, ignore_eos=True)["timings"][
            "draft_n"
        ]
    services.delete_model("m")
    with engine(home) as asked:
        assert asked.completes() == guessed


def test_an_own_chat_template(home):
    template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    with engine(home, chat_template=template) as asked:
        prompt = asked.post("/apply-template", messages=[{"role": "user", "content": "Hello"}])["prompt"]
        assert prompt == "<user>Hello"


async def probe(asked: Asked, kind: str) -> None:
    key = asked.client.headers["Authorization"].removeprefix("Bearer ")
    async with health.new_client() as client:
        await health.generate_token(client, str(asked.client.base_url).rstrip("/"), key, kind, 30)


def test_vectors_with_slots_that_share_no_batch_evenly(home):
    project.MODELS_PATH.joinpath("small.gguf").hardlink_to(random_model(EMBEDDER))
    with engine(home, file="small.gguf", embeddings=True, slots=3, context_length=128) as asked:
        made = asked.post("/v1/embeddings", input=["token7", " ".join(["token8"] * 120)])
        assert len(made["data"]) == 2


def test_a_vector_does_not_depend_on_what_is_read_beside_it(home):
    texts = ["The cat sleeps on the sofa.", "A kitten naps.", "Interest rates were raised in March."]
    with engine(home, embeddings=True, slots=2, context_length=256) as asked:
        together = [one["embedding"] for one in asked.post("/v1/embeddings", input=texts)["data"]]
        alone = [asked.post("/v1/embeddings", input=text)["data"][0]["embedding"] for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert sum(a * b for a, b in zip(one, other, strict=True)) > 0.99


def test_a_reranking_model(home):
    """Also that the question with which the supervisor tells whether it is ready is one that it answers."""
    project.MODELS_PATH.joinpath("judge.gguf").hardlink_to(random_model(RERANKER))
    with engine(home, file="judge.gguf", rerank=True) as asked:
        asyncio.run(probe(asked, "rerank"))
        scored = asked.post("/v1/rerank", query="token7", documents=["token7", "token8 token9"])
        assert sorted(one["index"] for one in scored["results"]) == [0, 1]
        with pytest.raises(health.NoToken):
            asyncio.run(probe(asked, "chat"))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_an_adapter(home, scale):
    make_adapter(project.MODELS_PATH / "style.gguf")
    with engine(home, lora=[{"file": "style.gguf", "scale": scale}]) as asked:
        [adapter] = asked.client.get("/lora-adapters").json()
        assert adapter["path"].endswith("style.gguf")
        assert adapter["scale"] == scale
        assert asked.completes()


def make_adapter(path: Path) -> None:
    """Of rank 2 for one matrix of the starter model (576 wide)."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    for part, shape in (("lora_a", (2, 576)), ("lora_b", (576, 2))):
        writer.add_tensor(f"blk.0.attn_q.weight.{part}", np.full(shape, 0.01, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("fields", [{"mmproj_file": "no.gguf"}, {"speculative": "draft", "draft_file": "no.gguf"}])
def test_a_second_file_that_is_not_there_is_named_before_anything_starts(home, fields):
    put_starter_model(project.MODELS_PATH)
    services.create_model({"name": "m", "file": FILE, **fields})
    [model] = wanted_models()
    with pytest.raises(NotStartable) as refused:
        prepare(model.wanted, Circumstances())
    assert refused.value.reason["code"] == "file_missing"
    assert refused.value.reason["params"]["file"] == "no.gguf"
