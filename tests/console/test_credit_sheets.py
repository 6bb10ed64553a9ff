"""Lists of credits as people make them: what is understood, and what is said of the rest."""

from __future__ import annotations

import pytest

from accounts import credit_sheets
from accounts.credit_sheets import SheetRefused, matched, read, text_of
from accounts.models import User
from tests.console.conftest import person

LIST = "username,amount,note\nada,12.5,thanks\n王小明,100,谢谢\n"


def amounts(text: str) -> list[tuple[str, int]]:
    sheet = read(text)
    assert sheet.problems == []
    return [(row.name, row.amount) for row in sheet.rows]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_encodings(encoding: str):
    assert text_of(LIST.encode(encoding)).lstrip("\ufeff") == LIST


@pytest.mark.parametrize("content", [b"PK\x03\x04\x00\x00\xff\x00", b"\xff\xfe\x00", b"a\x00b", b"\xff" * 9])
def test_what_is_no_text_is_refused(content: bytes):
    with pytest.raises(SheetRefused):
        text_of(content)


@pytest.mark.parametrize("separator", [",", ";", "\t", "，", "；"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends(separator: str, ending: str):
    text = LIST.replace(",", separator).replace("\n", ending)
    assert amounts(text) == [("ada", 12_500_000), ("王小明", 100_000_000)]


@pytest.mark.parametrize(
    "text",
    [
        "ada,5",
        "\n\n  ada , 5 \n\n",
        "Amount;User name\n5;ada\n",
        "用户名,额度\nada,5\n",
        "email,note,credits,username\na@b.example,x,5,ada\n",
        '"ada","5",""\n',
        "\ufeffusername,amount\nada,5.000000\n",
        "ada\t５\n",
    ],
)
def test_ways_to_write_the_same(text: str):
    assert amounts(text) == [("ada", 5_000_000)]


@pytest.mark.parametrize(
    ("text", "amount"),
    [("ada,0.000001", 1), ("ada,1000000000", 10**15), ('ada,"1,000"', 10**9), ("ada;1,000.50", 1_000_500_000)],
)
def test_amounts(text: str, amount: int):
    assert amounts(text) == [("ada", amount)]


@pytest.mark.parametrize(
    "amount",
    [
        "0",
        "-5",
        "+5",
        "1e3",
        "five",
        "0.0000001",
        "1000000001",
        "12;5",
        "NaN",
        "Infinity",
        "1_000",
        "0x10",
        "¥5",
        "1 2,3",
    ],
)
def test_bad_amounts_are_told_with_their_line(amount: str):
    sheet = read(f'username,amount\nben,1\nada,"{amount}"\n')
    assert [row.name for row in sheet.rows] == ["ben"]
    assert [problem.line for problem in sheet.problems] == [3]


def test_a_comma_that_could_be_either_is_refused():
    assert read("ada;1,000\n").problems[0].line == 1
    assert read("ada\t12,5\n").problems[0].line == 1


def test_lines_without_an_amount_are_left_out_and_counted():
    sheet = read("username,amount,note\nada,,\nben,5,\ncarl\n")
    assert ([row.name for row in sheet.rows], sheet.without_amount, sheet.problems) == (["ben"], 2, [])


def test_line_numbers_count_what_an_editor_counts():
    sheet = read('username,amount,note\n\nada,5,"two\nlines"\nben,x\n,7\n')
    assert sheet.rows[0].line == 3
    assert [problem.line for problem in sheet.problems] == [5, 6]


def test_quotes_that_do_not_match_end_the_reading():
    sheet = read('ada,5\nben,"6\ncarl,7\n')
    assert [row.name for row in sheet.rows] == ["ada"]
    assert [problem.line for problem in sheet.problems] == [2]


@pytest.mark.parametrize("text", ["", "\n\n", "username,amount\n", "username,amount\nada,\n"])
def test_an_empty_list_is_refused(text: str):
    with pytest.raises(SheetRefused):
        read(text)


def test_long_lists_are_refused_with_the_number():
    with pytest.raises(SheetRefused, match="10001"):
        read("".join(f"u{number},1\n" for number in range(credit_sheets.MOST_ROWS + 1)))
    with pytest.raises(SheetRefused, match="2 MB"):
        text_of(b"a" * (credit_sheets.MOST_BYTES + 1))


# -- people ------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_people_are_found_ignoring_case_and_width():
    ada, wang = person("ada"), person("王小明")
    gifts = matched(read("ＡＤＡ,1\n王小明,2\n"))
    assert [(gift.user, gift.amount) for gift in gifts] == [(ada, 1_000_000), (wang, 2_000_000)]


@pytest.mark.django_db
def test_unknown_and_repeated_people_are_told():
    person("ada")
    sheet = read("ada,1\nbob,2\nADA,3\n%,4\na_a,5\n")
    assert [gift.line for gift in matched(sheet)] == [1]
    assert [(problem.line, problem.text) for problem in sheet.problems] == [
        (2, "There is no user “bob”."),
        (3, "ada stands in line 1 already."),
        (4, "There is no user “%”."),
        (5, "There is no user “a_a”."),
    ]


@pytest.mark.django_db
def test_a_name_that_fits_two_people_is_nobody(monkeypatch: pytest.MonkeyPatch):
    """SQLite tells Ä from ä, so both may have an account: money must not go to the wrong one."""
    ada, other = User(username="Äda", pk=1), User(username="äda", pk=2)
    monkeypatch.setattr(credit_sheets, "_accounts", lambda names: iter([ada, other]))
    gifts = matched(read("äda,1\nÄDA,2\n"))
    assert [(gift.user, gift.line) for gift in gifts] == [(other, 1)]


@pytest.mark.django_db
def test_many_people_take_few_queries(django_assert_num_queries):
    User.objects.bulk_create(User(username=f"u{number}") for number in range(1200))
    sheet = read("".join(f"u{number},1\n" for number in range(1200)))
    with django_assert_num_queries(3):
        assert len(matched(sheet)) == 1200
