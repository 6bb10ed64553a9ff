"""Where models may be fetched from, in every spelling."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from models_app.downloads import addresses
from models_app.downloads.problems import Problem
from models_app.downloads.transport import GuardedTransport, new_client, proxy_for


@pytest.fixture(autouse=True)
def _as_installed(settings):
    settings.HF_ENDPOINT, settings.MODELSCOPE_ENDPOINT = "https://huggingface.co", "https://modelscope.cn"
    settings.MODEL_HOSTS = []


def code(url: str) -> str:
    with pytest.raises(Problem) as caught:
        addresses.check(url)
    return caught.value.code


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/a/b", "https://HuggingFace.co./a", "https://cas-bridge.xethub.hf.co/x?sig=1",
        "https://cdn-lfs-cn-1.modelscope.cn/x", "https://www.modelscope.cn/models/a/b",
    ],
)  # fmt: skip
def test_the_hubs_and_their_hosts_are_allowed(url: str):
    assert addresses.check(url).own is False


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://huggingface.co/a", "url_not_https"),
        ("https://evil.example/a", "host_not_allowed"),
        ("https://huggingface.co.evil.example/a", "host_not_allowed"),
        ("https://evilhuggingface.co/a", "host_not_allowed"),
        ("https://huggingface.co@evil.example/a", "url_with_user"),
        ("https://user:pass@huggingface.co/a", "url_with_user"),
        ("https://huggingface.co\\@evil.example/a", "url_not_understood"),
        ("https://huggingface.co\t.evil.example/", "url_not_understood"),
        ("file:///etc/passwd", "url_not_understood"),
        ("ftp://huggingface.co/a", "url_not_understood"),
        ("https:///a", "url_not_understood"),
        ("https://huggingface.co:99999/a", "url_not_understood"),
        ("https://127.0.0.1/a", "host_not_allowed"),
        ("https://2130706433/a", "host_not_allowed"),
        ("https://0177.0.0.1/a", "host_not_allowed"),
        ("https://[::ffff:127.0.0.1]/a", "host_not_allowed"),
        ("https://h\u00fcggingface.co/a", "url_not_understood"),
    ],
)
def test_what_is_refused(url: str, why: str):
    assert code(url) == why


def test_more_hosts_by_setting(settings):
    settings.MODEL_HOSTS = ["models.example", "*.files.example", "http://10.0.0.5:9000"]
    assert addresses.check("https://models.example/x").own is False
    assert addresses.check("https://eu.files.example/x").own is False
    assert addresses.check("http://10.0.0.5:9000/x").own is True
    assert code("https://sub.models.example/x") == "host_not_allowed"
    assert code("http://models.example/x") == "url_not_https"
    assert code("http://10.0.0.5:9001/x") == "host_not_allowed"
    assert code("https://10.0.0.5:9000/x") == "host_not_allowed"


@pytest.mark.parametrize(
    "spelling", ["127.0.0.1", "2130706433", "0177.0.0.1", "127.1", "0x7f.1", "[::1]", "[::ffff:10.0.0.1]"]
)
def test_a_private_address_is_refused_in_every_spelling_though_its_name_is_allowed(settings, spelling: str):
    settings.MODEL_HOSTS = [spelling.strip("[]")]
    place = addresses.check(f"https://{spelling}/x")
    with pytest.raises(Problem) as caught:
        asyncio.run(addresses.resolve(place))
    assert caught.value.code == "address_private"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("10.1.2.3", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("::", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("::ffff:192.168.1.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("no address", False),
    ],
)  # fmt: skip
def test_public_addresses(address: str, public: bool):
    assert addresses.is_public(address) is public


async def test_a_name_is_resolved_once_and_the_connection_goes_there(hub, settings, monkeypatch):
    """A name server that answers with a public address first and a private one later gains nothing."""
    settings.MODEL_HOSTS = [f"http://rebound.example:{hub.port}"]
    asked = []

    async def answer(host, port, **_more):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    async with new_client(5) as client:
        response = await client.get(f"http://rebound.example:{hub.port}/asked")
    assert response.status_code == 200
    assert asked == ["rebound.example"]
    settings.MODEL_HOSTS = ["rebound.example"]
    async with httpx.AsyncClient(transport=GuardedTransport()) as client:
        with pytest.raises(Problem) as caught:
            await client.get(f"https://rebound.example:{hub.port}/asked")
    assert caught.value.code == "address_private"


def test_the_proxy_of_the_environment_is_used_for_the_world_outside(settings, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "mirror.example")
    settings.MODEL_HOSTS = ["mirror.example", "https://127.0.0.1:8443"]
    assert proxy_for(addresses.check("https://huggingface.co/x")) == "http://proxy.example:3128"
    assert proxy_for(addresses.check("https://mirror.example/x")) == ""
    assert proxy_for(addresses.check("https://127.0.0.1:8443/x")) == ""
