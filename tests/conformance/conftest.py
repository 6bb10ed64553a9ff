"""One service with four models, and a way to ask the gateway and the model's own llama-server the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from models_app.tests.random_models import EMBEDDER, FILLER, RERANKER, random_model
from tests.running_service import Service, put_starter_model, running, wait_for

STARTER = "SmolLM2-135M-Instruct.Q4_1.gguf"
# As those of models that call tools.
CALLS = """
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}Tools:{% for tool in tools %}
{{ tool | tojson }}{% endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% elif message.role == 'assistant' %}<|im_start|>assistant
THOUGHTS{{ message.content or '' }}{% for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% elif not (loop.first and message.role == 'system') %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
BEGINNING{% endif %}"""
# And as those of models that think. What a model with random weights says is all one thought.
THOUGHTS = """{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}"""
BEGINNING = """{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% else %}<think>
{% endif %}"""
WHERE = """
import json
from models_app.selectors import serving_snapshot
views = serving_snapshot().values()
print("WHERE", json.dumps({view.name: [[one.base_url, one.api_key] for one in view.replicas] for view in views}))
"""


WORKS_ON_NOTHING = "\nllamacpp:requests_processing 0\n"


@dataclass
class Both:
    """The gateway, and each model's llama-server."""

    gateway: httpx.Client
    engines: dict[str, httpx.Client]

    def wait_until_idle(self, model: str) -> None:
        """An engine that has sent the last byte of a stream may have its slot busy for a moment yet: another request would get
        another slot, in whose cache there is something else."""
        wait_for(lambda: WORKS_ON_NOTHING in self.engines[model].get("/metrics").text, "an engine without work")

    def close(self) -> None:
        for client in (self.gateway, *self.engines.values()):
            client.close()


def write_models(service_home) -> None:
    models = service_home / "models"
    put_starter_model(models)
    for name, shape in (("tiny", FILLER), ("embedder", EMBEDDER), ("reranker", RERANKER)):
        shutil.copyfile(random_model(shape), models / f"{name}.gguf")
    calling = CALLS.replace("THOUGHTS", "").replace("BEGINNING", "")
    thinking = CALLS.replace("THOUGHTS", THOUGHTS).replace("BEGINNING", BEGINNING)
    small = {"contextLength": 512, "slots": 1}
    entries = [
        {"modelName": "real", "modelFile": STARTER, "contextLength": 1024, "slots": 1, "chatTemplate": calling},
        {"modelName": "tiny", "modelFile": "tiny.gguf", "contextLength": 2048, "slots": 2, "chatTemplate": thinking},
        {"modelName": "embedder", "modelFile": "embedder.gguf", "embeddings": True, **small},
        {"modelName": "reranker", "modelFile": "reranker.gguf", "rerank": True, **small},
    ]
    (models / "model_config.json").write_text(json.dumps({"models": entries}))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("conformance") / "home"
    write_models(home)
    with running(home, starter=False) as service:
        for name in ("real", "tiny", "embedder", "reranker"):
            wait_for(lambda name=name: service.model_is_ready(name), name, 120)
        yield service


@pytest.fixture(scope="module")
def both(service: Service) -> Iterator[Both]:
    told = service.command("shell", "-c", WHERE).stdout
    [where] = [json.loads(line.removeprefix("WHERE ")) for line in told.splitlines() if line.startswith("WHERE ")]
    engines = {}
    limits = httpx.Limits(max_keepalive_connections=0)  # it closes a kept connection whenever it likes
    for name, [[url, key]] in where.items():
        headers = {"Authorization": f"Bearer {key}"}
        engines[name] = httpx.Client(base_url=url, headers=headers, timeout=60, limits=limits)
    asked = Both(service.client(), engines)
    yield asked
    asked.close()
