"""What somebody has chosen to make a model of, as the address of a step names it: one of ``file``, ``entry`` (of the
catalogue), ``source`` (with ``hub``) and ``download``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from models_app import config_file, found_files, model_files, model_folder, names, reasons
from models_app.downloads import catalogue, choosing, console, headers, hubs, problems, pull, staging
from models_app.downloads import services as downloads
from models_app.downloads.fetch import RemoteFile
from models_app.downloads.models import Download
from models_app.gguf import MODELS, SPLIT_NAME, GgufError, GgufFacts

KINDS = ("file", "entry", "source", "download")
LONGEST = 2000


class NotChoosable(Exception):
    """Why it cannot be a model, in the reader's language."""


@dataclass(frozen=True)
class Choice:
    """``exact``: memory can be told from ``facts``; else only ``size`` (bytes) is known, or nothing. ``read``: the facts are the
    file's own."""

    query: Mapping[str, str]
    title: str
    base: str  # name of the file
    file: str = ""  # seen from the models folder, when it is there
    facts: GgufFacts | None = None
    size: int | None = None
    exact: bool = False
    read: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)  # what is known to be good, by field
    stem: str = ""  # what a name is made of
    wished: tuple[str, str] = ("", "")  # source and hub that fetch it
    download: int | None = None  # one that is under way

    @property
    def is_there(self) -> bool:
        return bool(self.file)

    def address(self, **more: Any) -> str:
        return urlencode({**self.query, **more})


def resolve(sent: Mapping[str, str], *, asks_hub: bool = False) -> Choice | None:
    """None when nothing was chosen. Raises NotChoosable. ``asks_hub``: for what a repository has and for the header of what is
    not here yet, some seconds at most."""
    kind = next((one for one in KINDS if sent.get(one, "").strip()), "")
    if not kind:
        return None
    value = sent[kind].strip()
    if len(value) > LONGEST:
        raise NotChoosable(_("This address is too long."))
    if kind == "source":
        return _from_source(value, sent.get("hub", ""), asks_hub)
    if kind == "entry":
        return _from_catalogue(value, asks_hub)
    return _from_file(value) if kind == "file" else _from_download(value)


# -- a file that is there --------------------------------------------------------------------------------------------------
def _from_file(name: str) -> Choice:
    gone = NotChoosable(
        _("The file %(file)s is not in the models folder any more. Choose another one.") % {"file": name}
    )
    try:
        path = model_files.locate(name, "models/")
        if not name.lower().endswith(".gguf") or not path.is_file():
            raise gone
    except (model_files.UnsafePath, OSError, RuntimeError):
        raise gone from None
    found = model_folder.look_at(path, name, 0)
    if found.facts is None:
        raise NotChoosable(found.why_rejected)
    _check_kind(name, found.facts)
    known = config_file.values_of(found_files.entry_for_file(path, "x"))
    settings = {name_: known[name_] for name_ in ("embeddings", "rerank", "description") if known[name_]}
    return Choice(
        {"file": name},
        name,
        path.name,
        name,
        found.facts,
        found.size,
        exact=True,
        read=True,
        settings=settings,
        stem=_stem(path.name),
    )


def _check_kind(name: str, facts: GgufFacts) -> None:
    """Raises NotChoosable when it is no model by itself."""
    if facts.kind not in MODELS:
        kind = {"file": name, "kind": facts.kind, "wanted": "model"}
        raise NotChoosable(reasons.text(reasons.reason("gguf_wrong_kind", **kind)))


def _stem(file: str) -> str:
    return SPLIT_NAME.sub("", file).removesuffix(".gguf")


# -- one that has to be fetched --------------------------------------------------------------------------------------------
def _from_catalogue(entry_id: str, asks_hub: bool) -> Choice:
    entry = catalogue.find(entry_id)
    if entry is None:
        raise NotChoosable(_("There is no such model in the catalogue."))
    base = choosing.base(entry.file)
    if (there := _fetched_before(base, entry.size)) is not None:
        return replace(there, title=entry.name, settings={**there.settings, **entry.settings}, stem=entry.id)
    choice = Choice(
        {"entry": entry.id},
        entry.name,
        base,
        facts=catalogue.facts_of(entry),
        size=entry.size,
        exact=entry.memory is not None and entry.size is not None,
        settings=entry.settings,
        stem=entry.id,
        wished=(entry.source, "" if entry.modelscope else hubs.HUGGING_FACE),
    )
    if asks_hub and not choice.exact:
        with contextlib.suppress(NotChoosable):  # the download says what is wrong
            aim = downloads.understood(*choice.wished)
            found = _found(aim.repository, aim.origin)
            choice = _with_header(choice, _parts(found, aim.wanted_file))
    return _with_header(choice) if not choice.exact else choice


def _with_header(choice: Choice, parts: Sequence[RemoteFile] = ()) -> Choice:
    """With what the file itself says, as far as that is known or can be fetched. Raises NotChoosable when it is no model."""
    what = " ".join(choice.wished)
    try:
        facts = headers.facts_of(what, parts) if parts else headers.known(what)
    except GgufError as error:
        raise NotChoosable(reasons.text(reasons.reason(error.code, **{"file": choice.base, **error.params}))) from None
    if facts is None:
        return choice
    _check_kind(choice.base, facts)
    return replace(choice, facts=facts, size=facts.size, exact=True, read=True)


def _from_source(source: str, hub: str, asks_hub: bool) -> Choice:
    try:
        aim = downloads.understood(source, hub)
    except ValidationError as error:
        raise NotChoosable(" ".join(error.messages)) from None
    base = choosing.base(unquote(urlsplit(aim.url).path) if aim.url else aim.wanted_file or aim.repository)
    if not aim.url and asks_hub:
        return _from_hub(aim.repository, aim.wanted_file, aim.origin)
    query = {"source": source, **({"hub": hub} if hub else {})}
    choice = Choice(query, source, base, stem=_stem(base), wished=(source, hub))
    choice = _with_header(choice, pull.files_at(aim.url) if aim.url and asks_hub else ())
    return _fetched_before(base, choice.size) or choice


def _from_hub(repository: str, wanted: str, hub: str) -> Choice:
    """From here on the address names the file and the hub that has it."""
    found = _found(repository, hub)
    parts = _parts(found, wanted)
    base, source = choosing.base(parts[0].name), f"{repository}:{parts[0].name}"
    size = sum(part.size for part in parts if part.size) if all(part.size for part in parts) else None
    if (there := _fetched_before(base, size)) is not None:
        return there
    query = {"source": source, "hub": found.hub}
    choice = Choice(query, source, base, size=size, stem=_stem(base), wished=(source, found.hub))
    return _with_header(choice, parts)


def _fetched_before(base: str, size: int | None) -> Choice | None:
    """The file of that name among the models, where it is the one that is meant: as long as that, if that is known. Raises
    NotChoosable when it is another one."""
    try:
        if not staging.place_of(base).is_file():
            return None
    except OSError:  # no name for a file
        return None
    another = NotChoosable(problems.text({"code": "file_exists", "params": {"file": base}}))
    try:
        there = _from_file(base)
    except NotChoosable:
        raise another from None
    if size is not None and there.size != size:
        raise another
    return there


def _found(repository: str, hub: str) -> console.Found:
    found = console.look(repository, hub)
    if found.repository_found is None:
        raise NotChoosable(found.problem)
    return found


def _parts(found: console.Found, wanted: str) -> list[RemoteFile]:
    assert found.repository_found is not None  # noqa: S101 - by _found
    try:
        return choosing.choose(found.repository_found, wanted)
    except problems.Problem as problem:
        raise NotChoosable(problems.text(problem.reason)) from None


def _from_download(pk: str) -> Choice:
    download = Download.objects.filter(pk=console.number(pk)).first()
    if download is None:
        raise NotChoosable(_("There is no such download."))
    if download.state == Download.State.DONE:
        there = _from_file(download.file)
        return replace(there, settings={**there.settings, **download.model_settings})
    if download.cancelled or not download.is_open:
        raise NotChoosable(problems.text(download.reason) or _("This download was cancelled."))
    base = download.file or choosing.base(download.wanted_file or download.url or download.repository)
    return Choice(
        {"download": str(download.pk)},
        download.what,
        base,
        size=download.size,
        settings=download.model_settings,
        stem=_stem(base),
        download=download.pk,
    )


def free_name(choice: Choice) -> str:
    return found_files.free_name(choice.stem, names.taken())
