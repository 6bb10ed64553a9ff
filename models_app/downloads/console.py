"""What the console shows of downloads: how they go, what is recommended, what a hub has; and what its buttons do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from asgiref.sync import async_to_sync
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.translation import get_language, gettext_lazy, pgettext_lazy
from django.utils.translation import gettext as _

from llmplatform.lib.console import formats
from llmplatform.lib.console.badges import Kind
from llmplatform.lib.errors import ApiError
from models_app.downloads import catalogue, choosing, hubs, problems, selectors, services
from models_app.downloads.models import Download
from models_app.downloads.services import Wish
from models_app.downloads.transport import new_client
from models_app.models import ModelConfig

ASK_SECONDS = 12.0  # for all that a hub is asked while somebody waits for the page
STALL_SECONDS = 8.0
PAGE = "admin:models_app_modelconfig_get"
STATE_KINDS: dict[str, Kind] = {
    Download.State.DONE: "good",
    Download.State.FAILED: "bad",
    Download.State.CANCELLED: "off",
}
KINDS = {
    "chat": gettext_lazy("chat"),
    "embedding": gettext_lazy("embeddings"),
    "rerank": gettext_lazy("reranking"),
}
LANGUAGES = {
    "en": pgettext_lazy("of a model", "English"),
    "zh": pgettext_lazy("of a model", "Chinese"),
    "many": pgettext_lazy("of a model", "others"),
}


# -- what is shown ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OfferRow:
    id: str
    name: str
    about: str
    size: str
    memory: str
    licence: str
    fits: bool | None


@dataclass(frozen=True)
class DownloadRow:
    id: int
    what: str
    state: str
    kind: Kind
    percent: int | None
    amount: str
    reason: str
    may_cancel: bool
    may_retry: bool
    may_add: bool  # no model is made of it yet, and none will be by itself


@dataclass(frozen=True)
class FileRow:
    name: str
    source: str
    size: str


def offer_row(offer: catalogue.Offer) -> OfferRow:
    entry = offer.entry
    languages = ", ".join(str(LANGUAGES.get(one, one)) for one in entry.languages)
    memory = (
        formats.size(offer.needed) if offer.exact else _("at least %(size)s") % {"size": formats.size(offer.needed)}
    )
    about = " · ".join([str(KINDS[entry.kind]), languages])
    return OfferRow(entry.id, entry.name, about, formats.size(entry.size), memory, entry.licence or "", offer.fits)


def row_of(one: Download, files_in_use: set[str]) -> DownloadRow:
    state = Download.State.WAITING if one.tries < one.tries_wanted else Download.State(one.state)
    ended = state in Download.FINAL
    percent = min(100, 100 * one.fetched // one.size) if one.size and not ended else None
    return DownloadRow(
        id=one.pk,
        what=one.what,
        state=_("being cancelled") if one.cancelled and not ended else str(state.label),
        kind=STATE_KINDS.get(state, "busy"),
        percent=percent,
        amount=_amount(one, state),
        reason=problems.text(one.reason),
        may_cancel=state not in {Download.State.DONE, Download.State.CANCELLED} and not one.cancelled,
        may_retry=ended and state != Download.State.DONE,
        may_add=_may_add(one, state, files_in_use),
    )


def _amount(one: Download, state: str) -> str:
    if state in Download.FINAL:
        return formats.size(one.size)
    if not one.fetched:
        return formats.size(one.size) if one.size else ""
    text = _("%(there)s of %(all)s") % {"there": formats.size(one.fetched), "all": formats.size(one.size)}
    return f"{text}, {formats.size(one.speed)}/s" if one.speed else text


def _may_add(one: Download, state: str, files_in_use: set[str]) -> bool:
    if state == Download.State.DONE:
        return one.file not in files_in_use
    return state not in Download.FINAL and not one.model_name and not one.cancelled


def rows() -> list[DownloadRow]:
    used = set(ModelConfig.objects.values_list("file", flat=True))
    return [row_of(one, used) for one in selectors.recent()]


# -- a hub ----------------------------------------------------------------------------------------------------------------
@dataclass
class Found:
    """What a hub answered: the files of one repository, or names of repositories."""

    hub: str = ""
    repository: str = ""
    licence: str = ""
    files: list[FileRow] | None = None
    names: list[str] | None = None
    problem: str = ""
    repository_found: hubs.Repository | None = None


async def _ask(words: str, hub: str) -> Found:
    async with new_client(STALL_SECONDS) as client, asyncio.timeout(ASK_SECONDS):
        order = await hubs.order(client, hub, get_language() or "")
        if not hubs.REPOSITORY.match(words):
            return Found(order[0], names=await hubs.search(client, order[0], words))
        chosen, repository = await catalogue.on_one_of(client, order, words)
    files = [
        FileRow(choosing.base(file.name), f"{words}:{file.name}", formats.size(choosing.size_of(repository, file)))
        for file in choosing.first_parts(repository.files)
    ]
    return Found(chosen, words, repository.licence, files, repository_found=repository)


def look(words: str, hub: str) -> Found:
    """Asks a hub while the person waits, for a few seconds at most."""
    try:
        return async_to_sync(_ask)(words, hub)
    except problems.Problem as problem:
        return Found(problem=problems.text(problem.reason))
    except TimeoutError:
        return Found(problem=_("The hub did not answer in time."))


# -- buttons --------------------------------------------------------------------------------------------------------------
def act(request: HttpRequest) -> None:
    """What was done, or why not, is said on the next page."""
    sent = request.POST
    ways: dict[str, Callable[[str], str]] = {
        "source": lambda source: _pull(Wish(source, sent.get("hub", ""))),
        "cancel": lambda pk: _("%(what)s: will be cancelled.") % {"what": services.cancel(number(pk))},
        "retry": lambda pk: _("%(what)s: is tried again.") % {"what": services.retry(number(pk))},
    }
    try:
        for name, way in ways.items():
            if value := sent.get(name, "").strip():
                messages.success(request, way(value))
                return
    except ApiError as error:
        messages.error(request, error.message)
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))


def _pull(wish: Wish) -> str:
    download, new = services.pull(wish)
    if not new:
        return _("%(what)s is being downloaded already.") % {"what": download}
    return _("%(what)s: will be downloaded.") % {"what": download}


def number(value: str) -> int:
    """Of a row; 0, which none has, for anything else."""
    return int(value) if value.isdecimal() and len(value) < 10 else 0
