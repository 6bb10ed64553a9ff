"""One file from a real HTTP server that does what servers do wrong."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from models_app.downloads import fetch as fetching
from models_app.downloads.fetch import RemoteFile, Timing, Watcher, fetch
from models_app.downloads.http import Source, credentials
from models_app.downloads.problems import Problem
from models_app.downloads.tests.conftest import TINY
from models_app.downloads.transport import new_client
from tests.running_service import wait_for

FAST = Timing(stall=30, first_wait=0.01, longest_wait=0.05, attempts=3)


class Get:
    """One file of the hub; ``seen`` and ``troubles`` are what was told meanwhile."""

    def __init__(self, hub, folder: Path, name: str = "tiny-q4_k_m.gguf") -> None:
        self.content = (hub.folder / TINY / name).read_bytes()
        self.url = f"{hub.url}/{TINY}/resolve/main/{name}"
        self.path = folder / "file.partial"
        self.token = ""
        self.size: int | None = len(self.content)
        self.sha256: str | None = hashlib.sha256(self.content).hexdigest()
        self.etag = ""
        self.timing = FAST
        self.seen: list[int] = []
        self.troubles: list[dict] = []

    async def run(self) -> str:
        async def progress(done: int) -> None:
            self.seen.append(done)

        async def trouble(reason: dict) -> None:
            self.troubles.append(reason)

        async def remember(etag: str, _length: int | None) -> None:
            self.etag = etag

        source = Source(self.url, "the file", self.token)
        watcher = Watcher(progress, trouble, etag=self.etag, remember=remember)
        async with new_client(self.timing.stall) as client:
            file = RemoteFile(source, "file", self.size, self.sha256)
            found = await fetch(client, file, self.path, watcher, self.timing)
        assert self.path.read_bytes() == self.content
        assert found == hashlib.sha256(self.content).hexdigest()
        return found

    async def fails(self) -> Problem:
        with pytest.raises(Problem) as caught:
            await self.run()
        return caught.value


@pytest.fixture
def get(hub, tmp_path) -> Get:
    return Get(hub, tmp_path)


async def test_a_file_comes_whole(get: Get):
    await get.run()
    assert get.seen[-1] == len(get.content)
    assert not get.troubles


async def test_a_line_that_breaks_again_and_again_goes_on_where_it_broke(hub, get: Get):
    hub.fault(cut=400_000)
    await get.run()
    ranges = [one.get("range") for one in hub.files_asked()]
    assert ranges[0] is None
    assert ranges[1] == "bytes=400000-"
    assert len(ranges) == -(-len(get.content) // 400_000)
    assert get.troubles[0]["params"]["reason"]["code"] in {"cut", "unreachable"}


async def test_what_an_earlier_try_left_is_not_fetched_again(hub, get: Get):
    get.path.write_bytes(get.content[:1_000_000])
    await get.run()
    assert [one["range"] for one in hub.files_asked()] == ["bytes=1000000-"]


async def test_without_a_hash_the_etag_decides(hub, get: Get):
    get.size = get.sha256 = None
    await get.run()
    get.path.write_bytes(get.content[:1_000_000])
    hub.fault()
    await get.run()
    assert hub.files_asked()[0]["if-range"] == get.etag
    # Another file meanwhile: from the beginning.
    get.path.write_bytes(b"GGUF" + b"0" * 1_000_000)
    get.etag = '"of-another"'
    await get.run()
    # Nobody knows what it is: from the beginning.
    get.path.write_bytes(b"GGUF" + b"0" * 1_000_000)
    get.etag = ""
    hub.fault()
    await get.run()
    assert "range" not in hub.files_asked()[0]


async def test_a_server_that_cannot_go_on_in_the_middle_begins_anew(hub, get: Get):
    get.path.write_bytes(get.content[:1_000_000])
    hub.fault(ranges=False)
    await get.run()


async def test_more_here_than_there(hub, get: Get):
    get.size = None
    get.path.write_bytes(get.content + b"more")
    await get.run()  # 416, then from the beginning


async def test_silence_is_noticed(hub, get: Get):
    get.timing = replace(FAST, stall=0.4)
    hub.fault(stall=1)
    assert (await get.fails()).code == "stalled"
    hub.fault(stall=1_500_000)
    await get.run()
    assert [trouble["params"]["reason"]["code"] for trouble in get.troubles[-1:]] == ["stalled"]


async def test_a_wrong_hash_is_tried_once_more_in_one_go(hub, get: Get):
    get.path.write_bytes(b"GGUF" + b"0" * 1000)  # of what nobody knows
    await get.run()
    hub.fault(damage=True)
    get.path.unlink()
    problem = await get.fails()
    assert problem.code == "wrong_hash"
    assert not get.path.exists()


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ({"html": True}, "not_a_model"),
        ({"status": 401}, "gated"),
        ({"status": 403}, "gated"),
        ({"status": 404}, "not_found"),
        ({"status": 410}, "refused"),
        ({"status": 500}, "server_error"),
        ({"status": 429, "retry_after": "0"}, "busy"),
        ({"extra": 10}, "wrong_length"),
        ({"length": -10}, "wrong_length"),
        ({"length": 10}, "wrong_length"),
        ({"redirect": "file:///etc/passwd"}, "url_not_understood"),
        ({"redirect": "http://169.254.169.254/latest"}, "host_not_allowed"),
        ({"redirect": "https://evil.example/x.gguf"}, "host_not_allowed"),
        ({"redirect": "http://huggingface.co/x.gguf"}, "url_not_https"),
        ({"redirect": "/round/and/round"}, "too_many_redirects"),
    ],
)
async def test_what_ends_a_download(hub, get: Get, faults: dict, code: str):
    hub.fault(**faults)
    problem = await get.fails()
    assert problem.code == code
    assert not get.path.exists() or get.path.stat().st_size <= len(get.content)


async def test_too_many_requests_are_waited_out(hub, get: Get):
    hub.fault(status=429, retry_after="0", times=2)
    await get.run()
    assert [trouble["params"]["reason"]["code"] for trouble in get.troubles] == ["busy", "busy"]


async def test_a_token_goes_to_its_own_host_only(hub, get: Get, settings, running_hub):
    get.token = "hf_secret"
    hub.fault(token="hf_secret")
    await get.run()
    get.path.unlink()
    settings.MODEL_HOSTS = [f"http://localhost:{hub.port}"]
    hub.fault(redirect=f"http://localhost:{hub.port}/{TINY}/resolve/moved/tiny-q4_k_m.gguf")
    await get.run()
    first, second = hub.files_asked()
    assert first["authorization"] == "Bearer hf_secret"
    assert "authorization" not in second


def test_modelscope_knows_a_token_as_a_cookie_too():
    assert credentials(Source("", "", "ms-1", "MODELSCOPE_API_TOKEN")) == {
        "Authorization": "Bearer ms-1",
        "Cookie": "m_session_id=ms-1",
    }


async def test_a_file_that_is_no_gguf_is_not_fetched_to_its_end(hub, get: Get):
    (hub.folder / TINY / "big.gguf").write_bytes(b"PK" + b"0" * 5_000_000)
    try:
        other = Get(hub, get.path.parent, "big.gguf")
        assert (await other.fails()).code == "not_a_model"
        assert not other.path.exists() or other.path.stat().st_size == 0
    finally:
        (hub.folder / TINY / "big.gguf").unlink()


async def test_a_disk_that_is_too_small_is_told_before(get: Get, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: namedtuple("U", "free")(fetching.DISK_RESERVE + 1000))
    problem = await get.fails()
    assert problem.code == "disk_full"
    assert problem.params["needed"] == fetching.DISK_RESERVE + len(get.content)


async def test_a_disk_that_fills_up_meanwhile(get: Get, monkeypatch):
    monkeypatch.setattr(fetching, "DISK_LOOK", 500_000)
    free = iter([10**12, 10**12, 0, 0])
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: namedtuple("U", "free")(next(free)))
    assert (await get.fails()).code == "disk_full"
    assert 0 < get.path.stat().st_size < len(get.content)


async def test_cancelling_keeps_what_came(hub, get: Get):
    hub.fault(stall=1_200_000)  # what is written at once is a megabyte
    task = asyncio.create_task(get.run())
    await asyncio.to_thread(wait_for, lambda: get.path.exists() and get.path.stat().st_size, "the first bytes")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 0 < get.path.stat().st_size < len(get.content)
    assert get.content.startswith(get.path.read_bytes())
