"""Pictures in a conversation: llama.cpp's real server with a projector, the official clients, the whole service."""

from __future__ import annotations

import base64
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import anthropic
import openai
import pytest

from models_app.tests.random_models import random_projector
from tests.running_service import Service, put_starter_model, running

pytestmark = pytest.mark.e2e
STARTER = "SmolLM2-135M-Instruct.Q4_1.gguf"
WIDTH = 576  # its embedding length
WORDS = {"type": "text", "text": "What do you see?"}


def picture(side: int = 20) -> str:
    """A red square as PNG, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    lines = zlib.compress((b"\0" + b"\xff\0\0" * side) * side)
    return base64.b64encode(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    ).decode()


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("pictures") / "home"
    put_starter_model(home / "models")
    random_projector(home / "models" / "eyes-mmproj.gguf", WIDTH)
    entry = {"modelName": "seeing", "modelFile": STARTER, "mmprojFile": "eyes-mmproj.gguf", "contextLength": 1024}
    (home / "models" / "model_config.json").write_text(json.dumps({"models": [entry]}))
    with running(home, starter=False) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.base_url}/v1", api_key=service.token(), max_retries=0)


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A web server with a picture, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(base64.b64decode(picture()))

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/picture.png", asked
        server.shutdown()


def test_a_picture_is_read_and_counted(client: openai.OpenAI) -> None:
    usage = []
    for parts in ([WORDS], [WORDS, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture()}"}}]):
        answer = client.chat.completions.create(
            model="seeing", messages=[{"role": "user", "content": parts}], max_tokens=5
        )
        assert answer.usage is not None
        usage.append(answer.usage.prompt_tokens)
    assert usage[1] > usage[0]


def test_a_picture_in_anthropics_form(service: Service) -> None:
    client = anthropic.Anthropic(base_url=service.base_url, api_key=service.token(), max_retries=0)
    source = {"type": "base64", "media_type": "image/png", "data": picture()}
    parts = [WORDS, {"type": "image", "source": source}]
    message = client.messages.create(model="seeing", max_tokens=5, messages=[{"role": "user", "content": parts}])
    assert message.usage.output_tokens >= 1


def test_no_engine_fetches_a_picture(client: openai.OpenAI, elsewhere: tuple[str, list[str]]) -> None:
    address, asked = elsewhere
    parts = [WORDS, {"type": "image_url", "image_url": {"url": address}}]
    with pytest.raises(openai.BadRequestError, match="must come with the request"):
        client.chat.completions.create(model="seeing", messages=[{"role": "user", "content": parts}])
    with pytest.raises(openai.BadRequestError, match="must come with the request"):
        client.responses.create(
            model="seeing",
            input=[{"role": "user", "content": [{"type": "input_image", "image_url": address, "detail": "auto"}]}],
        )
    assert asked == []


def test_what_is_no_picture_is_the_clients_fault(client: openai.OpenAI) -> None:
    parts = [WORDS, {"type": "image_url", "image_url": {"url": "data:image/png;base64,bm8gcGljdHVyZQ=="}}]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="seeing", messages=[{"role": "user", "content": parts}])
