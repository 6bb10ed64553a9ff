"""What schemathesis looks at in each answer beyond its own checks; it loads this module (``SCHEMATHESIS_HOOKS``).

``API_TEST`` in the environment holds JSON: ``hidden``, texts that must stand in no answer; ``kept``, ids by the names of
path parameters that calls must leave alone, since the caller would lose the credentials for all further ones; and
``stops_models``, whether this caller can bring it about that a model is not there.
"""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

GIVEN = json.loads(os.environ["API_TEST"])
# What whoever stops models may be told besides, in each protocol: it is not running, or stopped before it answered.
STOPPED = {
    (503, "model_not_available"),
    (503, "overloaded"),
    (503, "overloaded_error"),
    (502, "upstream_error"),
    (502, "api_error"),
    (504, "state_not_reached"),
}
NO_SUCH_ID = 999_999_999


@schemathesis.check
def is_described(_context: Any, response: Any, case: Any) -> None:
    """The status stands in the description; what it calls “default” is for refusals only."""
    described, status = case.operation.definition.raw["responses"], response.status_code
    assert str(status) in described or (400 <= status < 500 and "default" in described), f"{status} is not described"


@schemathesis.check
def is_no_servers_error(_context: Any, response: Any, case: Any) -> None:
    if response.status_code < 500:
        return
    error = response.json()["error"]
    code = error.get("code", error.get("type"))
    assert GIVEN["stops_models"], f"{response.status_code} {code}"
    assert (response.status_code, code) in STOPPED, f"{response.status_code} {code}"
    assert response.status_code != 503 or "retry-after" in response.headers, "nobody says when to come again"


@schemathesis.check
def tells_nothing_hidden(_context: Any, response: Any, case: Any) -> None:
    told = response.text + json.dumps(dict(response.headers.items()), default=str)
    for name, text in GIVEN["hidden"].items():
        assert text not in told, f"the answer holds {name}"


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    query, places, body = case.query, case.path_parameters, case.body
    if query and is_true(query.get("follow")):
        query["follow"] = "0"  # an answer without an end
    if query and is_long(query.get("wait")):
        query["wait"] = "0.5"
    for name, ids in GIVEN["kept"].items():
        if places and str(places.get(name)) in map(str, ids):
            places[name] = NO_SUCH_ID
    if case.operation.path == "/api/v1/cluster/join" and isinstance(body, dict) and isinstance(body.get("host"), str):
        body["host"] = body["host"] and "127.0.0.1"  # no test asks other machines


def is_true(value: Any) -> bool:
    return str(value).strip().lower() in {"1", "true", "t", "yes", "y", "on"}


def is_long(value: Any) -> bool:
    try:
        return float(str(value)) > 0.5
    except ValueError:
        return False
