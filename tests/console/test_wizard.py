"""Adding a model in the console: choose, what fits, settings, start."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
from django.test import Client

from models_app import machine, services
from models_app.downloads.models import Download
from models_app.models import ModelConfig
from models_app.tests.gguf_files import make_gguf, raw_gguf
from models_app.tests.gguf_files import text as gguf_text
from tests import model_hub
from tests.console.conftest import MODEL_FORM as FORM
from tests.console.conftest import make_model, make_replica

ADD = "/admin/models_app/modelconfig/add/"
FITS, SETTINGS, START = f"{ADD}fits/", f"{ADD}settings/", f"{ADD}start/"
MIB = 1024**2


@pytest.fixture
def file(settings):
    return make_gguf(settings.MODELS_PATH / "tiny.gguf", context=1 << 17)


@pytest.fixture
def hub(tmp_path, settings):
    make_gguf(tmp_path / "hub" / "tests" / "tiny-GGUF" / "tiny-q8_0.gguf")
    with model_hub.running(tmp_path / "hub") as hub:
        settings.HF_ENDPOINT = settings.MODELSCOPE_ENDPOINT = hub.url
        settings.MODEL_HUB, settings.HF_TOKEN = "huggingface", ""
        yield hub


def text(client: Client, address: str) -> str:
    return client.get(address, follow=True).content.decode()


def written(settings) -> dict[str, dict]:
    entries = json.loads(settings.MODEL_CONFIG_PATH.read_text(encoding="utf-8"))["models"]
    return {entry["modelName"]: entry for entry in entries}


# -- 1: choose -----------------------------------------------------------------------------------------------------
def test_files_are_offered_with_what_they_are(as_operator: Client, file, settings, django_assert_max_num_queries):
    (settings.MODELS_PATH / "bad.gguf").write_bytes(b"<html>")
    make_model("tiny")
    with django_assert_max_num_queries(8):
        page = text(as_operator, ADD)
    assert "Rejected: bad.gguf is not a GGUF file" in page
    assert "used by: tiny" in page
    assert f'href="{FITS}?file=tiny.gguf"' in page
    assert "?file=bad.gguf" not in page
    assert "Qwen3 4B" in page
    assert "qwen-research" in page


def test_looking_into_a_hub(as_operator: Client, hub):
    assert f"{FITS}?source=tests%2Ftiny-GGUF%3Atiny-q8_0.gguf&amp;hub=huggingface" in text(
        as_operator, f"{ADD}?q=tests/tiny-GGUF"
    )
    assert "q=tests%2Ftiny-GGUF" in text(as_operator, f"{ADD}?q=tiny")
    assert "Nothing was found" in text(as_operator, f"{ADD}?q=unheard&hub=modelscope")
    assert "does not exist" in text(as_operator, f"{ADD}?q=tests/unheard")
    as_operator.post(ADD, {"source": "tests/tiny-GGUF:tiny-q8_0.gguf", "hub": "huggingface"})
    assert Download.objects.get().wanted_file == "tiny-q8_0.gguf"


def test_how_downloads_go_and_what_can_be_done(as_operator: Client, settings):
    going = Download.objects.create(
        repository="a/b", state="fetching", tries=1, size=1000, fetched=250, speed=10, model_name="x"
    )
    failed = Download.objects.create(repository="c/d", state="failed", tries=1, reason={"code": "no_hub", "params": {}})
    done = Download.objects.create(repository="e/f", state="done", tries=1, files=[{"name": "My File-q8.gguf"}])
    parts = text(as_operator, f"{ADD}live/")
    assert 'width="25%"' in parts
    assert "No model hub could be reached" in parts
    assert f"{FITS}?download={done.pk}" in parts
    assert f"{FITS}?download={going.pk}" not in parts, "it becomes a model by itself"
    for name, row in (("cancel", going), ("retry", failed)):
        assert f'name="{name}" value="{row.pk}"' in parts
        as_operator.post(ADD, {name: row.pk})
    going.refresh_from_db()
    failed.refresh_from_db()
    assert (going.cancelled, failed.tries_wanted) == (True, 2)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "Choose what the model is made of first"),
        ("?file=gone.gguf", "not in the models folder any more"),
        ("?file=../../etc/passwd.gguf", "not in the models folder any more"),
        ("?file=model_config.json", "not in the models folder any more"),
        ("?file=%00.gguf", "not in the models folder any more"),
        ("?file=bad.gguf", "bad.gguf is not a GGUF file"),
        ("?entry=nothing", "no such model in the catalogue"),
        ("?download=77", "no such download"),
        ("?download=99999999999999999999", "no such download"),
        ("?source=https://evil.example/x.gguf", "MODEL_HOSTS"),
        ("?source=nonsense", "OWNER/REPOSITORY"),
        ("?source=a/b&hub=other", "no such hub"),
        (f"?source={'a' * 3000}", "too long"),
        ("?source=https://[x/y.gguf", "not an address"),
    ],
)
@pytest.mark.parametrize("step", [FITS, SETTINGS])
def test_what_cannot_be_chosen_leads_back_and_says_why(as_operator: Client, settings, step: str, query: str, said: str):
    (settings.MODELS_PATH / "bad.gguf").write_bytes(b"<html>")
    answer = as_operator.get(step + query, follow=True)
    assert answer.redirect_chain == [(ADD, 302)]
    assert said in answer.content.decode()


# -- 2: what fits --------------------------------------------------------------------------------------------------
def test_the_nearest_settings_that_fit_are_preselected(as_operator: Client, file, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 300 * MIB)
    page = text(as_operator, f"{FITS}?file=tiny.gguf")
    assert 'value="8192-4-f16"' in page
    assert "fits: " in page
    assert "needs " in page
    assert page.count(" checked") == 1
    back = text(as_operator, f"{FITS}?file=tiny.gguf&fit=2048-1-q8_0")
    assert 'value="2048-1-q8_0" aria-label="2,048 tokens, one slot, q8_0" checked' in back


def test_where_nothing_fits_one_can_go_on(as_operator: Client, file, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 0)
    page = text(as_operator, f"{FITS}?file=tiny.gguf")
    assert "Nothing of this fits now" in page
    assert 'name="file" value="tiny.gguf"' in page


def test_what_a_repository_has_is_asked_for(as_operator: Client, hub):
    page = text(as_operator, f"{FITS}?source=tests/tiny-GGUF")
    assert 'name="source" value="tests/tiny-GGUF:tiny-q8_0.gguf"' in page
    assert "fits: " in page, "its header was looked at"
    assert "trained for 4,096 tokens" in page
    assert "does not exist" in text(as_operator, f"{FITS}?source=tests/unheard")
    assert "There are: tiny-q8_0.gguf" in text(as_operator, f"{FITS}?source=tests/tiny-GGUF:q2_k")


def test_what_is_not_here_yet_is_refused_too_where_it_cannot_fit(as_operator: Client, hub, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 300 * MIB)
    source = "source=tests/tiny-GGUF:tiny-q8_0.gguf&hub=huggingface"
    assert "needs " in text(as_operator, f"{FITS}?{source}")
    form = {**FORM, "name": "tiny", "context_length": "8388608", "slots": "8"}
    answer = as_operator.post(f"{SETTINGS}?{source}", form)
    assert "Add it all the same" in answer.content.decode()
    assert not Download.objects.exists()


def test_a_projector_of_a_hub_is_no_model(as_operator: Client, hub):
    folder = hub.folder / "tests" / "eyes-GGUF"
    folder.mkdir()
    kind = struct.pack("<I", 8) + gguf_text(b"clip")  # a text
    raw_gguf(folder / "eyes.gguf", [("general.architecture", kind)], [])
    answer = as_operator.get(f"{FITS}?source=tests/eyes-GGUF", follow=True)
    assert answer.redirect_chain == [(ADD, 302)]
    assert "eyes.gguf" in answer.content.decode()


def test_a_name_that_no_disk_has(as_operator: Client, hub):
    assert as_operator.get(f"{SETTINGS}?source=a/b:{'c' * 300}.gguf&hub=huggingface").status_code == 200


def test_another_file_of_that_name_is_not_taken_for_it(as_operator: Client, hub, settings):
    """Neither one of another publisher nor one that is damaged."""
    place = settings.MODELS_PATH / "tiny-q8_0.gguf"
    make_gguf(place, layers=7)
    assert "There is already another file" in text(as_operator, f"{FITS}?source=tests/tiny-GGUF")
    place.write_bytes(b"GGUF")
    assert "There is already another file" in text(as_operator, f"{FITS}?source=tests/tiny-GGUF")
    shutil.copyfile(hub.folder / "tests" / "tiny-GGUF" / "tiny-q8_0.gguf", place)
    assert "Download and start" not in text(as_operator, f"{SETTINGS}?source=tests/tiny-GGUF:tiny-q8_0.gguf")


def test_the_other_hub_is_asked_where_the_first_one_has_not_got_it(as_operator: Client, hub, settings):
    settings.MODEL_HUB = "auto"
    settings.MODELSCOPE_ENDPOINT = f"{hub.url}/nothing"  # answers, and has nothing
    as_operator.cookies["django_language"] = "zh-hans"
    answer = as_operator.get(f"{FITS}?source=tests/tiny-GGUF", HTTP_ACCEPT_LANGUAGE="zh-CN")
    assert answer.status_code == 200
    assert "tests/tiny-GGUF:tiny-q8_0.gguf" in answer.content.decode()


def test_what_somebody_sets_back_stays_so(as_operator: Client, hub):
    """What the file itself would say does not come in its place."""
    source = "source=tests/tiny-GGUF:tiny-q8_0.gguf&hub=huggingface"
    form = as_operator.get(f"{SETTINGS}?{source}&fit=2048-1-q8_0").context["form"]
    assert form["slots"].value() == 1
    as_operator.post(f"{SETTINGS}?{source}&fit=2048-1-q8_0", {**FORM, "name": "tiny", "slots": "2", "anyway": "yes"})
    assert Download.objects.get().model_settings["slots"] == 2


# -- 3: settings ---------------------------------------------------------------------------------------------------
def test_the_settings_begin_with_what_was_chosen_and_the_model_starts(as_operator: Client, file, settings):
    make_model("tiny")
    address = f"{SETTINGS}?file=tiny.gguf&fit=2048-1-q8_0"
    form = as_operator.get(address).context["form"]
    known = {name: form[name].value() for name in ("name", "context_length", "slots", "cache_type", "description")}
    assert known == {
        "name": "tiny-2", "context_length": 2048, "slots": 1, "cache_type": "q8_0", "description": "Test model F16"
    }  # fmt: skip
    answer = as_operator.post(address, {**FORM, "name": "second", "context_length": "2048"})
    made = ModelConfig.objects.get(name="second")
    assert answer["Location"] == f"{START}?model={made.pk}"
    assert (made.file, made.context_length, made.active) == ("tiny.gguf", 2048, True)
    assert written(settings)["second"]["modelFile"] == "tiny.gguf"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../up"),
        ("name", ""),
        ("name", "taken"),
        ("name", "alias"),
        ("aliases", "taken"),
        ("top_p", "2"),
        ("replicas", "0"),
        ("slots", "x"),
    ],
)
def test_a_wrong_value_is_said_beside_its_field(as_operator: Client, file, field: str, value: str):
    make_model("taken", aliases=["alias"])
    answer = as_operator.post(f"{SETTINGS}?file=tiny.gguf", {**FORM, field: value})
    assert answer.status_code == 200
    assert field in answer.context["form"].errors
    assert answer.context["more_open"] == (field in {"top_p", "replicas", "aliases"}), "what is wrong is to be seen"
    assert ModelConfig.objects.count() == 1


@pytest.mark.parametrize("fit", ["0-0-f32", "8192-1-f16;x", "9" * 40, "-1-1-f16"])
def test_a_strange_choice_of_settings_counts_nothing(as_operator: Client, file, fit: str):
    form = as_operator.get(SETTINGS, {"file": "tiny.gguf", "fit": fit}).context["form"]
    assert form["context_length"].value() is None


def test_sent_twice_it_is_added_once(as_operator: Client, file):
    address = f"{SETTINGS}?file=tiny.gguf"
    first, second = (as_operator.post(address, FORM)["Location"] for _ in range(2))
    assert first == second
    assert ModelConfig.objects.count() == 1


def test_a_file_that_vanished_meanwhile_leads_back(as_operator: Client, file):
    file.unlink()
    answer = as_operator.post(f"{SETTINGS}?file=tiny.gguf", FORM, follow=True)
    assert answer.redirect_chain == [(ADD, 302)]
    assert "not in the models folder any more" in answer.content.decode()


def test_what_does_not_fit_is_told_with_what_would(as_operator: Client, file, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 300 * MIB)
    address, large = f"{SETTINGS}?file=tiny.gguf", {**FORM, "context_length": "131072", "slots": "64"}
    page = as_operator.post(address, large).content.decode()
    assert "Not enough memory" in page
    assert not ModelConfig.objects.exists()
    as_operator.post(address, {**large, "nearest": "yes"})
    made = ModelConfig.objects.get()
    assert made.cache_type == "q8_0"
    assert made.slots < 64
    as_operator.post(address, {**large, "name": "all-the-same", "anyway": "yes"})
    assert ModelConfig.objects.get(name="all-the-same").slots == 64


def test_an_entry_of_the_catalogue_is_fetched_with_its_settings(as_operator: Client):
    assert "Download and start" in text(as_operator, f"{SETTINGS}?entry=bge-m3")
    as_operator.post(
        f"{SETTINGS}?entry=bge-m3", {**FORM, "name": "vectors", "embeddings": "on", "slots": "3", "anyway": "1"}
    )
    made = Download.objects.get()
    assert (made.origin, made.model_name) == ("huggingface", "vectors")
    assert made.model_settings["embeddings"] is True
    assert made.model_settings["slots"] == 3
    assert "gpu_layers" not in made.model_settings, "what nobody changed is left to the file"
    again = as_operator.post(f"{SETTINGS}?entry=bge-m3", {**FORM, "name": "vectors", "anyway": "1"})
    assert again["Location"] == f"{START}?download={made.pk}"
    assert Download.objects.count() == 1


def test_a_download_under_way_gets_its_settings(as_operator: Client):
    going = Download.objects.create(repository="a/b", wanted_file="x.gguf", state="fetching", tries=1)
    assert "How much memory it takes is told by the file itself" in text(as_operator, f"{FITS}?download={going.pk}")
    answer = as_operator.post(f"{SETTINGS}?download={going.pk}", FORM)
    assert answer["Location"] == f"{START}?download={going.pk}"
    going.refresh_from_db()
    assert (going.model_name, going.model_settings["temperature"]) == ("tiny", 0.5)
    Download.objects.update(state="failed", reason={"code": "no_hub", "params": {}})
    assert "No model hub could be reached" in text(as_operator, f"{FITS}?download={going.pk}")


def test_a_finished_download_is_a_file(as_operator: Client, file):
    done = Download.objects.create(repository="a/b", state="done", tries=1, files=[{"name": "tiny.gguf"}])
    assert 'name="file" value="tiny.gguf"' in text(as_operator, f"{FITS}?download={done.pk}")


# -- 4: start ------------------------------------------------------------------------------------------------------
def test_the_start_is_followed_from_download_to_ready(as_operator: Client, file):
    going = Download.objects.create(
        repository="a/b",
        state="fetching",
        tries=1,
        model_name="tiny",
        size=100,
        fetched=40,
        files=[{"name": "tiny.gguf"}],
    )
    address = f"{START}?download={going.pk}"
    assert 'width="40%"' in text(as_operator, address)
    Download.objects.update(state="done", reason={"code": "name_taken", "params": {"name": "tiny"}})
    assert "already a model" in text(as_operator, address)
    model = services.create_model({"name": "tiny", "file": "tiny.gguf"})
    assert "has not taken it up yet" in text(as_operator, address)
    replica = make_replica(
        model, "failed", reason={"code": "crashed", "params": {"how": "exit code 1", "line": "boom"}}
    )
    page = text(as_operator, f"{START}live/?model={model.pk}")
    assert "boom" in page
    assert "Show the log" in page
    replica.state = "ready"
    replica.save()
    assert "Chat with it" in text(as_operator, f"{START}live/?download={going.pk}")
    services.delete_model("tiny")
    assert "removed meanwhile" in text(as_operator, f"{START}?model={model.pk}")
    assert "removed meanwhile" in text(as_operator, f"{START}live/?model={model.pk}")
