"""The gateway's snapshot and the API's model objects."""

from __future__ import annotations

import pytest
from django.utils import timezone, translation

from models_app import reasons
from models_app.models import ModelConfig, Replica
from models_app.process import engine_key
from models_app.selectors import model_dicts, model_state, serving_snapshot, wanted_models
from models_app.states import State

pytestmark = pytest.mark.django_db


def make(name="a", states=(), **fields) -> ModelConfig:
    model = ModelConfig.objects.create(name=name, file="small.gguf", **fields)
    for number, state in enumerate(states, 1):
        Replica.objects.create(
            model=model, number=number, node="n", state=state, since=timezone.now(), port=9000 + number, key_nonce="x",
            slots=3, context_length=1000,
        )  # fmt: skip
    return model


def test_the_snapshot_holds_what_serves_in_two_queries(home, django_assert_num_queries):
    make("a", [State.READY, State.DRAINING, State.FAILED], max_tokens=77, description="d")
    make("b", [], active=False)
    make("c", [State.DRAINING], active=False)
    make("d", [])
    with django_assert_num_queries(2):
        views = serving_snapshot()
    assert {name: view.state for name, view in views.items()} == {
        "a": State.READY,
        "c": State.DRAINING,
        "d": State.PENDING,
    }
    a = views["a"]
    assert (a.max_tokens, a.context_length, a.description) == (77, 1000, "d")
    assert [(replica.number, replica.state) for replica in a.replicas] == [(1, "ready"), (2, "draining")]
    assert (a.replicas[0].base_url, a.replicas[0].slots) == ("http://127.0.0.1:9001", 3)
    assert a.replicas[0].api_key == engine_key("x")


@pytest.mark.parametrize(
    ("active", "states", "expected"),
    [
        (True, [], State.PENDING),
        (False, [], State.STOPPED),
        (True, [State.FAILED, State.LOADING], State.LOADING),
        (True, [State.FAILED, State.READY], State.READY),
        (True, [State.FAILED], State.FAILED),
        (True, [State.STOPPED], State.STOPPED),
    ],
)
def test_a_models_state_is_its_best_replicas(active, states, expected):
    model = make(states=states, active=active)
    assert model_state(model, model.running.all()) == expected


def test_model_objects_say_what_the_file_and_the_replicas_say(gguf_file, django_assert_num_queries):
    model = make("a", [State.FAILED], context_length=512)
    Replica.objects.update(reason=reasons.reason("file_missing", file="x.gguf", folder="models/"))
    with django_assert_num_queries(3):
        (shown,) = model_dicts(["a", "nobody"])
    assert (shown["modelName"], shown["modelFile"], shown["contextLength"], shown["threads"]) == (
        "a",
        "small.gguf",
        512,
        None,
    )
    assert (shown["state"], shown["slots"], shown["policy"]) == ("failed", 2, "always")
    assert shown["running"][0]["error"] == reasons.text(model.running.get().reason)
    assert (shown["gguf"]["architecture"], shown["gguf"]["contextLength"]) == ("llama", 4096)
    assert shown["memory"]["weights"] == gguf_file.stat().st_size
    assert shown["memory"]["total"] > shown["memory"]["weights"]


def test_without_its_file_a_model_is_shown_all_the_same(home):
    make("a")
    (shown,) = model_dicts()
    assert (shown["gguf"], shown["memory"]) == ({}, {})


def test_wanted_models_take_one_query(home, django_assert_num_queries):
    make("a", replicas=3)
    make("b", active=False)
    make("c", policy="off")
    with django_assert_num_queries(1):
        assert [(model.name, model.replicas) for model in wanted_models()] == [("a", 3), ("b", 0), ("c", 0)]


def test_every_reason_is_a_sentence_in_each_language():
    params = {
        "exit": -6,
        "line": "error: x",
        "nearest": {"slots": 1, "cache_type": "q8_0"},
        "needed": 2**31,
        "weights": 2**30,
        "kv": 2**29,
        "least": 2**28,
        "requests": 2,
    }
    params |= {"available": 2**28, "slots": 2, "context": 8192, "file": "f", "folder": "d", "error": "e", "version": 9}
    params |= {"size": 1, "needed_bytes": 2, "what": "w", "at": 3, "part": "p", "first": 1, "last": 2, "seconds": 5}
    params |= {
        "reserve": 2**27,
        "name": "n",
        "type": 4,
        "tensor": "t",
        "count": 2,
        "kind": "adapter",
        "wanted": "model",
    }
    params |= {"bound": 2**31, "planned": 2**30, "cores": "0-7", "there": "0-3"}
    for language in ("en", "zh-hans"):
        with translation.override(language):
            for code in reasons.TEXTS:
                text = reasons.text(reasons.reason(code, **params))
                assert "%" not in text
                assert text != code
    assert reasons.text(None) == ""
    assert reasons.text({"code": "of_a_later_version"}) == "of_a_later_version"
    assert reasons.text({"code": "exited", "params": {}}) == "exited"
