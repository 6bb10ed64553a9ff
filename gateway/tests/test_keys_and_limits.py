"""API keys and limits through real web servers: within its bounds a key works, outside of each it is refused."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json

import httpx
import openai
import pytest

from gateway.tests.conftest import Service, python_in, until, web
from tests.redis_server import running_redis

pytestmark = pytest.mark.e2e

MESSAGES = [{"role": "user", "content": "Is it so?"}]
MAKE_KEYS = """
import django, json, sys
django.setup()
from accounts import groups, keys
from accounts.keys import NewKey
from accounts.models import ApiKey, Group, User
made = {}
for name, wanted in json.loads(sys.argv[1]).items():
    owner = User.objects.get(username=wanted.pop("owner", "ann"))
    made[name] = keys.create_key(owner, NewKey(name=name, **wanted))[1]
print(json.dumps(made))
"""


def make_keys(service: Service, **wanted: dict) -> dict[str, str]:
    return json.loads(python_in(service.home, "-c", MAKE_KEYS, json.dumps(wanted)))


@pytest.fixture(scope="module")
def keys(running: Service) -> dict[str, str]:
    return make_keys(
        running,
        free={},
        reader={"scopes": ["usage:read", "models:read"]},
        narrow={"allowed_models": ["alpha"]},
        elsewhere={"allowed_addresses": ["10.0.0.0/8"]},
        here={"allowed_addresses": ["127.0.0.0/8"]},
        two_a_minute={"requests_per_minute": 2},
        one_at_once={"concurrent_requests": 1},
        tokens={"tokens_per_minute": 120},
        budget={"budget": 150_000},
        doomed={},
    )


def client_of(service: Service, key: str, url: str = "") -> openai.OpenAI:
    return openai.OpenAI(base_url=(url or service.url) + "/v1", api_key=key, max_retries=0)


def ask(service: Service, key: str, url: str = "", model: str = "alpha", **fields: object):
    create = client_of(service, key, url).chat.completions.with_raw_response.create
    return create(model=model, messages=MESSAGES, **{"max_tokens": 4, **fields})


def ask_until_refused(service: Service, key: str) -> openai.RateLimitError:
    for _time in range(20):
        try:
            ask(service, key, max_tokens=60)
        except openai.RateLimitError as refusal:
            return refusal
        until(service.settled)
    raise AssertionError("never refused")


def test_a_key_works_like_its_owner_and_is_recorded(service: Service, keys: dict[str, str]) -> None:
    raw = ask(service, keys["free"])
    assert raw.parse().choices[0].message.content
    assert not [name for name in raw.headers if name.startswith("x-ratelimit")]
    record = service.usage(raw.headers["x-request-id"])
    [key] = service.rows("SELECT * FROM accounts_apikey WHERE name = 'free'")
    assert (record["username"], record["key_id"]) == ("ann", key["id"])
    assert key["last_used_at"]


def test_anthropics_header_does_as_well(service: Service, keys: dict[str, str]) -> None:
    body = {"model": "alpha", "messages": MESSAGES, "max_tokens": 4}
    answer = httpx.post(f"{service.url}/v1/chat/completions", json=body, headers={"x-api-key": keys["free"]})
    assert answer.status_code == 200
    answer = httpx.post(f"{service.url}/v1/messages", json=body, headers={"x-api-key": "sk-" + "x" * 43})
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")


def test_two_different_credentials_are_refused(service: Service, keys: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {keys['free']}", "x-api-key": keys["here"]}
    assert httpx.get(f"{service.url}/v1/models", headers=headers).status_code == 401
    headers["x-api-key"] = keys["free"]
    assert httpx.get(f"{service.url}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("key", "model", "told"),
    [("reader", "alpha", "inference"), ("narrow", "twins", "twins"), ("elsewhere", "alpha", "127.0.0.1")],
    ids=["scope", "model", "address"],
)
def test_outside_of_its_bounds_a_key_is_refused(
    service: Service, keys: dict[str, str], key: str, model: str, told: str
) -> None:
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(service, keys[key], model=model)
    assert caught.value.code == "permission_denied"
    assert told in caught.value.message


def test_within_them_it_is_not(service: Service, keys: dict[str, str]) -> None:
    ask(service, keys["narrow"])
    ask(service, keys["here"], model="twins")
    assert [model.id for model in client_of(service, keys["narrow"]).models.list()] == ["alpha"]
    assert "twins" in [model.id for model in client_of(service, keys["reader"]).models.list()]


def test_a_budget_bounds_the_answer_and_then_refuses(service: Service, keys: dict[str, str]) -> None:
    first = ask(service, keys["budget"], max_tokens=60)
    assert int(first.headers["x-max-tokens"]) < 60
    until(service.settled)
    refusal = ask_until_refused(service, keys["budget"])
    assert refusal.code == "insufficient_quota"
    assert "budget" in refusal.message
    [key] = service.rows("SELECT * FROM accounts_apikey WHERE name = 'budget'")
    [spent] = service.rows("SELECT SUM(cost) AS cost FROM accounts_usagerecord WHERE key_id = ?", key["id"])
    assert key["budget_used"] == spent["cost"] <= 150_000


def test_requests_a_minute(service: Service, keys: dict[str, str]) -> None:
    left = [ask(service, keys["two_a_minute"]).headers["x-ratelimit-remaining-requests"] for _time in range(2)]
    assert left == ["1", "0"]
    with pytest.raises(openai.RateLimitError) as caught:
        ask(service, keys["two_a_minute"])
    headers = caught.value.response.headers
    assert caught.value.code == "rate_limit_exceeded"
    assert 0 < int(headers["retry-after"]) <= 61
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "0")


def test_counting_tokens_is_free_but_not_without_limit(service: Service, keys: dict[str, str]) -> None:
    """The two requests of this minute are used up by now, or here."""
    body = {"model": "alpha", "content": "How many?"}
    headers = {"Authorization": f"Bearer {keys['two_a_minute']}"}
    statuses = [httpx.post(f"{service.url}/v1/tokenize", json=body, headers=headers).status_code for _time in range(3)]
    assert statuses[-1] == 429


def test_one_at_once_and_the_place_comes_free_however_it_ends(service: Service, keys: dict[str, str]) -> None:
    engine = service.standins["alpha"]
    engine.tell(token_seconds=0.1)
    client = client_of(service, keys["one_at_once"])
    stream = client.chat.completions.create(model="alpha", messages=MESSAGES, stream=True, max_tokens=50)
    next(iter(stream))
    with pytest.raises(openai.RateLimitError):
        ask(service, keys["one_at_once"])
    stream.close()
    engine.tell(token_seconds=0)
    until(lambda: service.metric("llm_requests_under_way") == 0)
    ask(service, keys["one_at_once"])
    with pytest.raises(openai.NotFoundError):
        ask(service, keys["one_at_once"], model="no-such-model")
    engine.tell(error_status=500)
    with pytest.raises(openai.InternalServerError):
        ask(service, keys["one_at_once"])
    engine.tell(error_status=None)
    ask(service, keys["one_at_once"])


def test_tokens_a_minute(service: Service, keys: dict[str, str]) -> None:
    refusal = ask_until_refused(service, keys["tokens"])
    assert refusal.code == "rate_limit_exceeded"
    assert refusal.response.headers["x-ratelimit-limit-tokens"] == "120"


# -- two web servers ---------------------------------------------------------------------------------------------------


def test_a_revoked_key_is_refused_by_another_web_server_too(service: Service, keys: dict[str, str]) -> None:
    with web(service.home, "second") as second:
        ask(service, keys["doomed"], second.url)
        service.change("UPDATE accounts_apikey SET revoked_at = '2026-01-01' WHERE name = 'doomed'")

        def refused() -> bool:
            try:
                ask(service, keys["doomed"], second.url)
            except openai.AuthenticationError:
                return True
            return False

        until(refused)


def test_two_web_servers_share_a_limit_through_redis(service: Service) -> None:
    keys = make_keys(service, first={"requests_per_minute": 10}, shared={"requests_per_minute": 10})
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(running_redis())
        urls = [stack.enter_context(web(service.home, f"web{n}", REDIS_URL=redis.url)).url for n in range(2)]
        for url in urls:  # What is busy with its first request may find that Redis takes too long to answer.
            ask(service, keys["first"], url)

        def status(number: int) -> int:
            try:
                return ask(service, keys["shared"], urls[number % 2]).status_code
            except openai.RateLimitError:
                return 429

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(status, range(30)))
        assert (statuses.count(200), statuses.count(429)) == (10, 20)
