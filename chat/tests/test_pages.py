"""The chat page and the pieces of it that its script fetches."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone, translation

from chat import markdown, page_texts, views
from chat.day_groups import grouped
from chat.models import Conversation, Message
from models_app.models import ModelConfig, Replica
from models_app.states import State


@pytest.fixture(autouse=True)
def _pages(settings):
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.ALLOWED_HOSTS = ["testserver"]


@pytest.fixture
def browser(alice) -> Client:
    client = Client()
    client.force_login(alice)
    return client


def conversation(user, title="Rainbows", days_ago=0, **fields) -> Conversation:
    updated_at = timezone.now() - timedelta(days=days_ago)
    return Conversation.objects.create(user=user, title=title, updated_at=updated_at, **fields)


def exchanges(talk: Conversation, number: int) -> None:
    parent = None
    for count in range(number):
        question = Message.objects.create(conversation=talk, parent=parent, role="user", text=f"Question {count}?")
        parent = Message.objects.create(
            conversation=talk,
            parent=question,
            role="assistant",
            text=f"**Answer** {count}",
            model_name="small",
            stats={
                "usage": {"completion_tokens": 1234},
                "timings": {"tokens_per_second": 41.26, "first_token_ms": 320},
            },
        )


def model(name: str, state: State, **fields) -> None:
    config = ModelConfig.objects.create(name=name, file=f"{name}.gguf", **fields)
    Replica.objects.create(model=config, number=1, node="here", state=state, since=timezone.now(), port=1)


# -- who may see what --------------------------------------------------------------------------------------------------
def test_start_page_leads_to_the_chat_or_to_the_login(browser):
    assert browser.get("/").headers["Location"] == "/chat/"
    assert Client().get("/chat/").headers["Location"] == "/login?next=/chat/"


def test_nothing_of_anothers_conversation_is_reachable(bob, browser):
    talk = conversation(bob, "Bob's secret")
    exchanges(talk, 1)
    for path in (f"/chat/{talk.id}", f"/chat/{talk.id}/messages"):
        answer = browser.get(path)
        assert answer.status_code == 404
        assert "secret" not in answer.content.decode()
    assert browser.post(f"/chat/{talk.id}/rename", {"title": "Mine"}).status_code == 404
    assert browser.post(f"/chat/{talk.id}/delete").status_code == 404
    assert "secret" not in browser.get("/chat/list", {"q": "secret"}).content.decode()
    assert Conversation.objects.get().title == "Bob's secret"


@pytest.mark.parametrize("path", ["", "/messages", "/rename", "/delete"])
def test_unknown_conversations_are_not_found(browser, path):
    method = browser.post if path in ("/rename", "/delete") else browser.get
    assert method(f"/chat/{uuid.uuid4()}{path}", {"title": "x"} if path == "/rename" else None).status_code == 404


# -- the page ----------------------------------------------------------------------------------------------------------
def test_page_comes_with_the_list_and_the_messages_in_it(alice, browser):
    talk = conversation(alice)
    exchanges(talk, 1)
    text = browser.get(f"/chat/{talk.id}").content.decode()
    assert "Question 0?" in text
    assert "<strong>Answer</strong> 0" in text
    assert "1,234 tokens · 41.3 tokens/s · first token after 0.3 s · small" in text
    assert f'href="/chat/{talk.id}" aria-current="page"' in text


def test_what_a_person_wrote_is_shown_as_text(alice, browser):
    talk = conversation(alice, "<script>alert(1)</script>")
    Message.objects.create(conversation=talk, role="user", text="<img src=x onerror=alert(2)> **not bold**")
    text = browser.get(f"/chat/{talk.id}").content.decode()
    assert "<script>alert(1)" not in text
    assert "<img src=x" not in text
    assert "**not bold**" in text


def test_page_asks_the_database_as_often_for_many_conversations(alice, browser, django_assert_max_num_queries):
    Conversation.objects.bulk_create(
        Conversation(user=alice, title=f"Talk {n}", updated_at=timezone.now() - timedelta(hours=n)) for n in range(1000)
    )
    talk = conversation(alice)
    exchanges(talk, 40)
    with django_assert_max_num_queries(9):
        assert browser.get(f"/chat/{talk.id}").status_code == 200


def test_page_has_no_inline_script_or_style(alice, browser):
    talk = conversation(alice)
    exchanges(talk, 1)
    text = browser.get(f"/chat/{talk.id}").content.decode()
    assert "style=" not in text
    assert "onclick" not in text
    assert "<script>" not in text


def test_every_module_of_the_page_is_loaded_at_once():
    static = Path(django_settings.BASE_DIR) / "static"
    found = {f"chat/{path.name}" for path in (static / "chat").glob("*.js")} - {"chat/start.js", "chat/chat.js"}
    assert found <= set(views.MODULES)
    assert all((static / name).exists() for name in views.MODULES)


def test_script_finds_every_text_it_names():
    script = "".join(path.read_text() for path in (Path(django_settings.BASE_DIR) / "static/chat").glob("*.js"))
    known = page_texts.script_texts()
    used = {name for name in known if f'"{name}"' in script or f"{name}_percent" in known or name.endswith("_percent")}
    assert used == set(known)


def test_code_colours_are_those_of_the_renderer():
    committed = Path(django_settings.BASE_DIR) / "static/chat/code.css"
    assert committed.read_text() == markdown.pygments_css()


# -- models ------------------------------------------------------------------------------------------------------------
def test_models_to_choose_from_are_those_one_can_chat_with(browser):
    model("b-loading", State.LOADING)
    model("c-ready", State.READY)
    model("a-vectors", State.READY, embeddings=True)
    choices = browser.get("/chat/").context["models"]
    assert [(choice.name, choice.state) for choice in choices] == [("c-ready", "ready"), ("b-loading", "loading")]


def test_the_model_used_last_is_offered_first_as_long_as_it_exists(alice, browser):
    model("big", State.READY)
    model("small", State.READY)
    talk = conversation(alice, model_name="small")
    assert browser.get("/chat/").context["model"].name == "small"
    Conversation.objects.filter(id=talk.id).update(model_name="gone")
    assert browser.get(f"/chat/{talk.id}").context["model"].name == "big"


def test_the_default_model_is_chosen_until_one_was_used(alice, browser):
    model("big", State.READY)
    model("small", State.READY, is_default=True, aliases=["tiny"])
    assert browser.get("/chat/").context["model"].name == "small"
    conversation(alice, model_name="big")
    assert browser.get("/chat/").context["model"].name == "big"
    conversation(alice, model_name="tiny", days_ago=-1)
    assert browser.get("/chat/").context["model"].name == "small", "an alias stands for its model"
    Conversation.objects.all().delete()
    Replica.objects.filter(model__is_default=True).update(state=State.FAILED)
    assert browser.get("/chat/").context["model"].name == "big", "one that does not run is no choice"


def test_without_a_model_the_page_says_so(browser):
    assert "No model is running yet" in browser.get("/chat/").content.decode()


# -- pieces ------------------------------------------------------------------------------------------------------------
def test_list_goes_on_where_the_page_ended(alice, browser):
    for number in range(35):
        conversation(alice, f"Talk {number}", days_ago=number)
    first = browser.get("/chat/")
    rest = browser.get("/chat/list", {"before": first.context["list_before"]})
    titles = [row.title for group in rest.context["groups"] for row in group.rows]
    assert titles == [f"Talk {number}" for number in range(30, 35)]
    assert rest.context["list_before"] == ""


def test_search_finds_chinese_inside_words_and_says_when_it_finds_nothing(alice, browser):
    conversation(alice, "这很简单")
    conversation(alice, "Rainbows")
    found = browser.get("/chat/list", {"q": "简单"}).content.decode()
    assert "这很简单" in found
    assert "Rainbows" not in found
    assert "Nothing found" in browser.get("/chat/list", {"q": "50%_"}).content.decode()


def test_older_messages_come_in_pages(alice, browser):
    talk = conversation(alice)
    exchanges(talk, 20)
    newest = browser.get(f"/chat/{talk.id}/messages")
    older = browser.get(f"/chat/{talk.id}/messages", {"before": newest.context["before"]})
    assert next(message.text for message in newest.context["thread_messages"]) == "Question 5?"
    assert [message.text for message in older.context["thread_messages"]][-1] == "**Answer** 4"
    assert older.context["before"] == ""


@pytest.mark.parametrize("query", [{"before": "nonsense"}, {"before": "\x00"}, {"before": "1" * 5000}])
def test_bad_cursors_are_the_callers_mistake(alice, browser, query):
    talk = conversation(alice)
    assert browser.get("/chat/list", query).status_code == 400
    assert browser.get(f"/chat/{talk.id}/messages", query).status_code in (200, 400, 404)


def test_renaming_and_deleting(alice, browser):
    talk = conversation(alice)
    assert (
        browser.post(f"/chat/{talk.id}/rename", {"title": "  A   better\ntitle "}).content.decode() == "A better title"
    )
    assert browser.post(f"/chat/{talk.id}/rename", {"title": " "}).status_code == 400
    assert browser.get(f"/chat/{talk.id}/delete").status_code == 405
    assert browser.post(f"/chat/{talk.id}/delete").status_code == 204
    assert not Conversation.objects.exists()


def test_changes_need_the_csrf_token(alice):
    talk = conversation(alice)
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    assert client.post(f"/chat/{talk.id}/delete").status_code == 403
    assert Conversation.objects.exists()


def test_groups_follow_the_readers_calendar():
    now = timezone.now()
    rows = [Conversation(title=str(days), updated_at=now - timedelta(days=days)) for days in (0, 1, 3, 20, 400)]
    groups = grouped(rows, timezone.localdate(now))
    assert [group.key for group in groups[:4]] == ["today", "yesterday", "week", "month"]
    assert groups[4].key == f"{now - timedelta(days=400):%Y-%m}"


def test_an_answers_facts_are_written_in_the_readers_language():
    stats = {"usage": {"completion_tokens": 1500}, "timings": {"tokens_per_second": 8.04, "first_token_ms": None}}
    with translation.override("en"):
        assert page_texts.answer_facts(stats, "m", "stopped") == "Stopped · 1,500 tokens · 8.0 tokens/s · m"
        assert page_texts.answer_facts(None, "m", "error") == ""
