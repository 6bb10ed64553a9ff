"""Who waits for approval comes first, and is approved or refused with one click, one or many."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from accounts.models import Group, User
from llmplatform.console.verdict import Facts, ModelFact, findings
from tests.console.conftest import in_dialog, logged_in, make_group, person

USERS = "/admin/accounts/user/"


@pytest.fixture
def waiting(db) -> list[User]:
    return [person(f"new{number}", is_active=False, waiting=True) for number in range(3)]


def names(client: Client, query: str = "") -> list[str]:
    return [user.username for user in client.get(USERS + query, follow=True).context["cl"].result_list]


def act(client: Client, action: str, *people: User, **data):
    selected = {"action": action, "_selected_action": [user.pk for user in people]}
    return client.post(USERS, {**selected, **data}, follow=True)


def test_who_waits_comes_first_and_is_counted(as_administrator: Client, user: User, waiting: list[User]):
    assert names(as_administrator) == ["new0", "new1", "new2", "ada", "ben"]
    assert names(as_administrator, "?status=waiting") == ["new0", "new1", "new2"]
    assert names(as_administrator, "?status=active") == ["ada", "ben"]
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert names(as_administrator, "?status=blocked") == ["ben"]
    assert "Waiting (3)" in as_administrator.get(USERS).content.decode()


def test_one_click_on_the_row_approves(administrator: User, waiting: list[User]):
    client = Client(enforce_csrf_checks=True)
    client.force_login(administrator)
    page = client.get(USERS).content.decode()
    path = f"{USERS}{waiting[0].pk}/approve/"
    assert f'name="_form_submitted" value="on" formaction="{path}"' in page
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert token is not None
    assert client.post(path, {"_form_submitted": "on"}).status_code == 403
    answer = client.post(
        path,
        {"_form_submitted": "on", "csrfmiddlewaretoken": token[1]},
        headers={"Referer": f"http://testserver{USERS}?status=waiting"},
    )
    assert answer["Location"].endswith(f"{USERS}?status=waiting")
    waiting[0].refresh_from_db()
    assert (waiting[0].is_active, waiting[0].waiting) == (True, False)


def test_one_click_on_the_row_refuses(as_administrator: Client, waiting: list[User]):
    as_administrator.post(f"{USERS}{waiting[0].pk}/refuse/", {"_form_submitted": "on"})
    assert not User.objects.filter(pk=waiting[0].pk, waiting=True).exists()
    assert not User.objects.filter(pk=waiting[0].pk, is_active=True).exists()


def test_many_at_once(as_administrator: Client, user: User, waiting: list[User]):
    answer = act(as_administrator, "approve_chosen", user, *waiting[:2])
    assert "2 people approved." in answer.content.decode()
    assert names(as_administrator, "?status=waiting") == ["new2"]


def test_refusing_many_asks_first(as_administrator: Client, user: User, waiting: list[User]):
    asked = act(as_administrator, "refuse_chosen", user, *waiting).content.decode()
    assert "new2" in asked
    assert ">ben<" not in asked
    assert len(names(as_administrator, "?status=waiting")) == 3
    answer = act(as_administrator, "refuse_chosen", user, *waiting, confirmed="yes")
    assert "3 people refused." in answer.content.decode()
    user.refresh_from_db()
    assert user.is_active


def test_all_that_a_filter_shows_can_be_chosen(as_administrator: Client):
    for number in range(60):
        person(f"new{number:02}", is_active=False, waiting=True)
    data = {"action": "refuse_chosen", "_selected_action": [User.objects.get(username="new00").pk], "select_across": 1}
    asked = as_administrator.post(f"{USERS}?status=waiting", data).content.decode()
    assert "and 10 more" in asked
    answer = as_administrator.post(f"{USERS}?status=waiting", {**data, "confirmed": "yes"}, follow=True)
    assert "60 people refused." in answer.content.decode()


def test_the_page_of_a_person_who_waits_offers_it(as_administrator: Client, user: User, waiting: list[User]):
    page = as_administrator.get(f"{USERS}{waiting[0].pk}/change/").content.decode()
    assert f"{waiting[0].pk}/approve/" in page
    assert f"{waiting[0].pk}/block/" not in page
    page = as_administrator.get(f"{USERS}{user.pk}/change/").content.decode()
    assert f"{user.pk}/approve/" not in page
    assert f"{user.pk}/block/" in page


def test_blocking_and_giving_access_again(as_administrator: Client, user: User):
    assert in_dialog(as_administrator, f"{USERS}{user.pk}/block/")["HX-Redirect"]
    user.refresh_from_db()
    assert not user.is_active
    in_dialog(as_administrator, f"{USERS}{user.pk}/unblock/")
    user.refresh_from_db()
    assert user.is_active


def test_nobody_blocks_themselves(as_administrator: Client, administrator: User):
    in_dialog(as_administrator, f"{USERS}{administrator.pk}/block/")
    administrator.refresh_from_db()
    assert administrator.is_active


@pytest.mark.parametrize("action", ["approve", "refuse", "block", "unblock"])
def test_operators_decide_nothing(operator: User, waiting: list[User], action: str):
    client = logged_in(operator)
    assert client.post(f"{USERS}{waiting[0].pk}/{action}/", {"_form_submitted": "on"}).status_code == 403
    waiting[0].refresh_from_db()
    assert waiting[0].waiting


# -- groups of people ------------------------------------------------------------------------------------------------


def test_moving_many_to_a_group(as_administrator: Client, user: User, administrator: User):
    group = make_group("staff", allowance=5_000_000)
    asked = act(as_administrator, "move_chosen", user, administrator).content.decode()
    assert "<option" in asked
    act(as_administrator, "move_chosen", user, administrator, confirmed="yes", group=group.pk)
    assert set(User.objects.filter(group=group).values_list("username", flat=True)) == {"ada", "ben"}
    assert user.wallet.entries.filter(kind="grant", available_change=5_000_000).exists()
    act(as_administrator, "move_chosen", user, confirmed="yes", group="")
    user.refresh_from_db()
    assert user.group is None


def test_moving_to_a_group_that_is_gone_asks_again(as_administrator: Client, user: User):
    group = make_group("staff")
    gone = group.pk
    Group.objects.all().delete()
    answer = act(as_administrator, "move_chosen", user, confirmed="yes", group=gone)
    assert "<option" in answer.content.decode()


# -- the overview ------------------------------------------------------------------------------------------------------


def test_the_overview_tells_administrators(as_administrator: Client, operator: User, waiting: list[User]):
    page = as_administrator.get("/admin/").content.decode()
    assert "3 people wait for approval." in page
    assert 'href="/admin/accounts/user/?status=waiting"' in page
    assert "approval" not in logged_in(operator).get("/admin/").content.decode()
    assert "3 people wait" in as_administrator.get("/admin/live/").content.decode()


def test_nobody_waiting_is_no_finding():
    model = ModelFact(pk=1, name="tiny", wanted=1, ready=1, coming=0, failed=0, reason="")
    assert [one.level for one in findings(Facts(supervisor_alive=True, models=[model]))] == ["good"]
