"""Whose address and scheme the service sees behind reverse proxies."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmplatform.lib.configuration import ConfigurationError
from llmplatform.lib.proxies import UNKNOWN_PROXY, BehindProxies, parse_networks

PROXY, OTHER_PROXY, CALLER = "10.0.0.1", "10.0.0.2", "203.0.113.7"
FOR, PROTO = b"x-forwarded-for", b"x-forwarded-proto"


def seen(peer: Any, *headers: tuple[bytes, bytes], trusted: str = "10.0.0.0/8,fd00::/8", **scope: Any) -> dict:
    """The scope that the application gets."""
    got: list[dict] = []

    async def application(scope: dict, receive: Any, send: Any) -> None:
        got.append(scope)

    wrapped = BehindProxies(application, parse_networks("TRUSTED_PROXIES", [t for t in trusted.split(",") if t]))
    client = [peer, 40000] if isinstance(peer, str) else peer
    given = {"type": "http", "scheme": "http", "path": "/", "client": client, "headers": list(headers), **scope}
    asyncio.run(wrapped(given, None, None))
    return got[0]


def caller(*hops: bytes, peer: str = PROXY) -> str:
    return seen(peer, *((FOR, hop) for hop in hops))["client"][0]


@pytest.mark.parametrize(
    ("hops", "expected"),
    [
        ([b"203.0.113.7"], CALLER),
        ([b"1.2.3.4, 203.0.113.7"], CALLER),  # what a caller sent itself stands on the left
        ([b"1.2.3.4", b"203.0.113.7"], CALLER),  # a proxy may add a line instead of an entry
        ([b"203.0.113.7, 10.0.0.2"], CALLER),
        ([b"203.0.113.7:51234"], CALLER),
        ([b"::ffff:203.0.113.7"], CALLER),
        ([b"[2001:db8::7]:443"], "2001:db8::7"),
        ([b"[2001:db8::7]"], "2001:db8::7"),
        ([b"2001:DB8:0::7"], "2001:db8::7"),
        ([b"fe80::7%eth0"], "fe80::7"),
        ([b"fe80::7%" + b"x" * 50_000], PROXY),
        ([b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),  # all ours: the furthest
        ([b"fd00::1"], "fd00::1"),
        ([b"rubbish"], PROXY),
        ([b"203.0.113.7, rubbish, 10.0.0.2"], OTHER_PROXY),  # as far as it can be read
        ([b""], PROXY),
        ([b",,,"], PROXY),
        ([b"203.0.113.7,"], PROXY),
        ([b"unknown"], PROXY),
        ([b"127.0.0.1 OR 1=1"], PROXY),
        ([b"\xff\x00\r\n"], PROXY),
        ([b"999.1.1.1"], PROXY),
        ([b"[::1"], PROXY),
        ([b", ".join([b"1.1.1.1"] * 10_000)], "1.1.1.1"),
        ([b", ".join([b"10.0.0.9"] * 10_000)], "10.0.0.9"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_the_rightmost_address_that_is_no_proxy_of_ours_calls(hops: list[bytes], expected: str) -> None:
    assert caller(*hops) == expected


@pytest.mark.parametrize("name", [FOR, PROTO, b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip", b"forwarded"])
@pytest.mark.parametrize("peer", [PROXY, CALLER])
def test_no_such_header_gets_in_whoever_sent_it(peer: str, name: bytes) -> None:
    scope = seen(peer, (b"host", b"ours"), (name, b"https"), (b"x-forwarded", b"kept"))
    assert scope["headers"] == [(b"host", b"ours"), (b"x-forwarded", b"kept")]


def test_elsewhere_nothing_is_believed_and_it_is_known() -> None:
    scope = seen(CALLER, (FOR, b"127.0.0.1"), (PROTO, b"https"))
    assert (scope["client"][0], scope["scheme"]) == (CALLER, "http")
    assert scope[UNKNOWN_PROXY]
    assert UNKNOWN_PROXY not in seen(PROXY, (FOR, b"127.0.0.1"))
    assert UNKNOWN_PROXY not in seen(CALLER)


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert seen("127.0.0.1", (FOR, CALLER.encode()), trusted="")["client"][0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"https"], "https"),
        ([b"HTTPS "], "https"),
        ([b"http"], "http"),
        ([b"http, https"], "https"),  # the nearest proxy wrote the last
        ([b"http", b"https"], "https"),
        ([b"javascript"], "http"),
        ([b""], "http"),
        ([b"https" * 10_000], "http"),
    ],
    ids=repr,
)
def test_the_scheme_comes_from_the_nearest_proxy(values: list[bytes], expected: str) -> None:
    assert seen(PROXY, *((PROTO, value) for value in values))["scheme"] == expected


def test_websockets_alike() -> None:
    scope = seen(PROXY, (FOR, CALLER.encode()), (PROTO, b"https"), type="websocket", scheme="ws")
    assert (scope["client"][0], scope["scheme"]) == (CALLER, "wss")


def test_a_proxy_is_known_however_its_address_is_written() -> None:
    assert caller(CALLER.encode(), peer="::ffff:10.0.0.1") == CALLER
    assert seen("::ffff:203.0.113.7")["client"][0] == CALLER
    assert seen("fe80::1%eth0")["client"][0] == "fe80::1"


@pytest.mark.parametrize("client", [None, ["/run/a.sock", None], ["", 0]])
def test_a_connection_without_an_address_is_nobody_s(client: Any) -> None:
    assert seen(client, (FOR, b"127.0.0.1"), trusted="127.0.0.1")["client"][0] == "0.0.0.0"


def test_no_caller_chooses_a_path_prefix() -> None:
    scope = seen(CALLER, (b"daphne-root-path", b"//evil.example"), root_path="//evil.example")
    assert (scope["root_path"], scope["headers"]) == ("", [])


def test_other_scopes_pass() -> None:
    got: list[dict] = []

    async def application(scope: dict, receive: Any, send: Any) -> None:
        got.append(scope)

    asyncio.run(BehindProxies(application, ())({"type": "lifespan"}, None, None))
    assert got == [{"type": "lifespan"}]


def test_a_proxy_nobody_named_is_told_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: dict, receive: Any, send: Any) -> None: ...

    wrapped = BehindProxies(application, ())
    with caplog.at_level(logging.WARNING):
        for peer in ("192.168.0.1", "192.168.0.1", "8.8.8.8", "192.168.0.1"):
            wrapped.seen({"type": "http", "client": [peer, 1], "headers": [(FOR, b"1.2.3.4")]})
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert told[0].startswith("192.168.0.1 ")


@given(hops=st.lists(st.binary(max_size=60), max_size=5), proto=st.binary(max_size=20))
def test_whatever_comes_the_caller_is_an_address(hops: list[bytes], proto: bytes) -> None:
    scope = seen(PROXY, *((FOR, hop) for hop in hops), (PROTO, proto))
    ipaddress.ip_address(scope["client"][0])
    assert scope["scheme"] in {"http", "https"}


@pytest.mark.parametrize("text", ["nonsense", "10.0.0.0/33", "10.0.0.1-10.0.0.9", "::1/129"])
def test_a_wrong_setting_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TRUSTED_PROXIES="):
        parse_networks("TRUSTED_PROXIES", [text])
