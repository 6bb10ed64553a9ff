"""One download from its beginning to its end, as often as it takes. It alone writes how the download goes."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import httpx
from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import Error as DatabaseError
from django.utils import timezone

from models_app import config_file
from models_app import services as model_services
from models_app.downloads import catalogue, choosing, hubs, services, staging
from models_app.downloads.fetch import RemoteFile, Timing, Watcher, as_problem, check_room, fetch, in_thread
from models_app.downloads.http import Source
from models_app.downloads.models import Download
from models_app.downloads.problems import Passing, Problem
from models_app.gguf import SPLIT_NAME

logger = logging.getLogger(__name__)
T = TypeVar("T")
State = Download.State
TELL = 1.0  # seconds between two writings of how far it is


class Pull:
    def __init__(
        self, row: Download, client: httpx.AsyncClient, locks: dict[str, asyncio.Lock], timing: Timing
    ) -> None:
        self.row, self.client, self.locks, self.timing = row, client, locks, timing
        self._told_at, self._told_bytes = time.monotonic(), 0

    async def run(self) -> None:
        """Never raises, unless it is cancelled."""
        row = self.row
        try:
            await self._write(state=State.LOOKING, tries=row.tries_wanted, reason=None, speed=0)
            files = await self._patiently(self._files)
            await self._bring(files)
            await self._write(state=State.DONE, speed=0, reason=await self._model_entry())
            logger.info("%s: is in the models folder", row.file)
        except Problem as problem:
            logger.warning("%s: not fetched: %s", row.what, problem.reason)
            await self._end_badly(problem.reason)
        except DatabaseError as error:  # begins again with the next look
            logger.warning("%s: the database does not answer: %s", row.what, error)
        except Exception:
            logger.exception("%s: not fetched", row.what)
            await self._end_badly({"code": "internal_error", "params": {}})

    async def _end_badly(self, reason: dict[str, Any]) -> None:
        try:
            await self._write(state=State.FAILED, speed=0, reason=reason)
        except DatabaseError as error:
            logger.warning("%s: the database does not answer: %s", self.row.what, error)

    async def _write(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self.row, name, value)
        rows = Download.objects.filter(pk=self.row.pk)
        await sync_to_async(rows.update)(**fields, changed_at=timezone.now())

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What may go better in a moment is asked again."""
        failures = 0
        while True:
            try:
                return await ask()
            except Passing as problem:
                failures += 1
                if failures >= self.timing.attempts:
                    raise Problem(problem.code, **problem.params) from None
                wait = min(self.timing.longest_wait, self.timing.first_wait * 2.0**failures)
                seconds = wait if problem.wait is None else problem.wait
                why = problem.in_a_moment(seconds)
            await self._write(reason=why)
            await asyncio.sleep(seconds)

    # -- what to fetch -----------------------------------------------------------------------------------------------
    async def _files(self) -> list[RemoteFile]:
        row = self.row
        if row.origin == Download.From.UPLOAD:
            known = row.files[0]
            return [RemoteFile(Source("", row.what), known["name"], known["size"], known["sha256"])]
        found = files_at(row.url) if row.origin == Download.From.URL else await self._from_hubs()
        before = {file["name"]: file for file in row.files}
        files = [RemoteFile(file.source, choosing.base(file.name), file.size, file.sha256) for file in found]
        told = [
            {"name": file.name, "size": file.size, "sha256": file.sha256, "etag": _etag(before.get(file.name), file)}
            for file in files
        ]
        sizes = [file.size for file in files]
        await self._write(files=told, size=sum(size or 0 for size in sizes) if all(sizes) else row.size)
        return files

    async def _from_hubs(self) -> list[RemoteFile]:
        """Where several may be asked, the next one if the first does not have it."""
        row = self.row
        order = await hubs.order(self.client, row.origin, row.language)
        hub, repository = await catalogue.on_one_of(self.client, order, row.repository)
        await self._write(hub=hub, licence=repository.licence)
        return choosing.choose(repository, row.wanted_file)

    # -- fetching ----------------------------------------------------------------------------------------------------
    async def _bring(self, files: list[RemoteFile]) -> None:
        """Until the files lie among the models. Who wants what another download brings waits for that one."""
        lock = self.locks.setdefault(files[0].name, asyncio.Lock())
        waits = lock.locked()
        if waits:
            await self._write(reason={"code": "shared", "params": {}})
        async with lock:
            if waits:
                files = await self._as_brought(files)
            await self._write(state=State.FETCHING, reason=None)
            missing = [file for file in files if not await in_thread(partial(staging.is_there, file))]
            if missing:
                await self._bring_missing(files, missing)
            else:
                await asyncio.to_thread(staging.remove, self.row.pk)
            await self._write(fetched=self.row.size or self.row.fetched)

    async def _as_brought(self, files: list[RemoteFile]) -> list[RemoteFile]:
        """Of a file at an address nobody tells the hash; who has just brought it knows what it was."""
        done = Download.objects.filter(origin=self.row.origin, url=self.row.url, state=State.DONE)
        brought = await done.order_by("-changed_at").afirst()
        hashes = {file["name"]: file["sha256"] for file in brought.files} if brought is not None else {}
        return [replace(file, sha256=file.sha256 or hashes.get(file.name)) for file in files]

    async def _bring_missing(self, files: list[RemoteFile], missing: list[RemoteFile]) -> None:
        pk = self.row.pk
        await asyncio.to_thread(staging.open_folder, pk)
        await asyncio.to_thread(self._check_room, missing)
        done = sum(file.size or 0 for file in files if file not in missing)
        for file in missing:
            done += await self._bring_one(file, done)
        await self._write(state=State.CHECKING, speed=0, reason=None)
        await asyncio.to_thread(staging.put_in_place, pk, [file.name for file in files])

    def _check_room(self, missing: list[RemoteFile]) -> None:
        paths = [staging.partial_of(self.row.pk, file.name) for file in missing]
        there = sum(path.stat().st_size for path in paths if path.exists())
        if self.row.origin != Download.From.UPLOAD:
            check_room(staging.folder_of(self.row.pk), max(0, sum(file.size or 0 for file in missing) - there))

    async def _bring_one(self, file: RemoteFile, before: int) -> int:
        """How many bytes it has."""
        path = staging.partial_of(self.row.pk, file.name)
        if self.row.origin == Download.From.UPLOAD:
            found = await in_thread(partial(self._uploaded, file))
        else:
            known = next(one for one in self.row.files if one["name"] == file.name)
            watcher = Watcher(self._progress(before), self._trouble, etag=known["etag"], remember=self._remember(file))
            found = await fetch(self.client, file, path, watcher, self.timing)
        size = path.stat().st_size
        await self._note(file, sha256=found, size=size)
        return size

    def _uploaded(self, file: RemoteFile, stop: threading.Event) -> str:
        try:
            path = staging.take_upload(self.row.pk, self.row.upload, file.name)
            found = staging.sha256_of(path, stop)
        except OSError as error:
            raise as_problem(error, staging.folder_of(self.row.pk)) from error
        if file.sha256 and found != file.sha256 and not stop.is_set():
            path.unlink()
            raise Problem("wrong_hash", file=file.name)
        return found

    def _progress(self, before: int) -> Callable[[int], Awaitable[None]]:
        async def progress(done: int) -> None:
            passed = time.monotonic() - self._told_at
            if passed < TELL:
                return
            total = before + done
            speed = max(0, int((total - self._told_bytes) / passed)) if self._told_bytes else 0
            self._told_at, self._told_bytes = time.monotonic(), total
            await self._write(fetched=total, speed=speed, reason=None)

        return progress

    async def _trouble(self, reason: dict[str, Any]) -> None:
        await self._write(reason=reason, speed=0)

    def _remember(self, file: RemoteFile) -> Callable[[str, int | None], Awaitable[None]]:
        async def remember(etag: str, length: int | None) -> None:
            await self._note(file, etag=etag)
            if self.row.size is None and len(self.row.files) == 1:
                await self._write(size=length)

        return remember

    async def _note(self, file: RemoteFile, **known: Any) -> None:
        files = [{**one, **known} if one["name"] == file.name else one for one in self.row.files]
        if files != self.row.files:
            await self._write(files=files)

    # -- afterwards --------------------------------------------------------------------------------------------------
    async def _model_entry(self) -> dict[str, Any] | None:
        """Why there is none though one was wanted."""
        await sync_to_async(self.row.refresh_from_db)()  # the name may have come meanwhile
        name = self.row.model_name
        if not name:
            return None
        try:
            await sync_to_async(_create_model)(self.row)
        except model_services.ModelExists:
            return {"code": "name_taken", "params": {"name": name}}
        except (ValidationError, config_file.BadValue) as error:
            messages = error.messages if isinstance(error, ValidationError) else [str(error)]
            return {"code": "name_refused", "params": {"error": " ".join(messages)}}
        return None


def _create_model(row: Download) -> None:
    model_services.create_model(services.fields_for(row, row.model_name))


def _etag(before: dict[str, Any] | None, file: RemoteFile) -> str:
    """Of what lies there, if it belongs to the same file."""
    if before is None or (file.sha256 and before.get("sha256") not in {None, file.sha256}):
        return ""
    return str(before.get("etag") or "")


def files_at(url: str) -> list[RemoteFile]:
    """The file at an address; when its name says that it is one part of several, all of them."""
    parts = urlsplit(url)
    name = choosing.base(unquote(parts.path))
    if not hubs.SAFE_PATH.match(name):
        raise Problem("url_not_understood", url=url[:200])
    split = SPLIT_NAME.search(name)
    if split is None or not 0 < int(split[2]) <= 1000:
        return [RemoteFile(Source(url, url), name)]
    found = []
    for number in range(1, int(split[2]) + 1):
        changed = f"-{number:05d}-of-{split[2]}.gguf"
        path = re.sub(r"-\d{5}-of-\d{5}\.gguf\Z", changed, parts.path)
        part = parts._replace(path=path).geturl()
        found.append(RemoteFile(Source(part, part), SPLIT_NAME.sub(changed, name)))
    return found
