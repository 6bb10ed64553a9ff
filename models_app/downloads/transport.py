"""The way out: every request is checked by ``addresses``, and goes to the very address that was checked.

A name is resolved once for each request; the connection is made to that address while TLS and the Host header keep the name, so
that a name server that answers differently the second time gains nothing. With a proxy in the environment it is the proxy that
resolves: then only the name is checked here.
"""

from __future__ import annotations

import ssl
from urllib.request import getproxies, proxy_bypass

import httpx

from llmplatform.lib.networks import is_loopback
from models_app.downloads import addresses
from models_app.downloads.addresses import Place

CONNECT_SECONDS = 15.0
LIMITS = httpx.Limits(max_keepalive_connections=0)  # a connection belongs to one name, though pools know addresses only


class GuardedTransport(httpx.AsyncBaseTransport):
    def __init__(self) -> None:
        self._ssl: ssl.SSLContext = httpx.create_ssl_context()
        self._direct = httpx.AsyncHTTPTransport(verify=self._ssl, limits=LIMITS)
        self._proxies: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        place = addresses.check(str(request.url))
        proxy = proxy_for(place)
        if proxy:
            return await self._through(proxy).handle_async_request(request)
        found = await addresses.resolve(place)
        for address in found[:-1]:
            try:
                return await self._direct.handle_async_request(pinned(request, place, address))
            except httpx.ConnectError:  # the next one may answer
                continue
        return await self._direct.handle_async_request(pinned(request, place, found[-1]))

    def _through(self, proxy: str) -> httpx.AsyncHTTPTransport:
        if proxy not in self._proxies:
            self._proxies[proxy] = httpx.AsyncHTTPTransport(verify=self._ssl, limits=LIMITS, proxy=proxy)
        return self._proxies[proxy]

    async def aclose(self) -> None:
        for transport in (self._direct, *self._proxies.values()):
            await transport.aclose()


def pinned(request: httpx.Request, place: Place, address: str) -> httpx.Request:
    """The same request to one address of its host."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": place.host},
    )


def proxy_for(place: Place) -> str:
    """The proxy that the environment names for this place; "" for none."""
    if is_loopback(f"//{place.host}") or proxy_bypass(place.host):
        return ""
    known = getproxies()
    return known.get(place.scheme) or known.get("all") or ""


def new_client(stall_seconds: float) -> httpx.AsyncClient:
    """``stall_seconds``: how long a server may send nothing."""
    timeout = httpx.Timeout(connect=CONNECT_SECONDS, read=stall_seconds, write=CONNECT_SECONDS, pool=CONNECT_SECONDS)
    return httpx.AsyncClient(
        transport=GuardedTransport(),
        timeout=timeout,
        follow_redirects=False,
        headers={"User-Agent": "llm-platform/0.1"},
    )
