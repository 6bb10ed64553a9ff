"""Lists of who gets how many credits, as people make them: in a spreadsheet or a text editor, in Chinese or English.

``text_of`` decodes a file, ``read`` takes a text apart, ``matched`` finds the people. Nothing is written here. What is wrong
is told by line, all at once, so that a list is corrected one time.

    SheetRefused    the list cannot be read at all; ``str()`` says why, in the reader's language
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from django.db.models import Value
from django.db.models.functions import Lower
from django.utils.translation import gettext as _

from accounts.models import User

MOST_BYTES = 2 * 1024 * 1024
MOST_ROWS = 10_000
MOST_CREDITS = 10**9
MICRO = 1_000_000
ASKED_AT_ONCE = 500  # user names in one query
LONGEST_NOTE = 200

SEPARATORS = "\t;；,，"
NAME_HEADERS = {"username", "user", "user name", "name", "login", "用户名", "用户", "账号", "帐号", "姓名"}
AMOUNT_HEADERS = {"amount", "credits", "credit", "额度", "金额", "数量", "点数", "积分"}
NOTE_HEADERS = {"note", "notes", "comment", "备注", "说明"}
PLAIN_AMOUNT = re.compile(r"\d{1,10}(\.\d{1,6}0*)?")
# 1,000.50 always; 1,000 only where a comma parts the columns and is therefore no decimal sign.
GROUPED_AMOUNT = re.compile(r"\d{1,3}(,\d{3})+\.\d{1,6}0*")
GROUPED_WHOLE = re.compile(r"\d{1,3}(,\d{3})+")
# What a CSV of ours puts before a cell that a spreadsheet would take for a formula.
ESCAPED = re.compile(r"^'(?=[=+@\t\r-])")


class SheetRefused(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Row:
    line: int
    name: str
    amount: int  # micro-credits
    note: str


@dataclass(frozen=True, slots=True)
class Problem:
    line: int
    text: str


@dataclass(slots=True)
class Sheet:
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    without_amount: int = 0  # lines that name somebody and give nothing: left out


@dataclass(frozen=True, slots=True)
class Gift:
    """A row whose person was found."""

    line: int
    user: User
    amount: int
    note: str


# -- reading -----------------------------------------------------------------------------------------------------------


def text_of(content: bytes) -> str:
    """UTF-8 with or without a mark, UTF-16 as Excel's “Unicode text”, else GB18030 as Chinese Excel writes it."""
    if len(content) > MOST_BYTES:
        raise SheetRefused(_too_large())
    encodings = ["utf-16"] if content.startswith((b"\xff\xfe", b"\xfe\xff")) else ["utf-8-sig", "gb18030"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\x00" not in text:
            return text
    raise SheetRefused(_("This is no text. Save the table as CSV (UTF-8) and choose that file."))


def read(text: str) -> Sheet:
    """Raises SheetRefused for an empty list, and one that is too long."""
    if len(text) > MOST_BYTES:
        raise SheetRefused(_too_large())
    separator = _separator(text)
    sheet, columns = Sheet(), None
    for line, cells in _records(text, separator, sheet):
        if columns is None:
            columns = _columns(cells)
            if columns is not None:
                continue
            columns = (0, 1, 2)
        _take(sheet, line, cells, columns, separator)
    if len(sheet.rows) > MOST_ROWS:
        raise SheetRefused(
            _("At most %(most)d rows at once; these are %(count)d. Divide the list.")
            % {"most": MOST_ROWS, "count": len(sheet.rows)}
        )
    if not sheet.rows and not sheet.problems:
        raise SheetRefused(_("There is nobody in this list with an amount."))
    return sheet


def _too_large() -> str:
    return _("The list is too large: at most %(size)d MB.") % {"size": MOST_BYTES // 1024 // 1024}


def _separator(text: str) -> str:
    """The one that the first line with anything in it has most of."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    unquoted = re.sub(r'"[^"]*"', "", first)
    return max(SEPARATORS, key=unquoted.count) if any(sign in unquoted for sign in SEPARATORS) else ","


def _records(text: str, separator: str, sheet: Sheet) -> Iterator[tuple[int, list[str]]]:
    """Lines with anything in them, with the number of each one's first line."""
    reader = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            said = _("The quotation marks in this line do not match; what follows it was not read.")
            sheet.problems.append(Problem(line, said))
            return
        cleaned = [ESCAPED.sub("", cell.strip()) for cell in cells]
        if any(cleaned):
            yield line, cleaned


def _columns(cells: Sequence[str]) -> tuple[int, int, int | None] | None:
    """Where name, amount and note stand by the names in the first row; None when it is not a row of names."""
    names = [cell.lower() for cell in cells]

    def place(known: set[str]) -> int | None:
        return next((index for index, name in enumerate(names) if name in known), None)

    name, amount = place(NAME_HEADERS), place(AMOUNT_HEADERS)
    return None if name is None or amount is None else (name, amount, place(NOTE_HEADERS))


def _take(sheet: Sheet, line: int, cells: Sequence[str], columns: tuple[int, int, int | None], separator: str) -> None:
    name, amount, note = ("" if at is None or at >= len(cells) else cells[at] for at in columns)
    if not name:
        sheet.problems.append(Problem(line, _("There is no user name in this line.")))
    elif not amount:
        sheet.without_amount += 1
    else:
        try:
            sheet.rows.append(Row(line, name, _micro_credits(amount, separator), note[:LONGEST_NOTE]))
        except ValueError as error:
            sheet.problems.append(Problem(line, str(error)))


def _micro_credits(text: str, separator: str) -> int:
    """Raises ValueError with what is wrong, in the reader's language."""
    plain = unicodedata.normalize("NFKC", text).replace(" ", "")
    if GROUPED_AMOUNT.fullmatch(plain) or (separator in ",，" and GROUPED_WHOLE.fullmatch(plain)):
        plain = plain.replace(",", "")
    if not PLAIN_AMOUNT.fullmatch(plain):
        raise ValueError(
            _("“%(text)s” is not an amount. Write it like 1000 or 12.5, above 0, with at most 6 decimals.")
            % {"text": text[:40]}
        )
    amount = int(Decimal(plain) * MICRO)
    if not 0 < amount <= MOST_CREDITS * MICRO:
        raise ValueError(_("An amount must be above 0 and at most %(most)d credits.") % {"most": MOST_CREDITS})
    return amount


# -- people ------------------------------------------------------------------------------------------------------------


def matched(sheet: Sheet) -> list[Gift]:
    """The rows whose people there are; unknown and repeated ones are added to the sheet's problems."""
    people = _People([row.name for row in sheet.rows])
    gifts: list[Gift] = []
    lines: dict[int, int] = {}
    for row in sheet.rows:
        user = people.find(row.name)
        if user is None:
            text = _("There is no user “%(name)s”.") % {"name": row.name[:80]}
        elif user.pk in lines:
            text = _("%(name)s stands in line %(line)d already.") % {"name": user.username, "line": lines[user.pk]}
        else:
            lines[user.pk] = row.line
            gifts.append(Gift(row.line, user, row.amount, row.note))
            continue
        sheet.problems.append(Problem(row.line, text))
    sheet.problems.sort(key=lambda problem: problem.line)
    return gifts


class _People:
    """Accounts by name: as it is written, else ignoring case where only one fits."""

    def __init__(self, names: Sequence[str]) -> None:
        self._exact: dict[str, User] = {}
        self._by_lower: dict[str, list[User]] = defaultdict(list)
        wanted = sorted({_normal(name) for name in names if name.isprintable()})
        for begin in range(0, len(wanted), ASKED_AT_ONCE):
            for user in _accounts(wanted[begin : begin + ASKED_AT_ONCE]):
                self._exact[user.username] = user
                self._by_lower[user.username.lower()].append(user)

    def find(self, name: str) -> User | None:
        normal = _normal(name)
        if normal in self._exact:
            return self._exact[normal]
        found = self._by_lower.get(normal.lower(), [])
        return found[0] if len(found) == 1 else None


def _normal(name: str) -> str:
    return User.normalize_username(name)


def _accounts(names: Sequence[str]) -> Iterator[User]:
    """The database lowers letters its own way, so it is asked to do so on both sides."""
    people = User.objects.filter(service_of=None).alias(lower_name=Lower("username")).select_related("wallet")
    found = people.filter(lower_name__in=[Lower(Value(name)) for name in names])
    yield from found.only("username", "is_active", "waiting", "wallet__unlimited")
