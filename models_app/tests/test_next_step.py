"""“Why is it not running?”: a sentence and one thing to do, for each state and each reason."""

from __future__ import annotations

import pytest

from models_app import reasons
from models_app.next_step import BY_CODE, LABELS, Do, Seen, Situation, next_step
from models_app.reasons import reason
from models_app.states import State

GIB = 1024**3
OF_TUNINGS = {"tuning_stopped", "tuning_killed", "tuning_model_gone"}  # no replica ever has them
MEMORY = {
    "needed": 5 * GIB, "weights": 4 * GIB, "kv": GIB, "available": 3 * GIB, "reserve": GIB // 4, "slots": 2, "context": 8192
}  # fmt: skip


def failed(code: str, **params) -> Seen:
    return Seen(State.FAILED, reason(code, **params))


def wanted(*replicas: Seen, **known) -> Situation:
    return Situation(active=True, wanted=True, replicas=replicas, **known)


@pytest.mark.parametrize(
    ("code", "do"),
    [
        *((code, Do.CHOOSE_FILE) for code in (
            "path_unsafe", "gguf_not_one", "gguf_version", "gguf_cut_short", "gguf_damaged", "gguf_big_endian", "gguf_twice",
            "gguf_old_type", "gguf_tensor_place", "gguf_tensor_overlap", "gguf_part_name", "gguf_part_strange",
            "gguf_check_memory", "gguf_wrong_kind",
        )),
        *((code, Do.SHOW_LOG) for code in (
            "exited", "crashed", "start_timeout", "load_timeout", "no_token", "stuck", "hung",
        )),
        *((code, Do.TRY_AGAIN) for code in (
            "file_unreadable", "gguf_check_time", "gguf_check_ended", "no_free_port", "engine_missing", "killed", "log_folder",
            "run_folder", "database", "internal_error", "written_by_another_version",
        )),
        ("file_missing", Do.CHOOSE_FILE), ("gguf_part_missing", Do.CHOOSE_FILE),
        ("gguf_not_first_part", Do.SHOW_MODELS), ("not_enough_memory", Do.SHOW_MODELS), ("made_room", Do.SHOW_MODELS),
    ],
)  # fmt: skip
def test_each_reason_has_its_button(code: str, do: Do):
    step = next_step(wanted(failed(code)))
    assert (step.do, bool(step.sentence)) == (do, True)


def test_no_reason_is_forgotten():
    assert BY_CODE.keys() | OF_TUNINGS == reasons.TEXTS.keys()
    assert LABELS.keys() == set(Do)


def test_too_little_memory_leads_to_the_nearest_settings():
    step = next_step(wanted(failed("not_enough_memory", nearest={"context_length": 2048, "slots": 1}, **MEMORY)))
    assert (step.do, step.settings) == (Do.USE_SETTINGS, {"context_length": 2048, "slots": 1})
    assert "5.00 GB are needed" in step.sentence
    assert "contextLength 2048, slots 1" in step.sentence
    nothing = next_step(wanted(failed("not_enough_memory", nearest={}, **MEMORY)))
    assert (nothing.do, nothing.settings) == (Do.SHOW_MODELS, {})


def test_a_later_part_leads_to_the_first():
    step = next_step(wanted(failed("gguf_not_first_part", file="b.gguf", part="a.gguf")))
    assert (step.do, step.settings) == (Do.USE_SETTINGS, {"file": "a.gguf"})


@pytest.mark.parametrize("code", ["file_missing", "gguf_part_missing"])
def test_a_file_that_was_downloaded_is_downloaded_again(code: str):
    gone = failed(code, file="a.gguf", folder="models/", part="a.gguf")
    assert next_step(wanted(gone, can_download=True)).do is Do.DOWNLOAD_AGAIN
    coming = next_step(wanted(gone, can_download=True, downloading=True))
    assert coming.do is Do.SHOW_DOWNLOADS
    assert "It is being downloaded." in coming.sentence


def test_a_change_that_does_not_come_up_is_taken_back():
    beside = (Seen(State.READY), failed("exited", how="exit code 1", line="bad template"))
    step = next_step(wanted(*beside, has_last_version=True))
    assert step.do is Do.GO_BACK
    assert "bad template" in step.sentence
    without = next_step(wanted(*beside))
    assert without.do is Do.SHOW_LOG, "a second replica of the same version"
    assert "Not all of its replicas come up" in without.sentence


@pytest.mark.parametrize(
    ("now", "word", "do"),
    [
        (Situation(active=False, wanted=False), "by hand", Do.START),
        (Situation(active=True, wanted=False), "policy", Do.START),
        (wanted(), "supervisor", None),
        (wanted(Seen(State.PENDING)), "on its way", None),
        (wanted(Seen(State.LOADING)), "on its way", None),
        (wanted(Seen(State.READY)), "", None),
        (wanted(Seen(State.READY), Seen(State.LOADING)), "", None),
        (wanted(Seen(State.READY), Seen(State.PENDING, reason("crashed"))), "", None),
        (wanted(Seen(State.PENDING, reason("crashed", how="x", line="boom"))), "boom", Do.SHOW_LOG),
    ],
)
def test_each_state_has_its_sentence(now: Situation, word: str, do: Do | None):
    step = next_step(now)
    assert (word in step.sentence, bool(step.sentence), step.do) == (True, bool(word), do)
