"""Credits for many people at once: upload or paste a list, look at what it would do, give. Nothing is kept in between: the
preview carries the list, and the number of the gift is made of both, so that the same preview gives once."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.widgets import UnfoldAdminFileFieldWidget

from accounts import credit_sheets, credits, ledger_notes
from accounts.admin.fields import text_area
from accounts.api.csv_answer import CsvAnswer
from accounts.credit_sheets import Gift, Sheet, SheetRefused
from accounts.models import User
from llmplatform.lib.console import formats
from llmplatform.lib.console.pages import page

ROWS_SHOWN = 200
PROBLEMS_SHOWN = 100
TEXT_SHOWN = 200_000  # characters of a list that may be corrected on the page itself
PROBLEMS_TOLD = 5
PEOPLE_AT_ONCE = 1000
TEMPLATE_COLUMNS = ["username", "amount", "note", "email", "group"]
NONCE = re.compile(r"[0-9a-f]{32}")


class ListForm(forms.Form):
    file = forms.FileField(
        label=gettext_lazy("CSV file"),
        required=False,
        widget=UnfoldAdminFileFieldWidget(attrs={"accept": ".csv,.txt,text/csv,text/plain"}),
    )
    text = forms.CharField(
        label=gettext_lazy("Or paste the rows"),
        required=False,
        strip=False,
        widget=text_area(8, placeholder="ada,100\nben,12.5", spellcheck="false", **{"class": "c-code"}),
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        file, text = cleaned.get("file"), cleaned.get("text") or ""
        if file is None and not text.strip() and not self.errors:
            raise ValidationError(_("Choose a file, or paste the rows."))
        name = "file" if file is not None else "text"
        try:
            cleaned["rows"] = credit_sheets.text_of(_content(file)) if file is not None else text
            cleaned["sheet"] = credit_sheets.read(cleaned["rows"])
        except SheetRefused as error:
            self.add_error(name, str(error))
        return cleaned


def _content(file: Any) -> bytes:
    """One byte more than is taken is enough to tell that a file is too large."""
    content: bytes = file.read(credit_sheets.MOST_BYTES + 1)
    return content


def credits_by_csv(model_admin: Any, request: HttpRequest) -> HttpResponse:
    if request.method == "POST" and request.POST.get("step") == "give":
        return _give(model_admin, request)
    if request.method != "POST":
        return _start(model_admin, request, ListForm())
    form = ListForm(request.POST, request.FILES)
    if form.is_valid():
        return _preview(model_admin, request, form.cleaned_data["rows"], form.cleaned_data["sheet"])
    return _start(model_admin, request, form)


def people_csv(request: HttpRequest) -> HttpResponseBase:
    """The list to fill in: everybody, without amounts."""
    return CsvAnswer(TEMPLATE_COLUMNS, _everybody(), filename="credits.csv", marked=True)


def _everybody() -> Iterator[list[dict[str, str]]]:
    after = ""
    rows = User.objects.filter(service_of=None).select_related("group").order_by("username")
    while people := list(rows.filter(username__gt=after)[:PEOPLE_AT_ONCE]):
        yield [
            {
                "username": user.username,
                "amount": "",
                "note": "",
                "email": user.email,
                "group": user.group.name if user.group else "",
            }
            for user in people
        ]
        after = people[-1].username


# -- the two pages -------------------------------------------------------------------------------------------------


def _start(model_admin: Any, request: HttpRequest, form: ListForm) -> HttpResponse:
    return page(
        model_admin,
        request,
        "console/credits_start.html",
        _("Credits by CSV"),
        form=form,
        template_url=reverse("admin:accounts_user_credits_list"),
        most_rows=formats.number(credit_sheets.MOST_ROWS),
    )


def _preview(model_admin: Any, request: HttpRequest, text: str, sheet: Sheet) -> HttpResponse:
    gifts = credit_sheets.matched(sheet)
    problems = sheet.problems
    rows = "" if problems else _canonical(gifts)
    correctable = text if len(text) <= TEXT_SHOWN else ""
    return page(
        model_admin,
        request,
        "console/credits_preview.html",
        _("Credits by CSV"),
        rows=[_shown(gift) for gift in gifts[:ROWS_SHOWN]],
        other_rows=len(gifts) - ROWS_SHOWN,
        people=len(gifts),
        total=formats.credits(sum(gift.amount for gift in gifts)),
        without_amount=sheet.without_amount,
        problems=problems[:PROBLEMS_SHOWN],
        problem_count=len(problems),
        other_problems=len(problems) - PROBLEMS_SHOWN,
        text=rows,
        nonce=uuid.uuid4().hex,
        form=ListForm(initial={"text": correctable}),
    )


def _shown(gift: Gift) -> dict[str, Any]:
    user = gift.user
    remark = ""
    if user.waiting:
        remark = _("waits for approval")
    elif not user.is_active:
        remark = _("blocked")
    elif getattr(user, "wallet", None) and user.wallet.unlimited:
        remark = _("unlimited")
    return {
        "line": gift.line,
        "name": user.username,
        "url": reverse("admin:accounts_user_change", args=[user.pk]),
        "amount": formats.credits(gift.amount),
        "note": gift.note,
        "remark": remark,
    }


def _canonical(gifts: Sequence[Gift]) -> str:
    """The gifts as a list that reads back as the same gifts."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["username", "amount", "note"])
    for gift in gifts:
        credit_text = f"{gift.amount // formats.MICRO}.{gift.amount % formats.MICRO:06d}"
        writer.writerow([gift.user.username, credit_text, gift.note])
    return buffer.getvalue()


# -- giving --------------------------------------------------------------------------------------------------------


def _give(model_admin: Any, request: HttpRequest) -> HttpResponse:
    nonce, text = request.POST.get("nonce", ""), request.POST.get("rows", "").replace("\r\n", "\n")
    try:
        sheet = credit_sheets.read(text)
    except SheetRefused:
        sheet = Sheet()
    gifts = credit_sheets.matched(sheet)
    if sheet.problems or not gifts or not NONCE.fullmatch(nonce):  # somebody was renamed since the preview
        messages.error(request, _("Nothing was given: the list does not fit any more. Look at it once more."))
        return _preview(model_admin, request, text, sheet) if gifts else _start(model_admin, request, ListForm())
    default_note = ledger_notes.by(request.user.get_username())
    batch = hashlib.sha256(f"{nonce}\n{text}".encode()).hexdigest()[:32]
    rows = [credits.CreditRow(gift.user.username, gift.amount, gift.note or default_note) for gift in gifts]
    try:
        given = credits.top_up_many(rows, batch=batch)
    except ValidationError as error:  # a balance that would be too large, somebody renamed this very moment
        messages.error(request, _("Nothing was given.") + " " + " ".join(error.messages[:PROBLEMS_TOLD]))
        return _preview(model_admin, request, text, sheet)
    count, total = len(gifts), formats.credits(sum(gift.amount for gift in gifts))
    if given:
        text = ngettext("%(count)d person got %(total)s credits.", "%(count)d people got %(total)s credits.", count)
        messages.success(request, text % {"count": count, "total": total})
    else:
        messages.info(request, _("This list was given already: nothing was given a second time."))
    return HttpResponseRedirect(reverse("admin:accounts_user_changelist"))
