"""Downloads, the catalogue and uploads over the API; a worker in this process does what the supervisor would."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError
from rest_framework.test import APIClient

from accounts.models import User
from models_app.downloads import catalogue, staging, uploads
from models_app.downloads.fetch import Timing
from models_app.downloads.models import Download
from models_app.downloads.tests.conftest import TINY
from models_app.downloads.worker import Worker
from models_app.models import ModelConfig
from models_app.tests.gguf_files import make_gguf

pytestmark = pytest.mark.django_db(transaction=True)
DOWNLOADS, UPLOADS = "/api/v1/downloads", "/api/v1/uploads"
FAST = Timing(stall=30, first_wait=0.01, longest_wait=0.05, attempts=3)


@pytest.fixture
def operator(home) -> APIClient:
    client = APIClient()
    client.force_authenticate(User.objects.create(username="olga", email="o@example.com", is_staff=True))
    return client


def work() -> None:
    """Until every download has ended."""
    asyncio.run(_work())


async def _work() -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(Worker(FAST).run(stop))
    end = time.monotonic() + 30
    while await sync_to_async(_any_open)():  # in the worker's own thread, for SQLite in memory knows no waiting
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    stop.set()
    await task


def _any_open() -> bool:
    return any(one.is_open for one in Download.objects.all())


def pull(operator: APIClient, source: str, **more: str) -> dict:
    answer = operator.post(DOWNLOADS, {"source": source, **more}, format="json")
    assert answer.status_code in {200, 201}, answer.json()
    return answer.json()


def now(operator: APIClient, number: int) -> dict:
    return operator.get(f"{DOWNLOADS}/{number}").json()


def test_a_download_makes_a_file_and_a_model(operator, hub, settings):
    made = pull(operator, f"{TINY}:q8_0", modelName="tiny")
    assert (made["state"], made["hub"]) == ("waiting", None)
    work()
    end = now(operator, made["id"])
    assert (end["state"], end["licence"], end["fetched"]) == ("done", "apache-2.0", end["size"])
    assert (settings.MODELS_PATH / "tiny-q8_0.gguf").stat().st_size == end["size"]
    assert ModelConfig.objects.get(name="tiny").file == "tiny-q8_0.gguf"
    assert [one["id"] for one in operator.get(DOWNLOADS).json()["downloads"]] == [made["id"]]


def test_who_wants_the_same_shares_one_download(operator, hub):
    first, again = pull(operator, f"{TINY}:q8_0"), pull(operator, f"{TINY}:q8_0")
    assert first["id"] == again["id"]
    other = pull(operator, f"{TINY}:tiny-q8_0.gguf")  # by another name
    assert other["id"] != first["id"]
    work()
    assert {now(operator, one["id"])["state"] for one in (first, other)} == {"done"}
    assert len(hub.files_asked()) == 1


def test_cancel_and_retry(operator, hub, settings):
    hub.fault(status=403)
    made = pull(operator, f"{TINY}:q8_0")
    work()
    failed = now(operator, made["id"])
    assert (failed["state"], failed["code"]) == ("failed", "gated")
    assert "HF_TOKEN" in failed["reason"]
    hub.fault()
    assert operator.post(f"{DOWNLOADS}/{made['id']}/retry").status_code == 202
    assert operator.delete(f"{DOWNLOADS}/{made['id']}").json()["cancelled"]
    work()
    assert now(operator, made["id"])["state"] == "cancelled"
    assert list(settings.MODELS_PATH.glob("*.gguf")) == []
    assert operator.delete(f"{DOWNLOADS}/{made['id']}").status_code == 409
    operator.post(f"{DOWNLOADS}/{made['id']}/retry")
    work()
    assert now(operator, made["id"])["state"] == "done"
    assert operator.post(f"{DOWNLOADS}/{made['id']}/retry").status_code == 409
    assert operator.get(f"{DOWNLOADS}/999").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"source": "no repository"},
        {"source": "https://evil.example/x.gguf"},
        {"source": "http://127.0.0.1:1/x.gguf"},
        {"source": "file:///etc/passwd"},
        {"source": "a/../b"},
        {"source": "a/b", "hub": "elsewhere"},
        {"source": "a/b", "modelName": "../up"},
        {"source": "a/b", "more": "x"},
    ],
)
def test_what_is_refused_at_once(operator, body):
    assert operator.post(DOWNLOADS, body, format="json").status_code == 400
    assert not Download.objects.exists()


def test_a_taken_name_is_told_at_once_or_at_the_end(operator, hub):
    made = pull(operator, f"{TINY}:q8_0", modelName="tiny")
    ModelConfig.objects.create(name="tiny", file="other.gguf")
    assert operator.post(DOWNLOADS, {"source": "a/b", "modelName": "tiny"}, format="json").status_code == 409
    work()
    assert (now(operator, made["id"])["state"], now(operator, made["id"])["code"]) == ("done", "name_taken")


def test_the_other_hub_when_the_first_does_not_have_it(operator, hub, settings):
    settings.MODEL_HUB = "auto"
    settings.HF_ENDPOINT = "http://127.0.0.1:9"  # nobody there
    made = pull(operator, f"{TINY}:q8_0")
    work()
    assert now(operator, made["id"])["hub"] == "modelscope"


@pytest.mark.parametrize("name", ["huggingface", "modelscope"])
def test_both_hubs(operator, hub, name: str):
    made = pull(operator, f"{TINY}:q8_0", hub=name)
    work()
    end = now(operator, made["id"])
    assert (end["state"], end["hub"], end["files"]) == ("done", name, ["tiny-q8_0.gguf"])


def test_parts_come_and_appear_together(operator, hub, settings):
    folder = hub.folder / "tests" / "split-GGUF"
    names = ["split-00001-of-00002.gguf", "split-00002-of-00002.gguf"]
    whole = make_gguf(folder / names[0], layers=3)
    shutil.copy(whole, folder / names[1])
    for source in ("tests/split-GGUF", f"{hub.url}/tests/split-GGUF/{names[0]}"):
        made = pull(operator, source)
        work()
        assert now(operator, made["id"])["files"] == names
        assert sorted(path.name for path in settings.MODELS_PATH.glob("*.gguf")) == names
        for name in names:
            (settings.MODELS_PATH / name).unlink()
    (folder / names[1]).unlink()
    made = pull(operator, "tests/split-GGUF")
    work()
    assert now(operator, made["id"])["code"] == "part_missing"


def test_an_end_between_two_namings_leaves_nothing_half(operator, hub, settings, monkeypatch):
    folder = hub.folder / "tests" / "cut-GGUF"
    names = ["cut-00001-of-00002.gguf", "cut-00002-of-00002.gguf"]
    shutil.copy(make_gguf(folder / names[0], layers=3), folder / names[1])
    there, give = [], staging._name

    def name(source, target):
        there.append(sorted(path.name for path in settings.MODELS_PATH.glob("*.gguf")))
        if len(there) == 2:
            raise OperationalError("as if the process had ended here")
        give(source, target)

    monkeypatch.setattr(staging, "_name", name)
    made = pull(operator, "tests/cut-GGUF")
    work()
    assert there[0] == []
    assert all(one == names[1:] for one in there[1:])  # the first part, which models are made of, comes last
    assert now(operator, made["id"])["state"] == "done"
    assert sorted(path.name for path in settings.MODELS_PATH.glob("*.gguf")) == names
    assert len(hub.files_asked()) == 2


def broken(hub) -> str:
    folder = hub.folder / "tests" / "broken-GGUF"
    folder.mkdir(exist_ok=True)
    (folder / "broken.gguf").write_bytes((hub.folder / TINY / "tiny-q4_k_m.gguf").read_bytes()[:100_000])
    return "tests/broken-GGUF"


@pytest.mark.parametrize(
    ("source", "faults", "code"),
    [
        (TINY + ":q5_k_m", {}, "no_such_file"),
        ("tests/nothing-GGUF", {}, "not_found"),
        (TINY + ":q8_0", {"token": "secret"}, "gated"),
        (TINY + ":q8_0", {"html": True}, "not_a_model"),
        (TINY + ":q8_0", {"down": True}, "server_error"),
        ("", {}, "rejected"),
    ],
)
def test_what_is_told_when_it_does_not_go(operator, hub, settings, source: str, faults: dict, code: str):
    hub.fault(**faults)
    made = pull(operator, source or broken(hub))
    work()
    end = now(operator, made["id"])
    assert (end["state"], end["code"]) == ("failed", code)
    assert end["reason"]
    assert [path.name for path in settings.MODELS_PATH.iterdir() if path.name != ".downloads"] == []


def test_a_file_of_the_same_name_is_never_overwritten(operator, hub, settings):
    (settings.MODELS_PATH / "tiny-q8_0.gguf").write_bytes(b"mine")
    made = pull(operator, f"{TINY}:q8_0")
    work()
    assert now(operator, made["id"])["code"] == "file_exists"
    assert (settings.MODELS_PATH / "tiny-q8_0.gguf").read_bytes() == b"mine"


def test_an_upload_in_pieces(operator, hub, settings):
    content = (hub.folder / TINY / "tiny-q8_0.gguf").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    body = {"fileName": "mine.gguf", "size": len(content), "sha256": digest}
    upload = operator.post(UPLOADS, body, format="json").json()
    one = f"{UPLOADS}/{upload['id']}"

    def put(offset: int, piece: bytes):
        return operator.put(f"{one}?offset={offset}", piece, content_type="application/octet-stream")

    assert put(0, content[:5000]).json()["offset"] == 5000
    wrong = put(0, content[:5000])
    assert (wrong.status_code, wrong.json()["error"]["details"]) == (409, {"offset": 5000})
    assert operator.post(f"{one}/finish", {}, format="json").status_code == 409
    assert put(5000, content[5000:] + b"more").status_code == 413
    assert operator.get(one).json()["offset"] == 5000
    assert put(5000, content[5000:]).status_code == 200
    made = operator.post(f"{one}/finish", {"modelName": "mine"}, format="json")
    assert made.status_code == 202
    work()
    assert now(operator, made.json()["id"])["state"] == "done"
    assert (settings.MODELS_PATH / "mine.gguf").read_bytes() == content
    assert ModelConfig.objects.filter(name="mine").exists()
    assert operator.get(one).status_code == 404
    assert operator.post(UPLOADS, body, format="json").json()["error"]["code"] == "file_exists"


@pytest.mark.parametrize(
    ("content", "sha256", "code"), [(b"GGUFxx", "", "rejected"), (b"GGUFxx", "0" * 64, "wrong_hash")]
)
def test_an_upload_that_is_no_model(operator, hub, settings, content: bytes, sha256: str, code: str):
    upload = uploads.begin("bad.gguf", len(content), sha256)
    operator.put(f"{UPLOADS}/{upload.id}?offset=0", content, content_type="application/octet-stream")
    made = operator.post(f"{UPLOADS}/{upload.id}/finish", {}, format="json").json()
    work()
    assert (now(operator, made["id"])["state"], now(operator, made["id"])["code"]) == ("failed", code)
    assert [path.name for path in settings.MODELS_PATH.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "name",
    ["x-00001-of-00002.gguf", "../up.gguf", "a/b.gguf", "notes.txt", ".hidden.gguf", "x\u0000.gguf", "C:\\x.gguf"],
)
def test_names_of_uploads(operator, name: str):
    assert operator.post(UPLOADS, {"fileName": name, "size": 5}, format="json").status_code == 400


def test_an_upload_is_given_up(operator, home):
    upload = uploads.begin("mine.gguf", 5)
    assert operator.delete(f"{UPLOADS}/{upload.id}").status_code == 204
    assert operator.get(f"{UPLOADS}/{upload.id}").status_code == 404
    assert operator.get(f"{UPLOADS}/../../etc").status_code == 404


def test_the_catalogue(operator):
    models = operator.get("/api/v1/catalogue").json()["models"]
    assert len(models) >= 15
    assert {one["kind"] for one in models} == {"chat", "embedding", "rerank"}
    for one in models:
        assert one["file"].endswith(".gguf")
        assert len(one["sha256"]) == 64
        assert one["memoryNeeded"] > one["size"]


def test_what_fits_comes_first():
    offers = catalogue.offers(available=2 * 1024**3)
    fitting = [offer.fits for offer in offers]
    assert fitting == sorted(fitting, key=[True, None, False].index)
    assert set(fitting) == {True, None, False}
    assert next(offer for offer in offers if offer.entry.id == "qwen2.5-0.5b-instruct").fits
    assert not next(offer for offer in offers if offer.entry.id == "qwen3-8b").fits
