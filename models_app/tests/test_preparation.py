"""What is found out before a process is started: whether it fits, with numbers and advice, and the kind of each file."""

from __future__ import annotations

import struct

import pytest

from models_app import machine, memory, reasons, services
from models_app.preparation import Circumstances, NotStartable, Preparation, prepare
from models_app.selectors import wanted_models
from models_app.tests.gguf_files import make_gguf, raw_gguf, text

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(home):
    """Its context of 8,192 tokens in 4 slots takes 256 MiB in 16 bits."""
    keys = {"llama.attention.key_length": 128, "llama.attention.value_length": 128}
    make_gguf(home / "models" / "a.gguf", context=8192, layers=8, **keys)
    services.create_model({"name": "a", "file": "a.gguf", "context_length": 8192, "slots": 4, "prompt_cache": 0})
    return home / "models"


def prepared(learned=None) -> Preparation:
    return prepare(wanted_models()[0].wanted, Circumstances(learned=learned or {}))


def refused() -> tuple[dict, str]:
    with pytest.raises(NotStartable) as caught:
        prepared()
    return caught.value.reason, reasons.text(caught.value.reason)


@pytest.mark.parametrize(
    ("missing", "advice", "changes"),
    [
        (1, "cacheType q8_0", {"cache_type": "q8_0"}),
        (125, "slots 2", {"slots": 2}),
        (200, "cacheType q8_0, slots 1", {"cache_type": "q8_0", "slots": 1}),
    ],
)
def test_what_cannot_fit_is_told_with_what_would_and_that_starts(model, monkeypatch, missing, advice, changes):
    needed = prepared().memory
    free = needed - missing * memory.MIB + machine.low_mark()
    monkeypatch.setattr(machine, "available_memory", lambda: free)
    reason, sentence = refused()
    assert reason["code"] == "not_enough_memory"
    assert (reason["params"]["needed"], reason["params"]["available"]) == (needed, free)
    assert f"{needed / 2**30:.2f} GB are needed" in sentence
    assert f"It would fit with {advice}." in sentence
    services.update_model("a", changes)
    assert prepared().memory <= free - machine.low_mark()


def test_nothing_is_advised_when_nothing_helps(model, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 1)
    assert "Stop another model" in refused()[1]


def test_the_reserve_and_what_others_were_promised_are_not_there(model, monkeypatch):
    needed = prepared().memory
    monkeypatch.setattr(machine, "available_memory", lambda: needed + machine.low_mark())
    assert prepared().memory == needed
    with pytest.raises(NotStartable):
        prepare(wanted_models()[0].wanted, Circumstances(memory_promised=1))


def other(path, keys) -> None:
    raw_gguf(path, [(name, struct.pack("<I", 8) + text(value.encode())) for name, value in keys.items()], [])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"file": "p.gguf"}, ["p.gguf is a vision projector", "a model is needed"]),
        ({"mmproj_file": "a.gguf"}, ["a.gguf is a language model", "a vision projector is needed"]),
        ({"lora": [{"file": "p.gguf", "scale": 1.0}]}, ["p.gguf is a vision projector", "a LoRA adapter is needed"]),
        ({"speculative": "draft", "draft_file": "l.gguf"}, ["l.gguf is a LoRA adapter", "a language model is needed"]),
    ],
)
def test_each_file_must_be_of_the_kind_that_its_place_needs(model, fields, words):
    other(model / "p.gguf", {"general.architecture": "clip"})
    other(model / "l.gguf", {"general.architecture": "llama", "general.type": "adapter"})
    services.update_model("a", fields)
    reason, sentence = refused()
    assert reason["code"] == "gguf_wrong_kind"
    assert all(part in sentence for part in words)


def test_a_name_that_no_disk_has_is_a_reason(home):
    services.create_model({"name": "long", "file": "模" * 90 + ".gguf"})
    reason, sentence = refused()
    assert reason["code"] == "file_unreadable"
    assert "模" in sentence
