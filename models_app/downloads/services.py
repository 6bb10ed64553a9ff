"""What a person can ask for about downloads: fetch, cancel, try again. The worker, within the supervisor, does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from llmplatform.lib import audit
from llmplatform.lib.errors import ApiError
from models_app import config_file, found_files, names, services
from models_app.downloads import addresses, choosing, hubs, problems, staging
from models_app.downloads.models import Download
from models_app.downloads.selectors import OPEN
from models_app.models import MODEL_NAME, ModelConfig

MOST_OPEN = 100
KEPT = 500  # finished ones


class DownloadNotFound(ApiError):
    def __init__(self) -> None:
        super().__init__("download_not_found", _("There is no such download."), 404)


class DownloadFinished(ApiError):
    def __init__(self) -> None:
        super().__init__("download_finished", _("This download has ended already."), 409)


class TooManyDownloads(ApiError):
    def __init__(self) -> None:
        super().__init__("too_many_downloads", _("Too many downloads are waiting; let some of them end first."), 409)


@dataclass(frozen=True)
class Wish:
    """``source``: ``OWNER/REPOSITORY``, ``OWNER/REPOSITORY:FILE-or-quantisation``, or an address. ``hub``: "" for any."""

    source: str
    hub: str = ""
    model_name: str = ""
    model_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Aim:
    """Where a download comes from: a repository of a hub, an address, or an upload."""

    origin: str
    repository: str = ""
    wanted_file: str = ""
    url: str = ""
    upload: str = ""


def pull(wish: Wish) -> tuple[Download, bool]:
    """The download, and whether it is new: who wants what is being fetched already shares that. Raises ValidationError,
    ApiError."""
    return _begin(understood(wish.source.strip(), wish.hub), wish)


def take_upload(upload: str, file: str, size: int, sha256: str, wish: Wish) -> Download:
    """What was uploaded is checked and put among the models."""
    aim = Aim(Download.From.UPLOAD, wanted_file=file, upload=upload)
    files = [{"name": file, "size": size, "sha256": sha256 or None}]
    return _begin(aim, wish, files=files, size=size, fetched=size)[0]


def understood(source: str, hub: str) -> Aim:
    """Raises ValidationError for what cannot be fetched."""
    if "://" in source:
        known = hubs.from_url(source)
        if known is not None:
            origin, repository, file = known
            return Aim(origin, repository, file)
        try:
            addresses.check(source)
        except problems.Problem as problem:
            raise ValidationError({"source": problems.text(problem.reason)}) from None
        if not hubs.SAFE_PATH.match(choosing.base(unquote(urlsplit(source).path))):
            raise ValidationError({"source": _("The address must lead to a file whose name ends in .gguf.")})
        if len(source) > 2000:
            raise ValidationError({"source": _("This address is too long.")})
        return Aim(Download.From.URL, url=source)
    repository, _colon, file = source.partition(":")
    if not hubs.REPOSITORY.match(repository) or len(file) > 500:
        message = _("Write OWNER/REPOSITORY, OWNER/REPOSITORY:FILE, OWNER/REPOSITORY:Q4_K_M, or an address.")
        raise ValidationError({"source": message})
    if hub not in {"", "auto", *hubs.HUBS}:
        raise ValidationError({"hub": _("There is no such hub.")})
    return Aim("" if hub == "auto" else hub, repository, file)


def _begin(aim: Aim, wish: Wish, **observed: Any) -> tuple[Download, bool]:
    _check_name(wish.model_name)
    same = {"repository": aim.repository, "wanted_file": aim.wanted_file, "url": aim.url, "upload": aim.upload}
    with transaction.atomic():
        known = Download.objects.filter(OPEN, origin=aim.origin, cancelled=False, **same).first()
        if known is not None and (not wish.model_name or known.model_name in {wish.model_name, ""}):
            if wish.model_name:
                Download.objects.filter(pk=known.pk).update(
                    model_name=wish.model_name, model_settings=dict(wish.model_settings)
                )
            return known, False
        if Download.objects.filter(OPEN).count() >= MOST_OPEN:
            raise TooManyDownloads
        made = Download.objects.create(
            origin=aim.origin,
            **same,
            language=(get_language() or "")[:16],
            model_name=wish.model_name,
            model_settings=dict(wish.model_settings),
            **observed,
        )
        audit.record(
            "download.create", "download", made.pk, made.what[:200], after={"model_name": wish.model_name}, event=True
        )
        _forget_old()
    return made, True


def _check_name(name: str) -> None:
    if not name:
        return
    MODEL_NAME(name)
    if owner := names.owner_of(name):
        raise services.ModelExists(name, owner)


def _forget_old() -> None:
    """Of the finished ones the oldest; what failed stays longer than anybody would try it again."""
    old = Download.objects.exclude(OPEN).order_by("-pk").values_list("pk", flat=True)[KEPT:]
    Download.objects.filter(pk__in=list(old)).delete()


def cancel(pk: int) -> Download:
    """What came of it is deleted. Raises DownloadNotFound, DownloadFinished."""
    with transaction.atomic():
        download = get(pk)
        if download.state in {Download.State.DONE, Download.State.CANCELLED} and not download.is_open:
            raise DownloadFinished
        if not download.cancelled:
            Download.objects.filter(pk=pk).update(cancelled=True)
            audit.record("download.cancel", "download", pk, download.what[:200])
    return get(pk)


def retry(pk: int) -> Download:
    """One that failed or was cancelled goes on, with what came of it. Raises DownloadNotFound, DownloadFinished."""
    with transaction.atomic():
        download = get(pk)
        if download.state == Download.State.DONE:
            raise DownloadFinished
        if download.state in Download.FINAL and not download.is_open:
            Download.objects.filter(pk=pk).update(cancelled=False, tries_wanted=F("tries_wanted") + 1)
            audit.record("download.retry", "download", pk, download.what[:200])
    return get(pk)


def add_model(pk: int, name: str) -> ModelConfig:
    """A model entry for a finished download. Raises DownloadNotFound, ValidationError, ModelExists."""
    download = get(pk)
    if download.state != Download.State.DONE:
        raise ValidationError({"modelName": _("The download has not ended yet.")})
    MODEL_NAME(name)
    return services.create_model(fields_for(download, name))


def promise_model(pk: int, name: str, settings: Mapping[str, Any]) -> ModelConfig | None:
    """The model that is made when the download is done: None then, else it is made at once. Raises DownloadNotFound,
    DownloadFinished for one that failed, ValidationError, ModelExists."""
    _check_name(name)
    with transaction.atomic():
        download = get(pk)
        rows = Download.objects.filter(OPEN, pk=pk, cancelled=False)
        if rows.update(model_name=name, model_settings=dict(settings)):
            audit.record("download.name", "download", pk, download.what[:200], after={"model_name": name}, event=True)
            return None
    if download.state != Download.State.DONE:
        raise DownloadFinished
    Download.objects.filter(pk=pk).update(model_settings=dict(settings))
    return add_model(pk, name)


def fields_for(download: Download, name: str) -> dict[str, Any]:
    """Of ModelConfig: what the file says itself, and what is known about it besides."""
    entry = found_files.entry_for_file(staging.place_of(download.file), name)
    fields = config_file.values_of(entry)
    return {**fields, **download.model_settings, "name": name}


def get(pk: int) -> Download:
    """Raises DownloadNotFound."""
    download = Download.objects.filter(pk=pk).first()
    if download is None:
        raise DownloadNotFound
    return download
