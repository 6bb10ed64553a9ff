"""Asking a machine that runs its own llama-server whether it is one and lives."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import time

import httpx
from asgiref.sync import sync_to_async
from django.utils.translation import gettext as _

from cluster import addresses, selectors, services
from cluster.models import Node
from llmplatform.lib.errors import ApiError
from llmplatform.lib.networks import IpAddress

logger = logging.getLogger(__name__)
TIMEOUT = httpx.Timeout(connect=2.0, read=2.0, write=2.0, pool=2.0)
TOTAL_SECONDS = 5.0
MAX_ANSWER = 64 * 1024


class ProbeFailed(ApiError):
    def __init__(self, message: str) -> None:
        super().__init__("probe_failed", message, 422)


def probe(host: str, port: int, *, loopback: bool) -> None:
    """Raises AddressRefused or ProbeFailed unless a llama-server there says that it is ready. At most about five seconds."""
    ip = addresses.resolve(host, port, loopback=loopback)
    try:
        status, answer = _health(ip, host, port)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ProbeFailed(
            _("No answer from http://%(host)s:%(port)d/health.") % {"host": host, "port": port}
        ) from error
    if status == 503:
        raise ProbeFailed(_("That llama-server is still loading its model; try again when it is ready."))
    if status != 200 or not _is_health(answer):
        raise ProbeFailed(_("What answers there is not a llama-server."))


def _url(ip: IpAddress, port: int) -> str:
    return f"http://[{ip}]:{port}/health" if ip.version == 6 else f"http://{ip}:{port}/health"


def _health(ip: IpAddress, host: str, port: int) -> tuple[int, bytes]:
    """The address checked is the address called; no proxy, no redirect, no more than a little of the answer."""
    until = time.monotonic() + TOTAL_SECONDS
    with (
        httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False) as client,
        client.stream("GET", _url(ip, port), headers={"Host": f"{host}:{port}"}) as response,
    ):
        answer = b""
        for chunk in response.iter_raw(4096):
            answer += chunk
            if len(answer) > MAX_ANSWER or time.monotonic() > until:
                break
        return response.status_code, answer


def _is_health(answer: bytes) -> bool:
    try:
        value = json.loads(answer)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("status") == "ok"


async def check_joined_nodes() -> None:
    """Marks the joined machines that answer as seen. For the supervisor, every few seconds."""
    nodes = await sync_to_async(selectors.nodes)()
    joined = [node for node in nodes if node.role == Node.Role.WORKER and not node.system]
    if not joined:
        return
    async with httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=False) as client:
        await asyncio.gather(*(_check(client, node) for node in joined))


async def _check(client: httpx.AsyncClient, node: Node) -> None:
    try:
        ip = await asyncio.to_thread(addresses.resolve, node.host, node.port, loopback=_is_loopback(node.host))
        async with client.stream("GET", _url(ip, node.port), headers={"Host": f"{node.host}:{node.port}"}) as response:
            if response.status_code != 200:
                return
    except (httpx.HTTPError, ApiError) as error:
        logger.debug("machine %s does not answer: %s", node.name, error)
        return
    await sync_to_async(services.seen)(node.name)


def _is_loopback(host: str) -> bool:
    """Loopback was allowed when an operator typed it as an address; a name may not become loopback later."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
