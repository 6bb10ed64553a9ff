"""One request with its redirects, and what its answer means.

Redirects are followed by hand, five at most, each checked like the first address. A token goes to the host it was made for and to
no other: it is left out of the request after a redirect that changes scheme, host or port.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin

import httpx

from models_app.downloads import addresses
from models_app.downloads.problems import Passing, Problem

MOST_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
BUSY = frozenset({429, 503})
DENIED = frozenset({401, 403})
LONGEST_WAIT = 300.0  # of what a server may ask for with Retry-After
LARGEST_ANSWER = 16 * 1024 * 1024


@dataclass(frozen=True)
class Source:
    """What is asked for: for messages, and which token opens it."""

    url: str
    what: str
    token: str = ""
    setting: str = "HF_TOKEN"  # where the administrator puts a token


@contextlib.asynccontextmanager
async def opened(
    client: httpx.AsyncClient, source: Source, headers: Mapping[str, str], accept: frozenset[int]
) -> AsyncIterator[httpx.Response]:
    """The answer, its body not read yet. Raises Problem for what is not in ``accept``, Passing when it may go better later."""
    url, home = source.url, addresses.check(source.url)
    for _hop in range(MOST_REDIRECTS + 1):
        place = addresses.check(url)
        sent = dict(headers)
        if source.token and (place.scheme, place.host, place.port) == (home.scheme, home.host, home.port):
            sent |= credentials(source)
        async with _sent(client, url, sent, place.host) as response:
            if response.status_code not in REDIRECTS:
                _check(response, source, place.host, accept)
                yield response
                return
            try:
                url = urljoin(url, response.headers.get("location", ""))
            except ValueError:
                raise Problem("bad_answer", host=place.host) from None
    raise Problem("too_many_redirects", host=home.host)


def credentials(source: Source) -> dict[str, str]:
    """ModelScope's older paths know a token as the cookie that its login sets."""
    bearer = {"Authorization": f"Bearer {source.token}"}
    return bearer | {"Cookie": f"m_session_id={source.token}"} if source.setting == "MODELSCOPE_API_TOKEN" else bearer


@contextlib.asynccontextmanager
async def _sent(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str], host: str
) -> AsyncIterator[httpx.Response]:
    request = client.build_request("GET", url, headers={**headers, "Accept-Encoding": "identity"})
    with understood(client.timeout.read, host):
        response = await client.send(request, stream=True)
    try:
        yield response
    finally:
        await response.aclose()


@contextlib.contextmanager
def understood(stall: float | None, host: str) -> Iterator[None]:
    """What goes wrong on the line, as Passing."""
    try:
        yield
    except httpx.ReadTimeout:
        raise Passing("stalled", host=host, seconds=round(stall or 0)) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Passing("unreachable", host=host, error=str(error) or type(error).__name__) from error


def _check(response: httpx.Response, source: Source, host: str, accept: frozenset[int]) -> None:
    status = response.status_code
    if status in accept:
        return
    if status in DENIED:
        raise Problem("gated", what=source.what, status=status, setting=source.setting)
    if status == httpx.codes.NOT_FOUND:
        raise Problem("not_found", what=source.what, host=host)
    if status in BUSY:
        problem = Passing("busy", host=host, status=status)
        problem.wait = retry_after(response.headers.get("retry-after", ""))
        raise problem
    if status >= 500 or status == httpx.codes.REQUEST_TIMEOUT:
        raise Passing("server_error", host=host, status=status)
    raise Problem("refused", host=host, status=status)


def retry_after(value: str) -> float | None:
    """Seconds, from a number or a date; None when it says nothing."""
    if value.isdecimal() and len(value) < 10:
        return min(float(value), LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), LONGEST_WAIT)


async def get_json(client: httpx.AsyncClient, source: Source) -> Any:
    """Raises Problem; Passing when it may go better later."""
    host = addresses.place_of(source.url).host
    content = bytearray()
    async with opened(client, source, {"Accept": "application/json"}, frozenset({200})) as response:
        with understood(client.timeout.read, host):
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > LARGEST_ANSWER:
                    raise Problem("bad_answer", host=host)
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Problem("bad_answer", host=host) from None
