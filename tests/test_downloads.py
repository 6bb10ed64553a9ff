"""Getting models with everything real: the service, its supervisor, a hub over HTTP, and a model that answers in the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from models_app.tests.gguf_files import make_gguf
from tests import model_hub
from tests.running_service import Service, running, starter_cache, wait_for

pytestmark = pytest.mark.e2e
REPOSITORY = "tests/tiny-GGUF"
PIECE = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[model_hub.Hub]:
    folder: Path = tmp_path_factory.mktemp("hub")
    make_gguf(folder / REPOSITORY / "tiny-q4_k_m.gguf", layers=3000)  # 12 MB
    with model_hub.running(folder) as hub:
        yield hub


@pytest.fixture(scope="module")
def service(hub, tmp_path_factory) -> Iterator[Service]:
    with running(
        tmp_path_factory.mktemp("home"), starter=False, HF_ENDPOINT=hub.url, MODEL_HUB="huggingface"
    ) as service:
        yield service


def test_a_download_outlives_its_supervisor(service: Service, hub: model_hub.Hub):
    hub.fault(slow=0.05)
    with service.client() as client:
        made = client.post("/api/v1/downloads", json={"source": REPOSITORY}).json()
        partial = service.home / "models" / ".downloads" / str(made["id"]) / "tiny-q4_k_m.gguf.partial"
        wait_for(lambda: partial.exists() and partial.stat().st_size > 2_000_000, "the first bytes")
        killed = service.pids()["supervisor"]
        os.kill(killed, signal.SIGKILL)
        hub.fault()
        wait_for(lambda: client.get(f"/api/v1/downloads/{made['id']}").json()["state"] == "done", "its end", 60)
    assert service.pids()["supervisor"] != killed
    assert int(hub.files_asked()[0]["range"].removeprefix("bytes=").removesuffix("-")) > 2_000_000
    original = hub.folder / REPOSITORY / "tiny-q4_k_m.gguf"
    assert (service.home / "models" / "tiny-q4_k_m.gguf").read_bytes() == original.read_bytes()
    assert not partial.parent.exists()
    followed = service.command("pullmodel", REPOSITORY)  # the supervisor does it, and sees that it is there
    assert (followed.returncode, followed.stdout.splitlines()[-1][: len(REPOSITORY) + 6]) == (
        0,
        f"{REPOSITORY}  done",
    ), followed.stderr


def test_an_uploaded_model_answers(service: Service):
    """In pieces within the limit of a body, through the web server; then checked, added, started."""
    file = next(starter_cache().glob("*.gguf"))
    with service.client() as client, file.open("rb") as stream:
        body = {"fileName": "mine.gguf", "size": file.stat().st_size}
        upload = client.post("/api/v1/uploads", json=body).json()
        assert upload["chunkSize"] == PIECE
        offset = 0
        while piece := stream.read(PIECE):
            answer = client.put(f"/api/v1/uploads/{upload['id']}", params={"offset": offset}, content=piece)
            assert answer.status_code == 200, answer.text
            offset = answer.json()["offset"]
        made = client.post(f"/api/v1/uploads/{upload['id']}/finish", json={"modelName": "mine"}).json()
        wait_for(lambda: client.get(f"/api/v1/downloads/{made['id']}").json()["state"] == "done", "the check", 60)
    wait_for(lambda: service.model_is_ready("mine"), "the model", 60)
    with service.client() as client:
        body = {"model": "mine", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
        assert client.post("/v1/chat/completions", json=body).json()["usage"]["completion_tokens"] >= 1
