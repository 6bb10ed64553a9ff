"""Credits for many people at once, in the console: list, preview, gift."""

from __future__ import annotations

import csv
import io
import re

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from accounts import credit_sheets
from accounts.ledger_checks import ledger_problems
from accounts.models import LedgerEntry, User, Wallet
from tests.console.conftest import logged_in, make_group, person

PATH = "/admin/accounts/user/credits/"
USERS = "/admin/accounts/user/"


def preview(client: Client, text: str) -> str:
    return client.post(PATH, {"text": text}).content.decode()


def gift_form(page: str) -> dict[str, str]:
    """What the preview's form would send."""
    nonce = re.search(r'name="nonce" value="(\w+)"', page)
    rows = re.search(r'<textarea name="rows" hidden>\n(.*?)</textarea>', page, re.DOTALL)
    assert nonce is not None
    assert rows is not None
    return {"step": "give", "nonce": nonce[1], "rows": rows[1].replace("\n", "\r\n")}  # as browsers send it


def given(user: User) -> list[tuple[int, str]]:
    return list(user.wallet.entries.filter(kind="topup").values_list("available_change", "note"))


def test_the_list_of_users_leads_there(as_administrator: Client):
    assert f'href="{PATH}"' in as_administrator.get(USERS).content.decode()
    assert 'href="/admin/accounts/user/credits/list.csv"' in as_administrator.get(PATH).content.decode()


def test_a_list_is_shown_and_then_given(as_administrator: Client, administrator: User, user: User):
    other = person("王小明")
    page = preview(as_administrator, "ben,12.5,thanks\n王小明,100\n")
    assert "2 people get 112.50 credits together." in page
    assert given(user) == given(other) == []
    answer = as_administrator.post(PATH, gift_form(page), follow=True)
    assert "2 people got 112.50 credits." in answer.content.decode()
    assert given(user) == [(12_500_000, "thanks")]
    assert given(other) == [(100_000_000, "by:ada")]
    assert ledger_problems() == []


def test_a_file_is_read_too(as_administrator: Client, user: User):
    file = SimpleUploadedFile("学生.csv", "用户名;额度\nben;7\n".encode("gb18030"))
    page = as_administrator.post(PATH, {"file": file}).content.decode()
    as_administrator.post(PATH, gift_form(page))
    assert given(user) == [(7_000_000, "by:ada")]


def test_pressing_twice_gives_once(as_administrator: Client, user: User):
    form = gift_form(preview(as_administrator, "ben,5\n"))
    for _press in range(3):
        answer = as_administrator.post(PATH, form, follow=True)
    assert "nothing was given a second time" in answer.content.decode()
    assert given(user) == [(5_000_000, "by:ada")]


def test_a_second_preview_of_the_same_list_is_a_second_gift(as_administrator: Client, user: User):
    for _month in range(2):
        as_administrator.post(PATH, gift_form(preview(as_administrator, "ben,5\n")))
    assert len(given(user)) == 2


def test_faults_are_told_by_line_and_nothing_can_be_given(as_administrator: Client, user: User):
    page = preview(as_administrator, "username,amount\nben,5\nnobody,6\nben,7\nben,x\n")
    assert "3 lines need a correction" in page
    assert "There is no user “nobody”." in page
    assert "ben stands in line 2 already." in page
    assert "“x” is not an amount." in page
    assert 'name="step"' not in page
    assert "nobody,6" in page  # to be corrected on the page itself
    assert given(user) == []


def test_a_list_that_does_not_fit_any_more_is_not_given(as_administrator: Client, user: User):
    other = person("carl")
    form = gift_form(preview(as_administrator, "ben,5\ncarl,5\n"))
    User.objects.filter(pk=other.pk).update(username="karl")
    answer = as_administrator.post(PATH, form, follow=True).content.decode()
    assert "Nothing was given" in answer
    assert "There is no user “carl”." in answer
    assert given(user) == []


@pytest.mark.parametrize("change", [{"nonce": ""}, {"nonce": "x"}, {"rows": ""}, {"rows": '"'}, {"rows": "ben,-5"}])
def test_what_no_preview_made_gives_nothing(as_administrator: Client, user: User, change: dict):
    form = gift_form(preview(as_administrator, "ben,5\n"))
    assert as_administrator.post(PATH, {**form, **change}).status_code == 200
    assert given(user) == []


def test_a_balance_that_would_be_too_large_stops_all(as_administrator: Client, user: User):
    other = person("rich")
    Wallet.objects.filter(user=other).update(available=10**18)
    form = gift_form(preview(as_administrator, "ben,5\nrich,5\n"))
    answer = as_administrator.post(PATH, form).content.decode()
    assert "Row 2: the balance would be too large." in answer
    assert given(user) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "Choose a file, or paste the rows."),
        ({"text": "\n\n"}, "Choose a file, or paste the rows."),
        ({"text": "username,amount\n"}, "There is nobody in this list with an amount."),
        ({"file": SimpleUploadedFile("a.xlsx", b"PK\x03\x04\x00\x01\xff\xfe\x00")}, "This is no text."),
        ({"file": SimpleUploadedFile("a.csv", b"ben,5\n" * 400_000)}, "at most 2 MB"),
    ],
)
def test_what_cannot_be_read_is_said(as_administrator: Client, data: dict, said: str):
    assert said in as_administrator.post(PATH, data).content.decode()


def test_a_list_is_never_markup(as_administrator: Client, user: User):
    page = preview(as_administrator, "ben,5,</textarea><script>alert(1)</script>\n")
    assert "<script>alert" not in page
    as_administrator.post(PATH, {**gift_form(page), "rows": "username,amount,note\nben,5,<b>\n"})
    assert given(user) == [(5_000_000, "<b>")]


def test_blocked_and_unlimited_people_are_marked(as_administrator: Client, user: User):
    User.objects.filter(pk=user.pk).update(is_active=False)
    Wallet.objects.filter(user=person("rich")).update(unlimited=True)
    page = preview(as_administrator, "ben,5\nrich,5\n")
    assert "blocked" in page
    assert "unlimited" in page


def test_services_are_no_people(as_administrator: Client):
    make_group("staff", service=True)
    assert "There is no user “group:staff”." in preview(as_administrator, "group:staff,5\n")


def test_the_list_to_fill_in_names_everybody_and_reads_back(as_administrator: Client, user: User):
    person("+plus")
    person("王小明", email="")
    make_group("staff", service=True)
    answer = as_administrator.get("/admin/accounts/user/credits/list.csv")
    content = b"".join(answer.streaming_content)
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert [row["username"] for row in rows] == ["'+plus", "ada", "ben", "王小明"]
    filled = content.decode("utf-8-sig").replace("ben,,", "ben,3,").replace("'+plus,,", "'+plus,4,")
    page = preview(as_administrator, filled)
    assert "2 rows without an amount are left out." in page
    as_administrator.post(PATH, gift_form(page))
    assert given(user) == [(3_000_000, "by:ada")]
    assert given(User.objects.get(username="+plus")) == [(4_000_000, "by:ada")]


def many_people(count: int) -> str:
    users = User.objects.bulk_create(User(username=f"u{number:05}") for number in range(count))
    Wallet.objects.bulk_create(Wallet(user=user) for user in users)
    return "".join(f"u{number:05},2.5\n" for number in range(count))


def test_500_people_take_few_queries(as_administrator: Client, django_assert_max_num_queries):
    text = many_people(500)
    with django_assert_max_num_queries(5):
        page = preview(as_administrator, text)
    assert "And 300 more rows." in page
    with django_assert_max_num_queries(20):
        as_administrator.post(PATH, gift_form(page))
    assert LedgerEntry.objects.filter(kind="topup", available_change=2_500_000).count() == 500
    assert ledger_problems() == []


def test_10_000_rows_are_given_and_more_are_refused(as_administrator: Client):
    text = many_people(credit_sheets.MOST_ROWS)
    assert "At most 10000 rows at once; these are 10001." in preview(as_administrator, text + "ada,1\n")
    page = preview(as_administrator, text)
    assert len(page) < 800_000
    as_administrator.post(PATH, gift_form(page))
    assert LedgerEntry.objects.filter(kind="topup").count() == credit_sheets.MOST_ROWS


@pytest.mark.parametrize("path", [PATH, "/admin/accounts/user/credits/list.csv"])
def test_only_administrators(operator: User, user: User, path: str):
    assert logged_in(operator).get(path).status_code == 403
    assert logged_in(operator).post(path, {"text": "ben,5"}).status_code == 403
    assert logged_in(user).get(path, follow=True).status_code == 403
    assert Client().get(path).status_code == 302
