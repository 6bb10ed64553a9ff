"""Model files from a person's own computer, in pieces: each is written at its place as it comes, and the next one may come hours
later. What is whole is handed to the worker, which checks it like a download.

An upload is a folder (``models/.downloads/uploads/ID``) with what was announced and the bytes so far; the length of the file is
how far it is, so that nothing has to be kept in step.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from filelock import FileLock, Timeout

from llmplatform.lib import audit
from llmplatform.lib.errors import ApiError
from models_app.downloads import choosing, hubs, problems, services, staging
from models_app.downloads.fetch import as_problem, check_room
from models_app.downloads.models import Download
from models_app.gguf import SPLIT_NAME

CHUNK = 8 * 1024 * 1024  # largest piece; a body of the service may have 10 MB
PIECE = 256 * 1024  # held in memory at once
ID = re.compile(r"[0-9a-f]{32}\Z")
MOST_OPEN = 20


class UploadNotFound(ApiError):
    def __init__(self) -> None:
        super().__init__("upload_not_found", _("There is no such upload."), 404)


class WrongOffset(ApiError):
    def __init__(self, offset: int) -> None:
        message = _("The next byte wanted is number %(offset)d.") % {"offset": offset}
        super().__init__("wrong_offset", message, 409, details={"offset": offset})


class NotStored(ApiError):
    def __init__(self, problem: problems.Problem) -> None:
        super().__init__(problem.code, problems.text(problem.reason), 507)


@dataclass(frozen=True)
class Upload:
    id: str
    file: str
    size: int
    sha256: str
    offset: int = 0


def begin(file: str, size: int, sha256: str = "") -> Upload:
    """Raises ValidationError, ApiError when there is no room or a file of this name."""
    if choosing.base(file) != file or not hubs.SAFE_PATH.match(file) or file.startswith(".") or len(file) > 255:
        raise ValidationError({"fileName": _("A file name that ends in .gguf, without a folder.")})
    if SPLIT_NAME.search(file):  # each is checked by itself, and none of them is a model
        message = _(
            "A model in parts cannot be uploaded. Put all its parts into the models folder, or join them with llama-gguf-split."
        )
        raise ValidationError({"fileName": message})
    if sha256 and not hubs.SHA256.match(sha256):
        raise ValidationError({"sha256": _("64 characters 0-9 and a-f.")})
    if staging.place_of(file).exists():
        raise NotStored(problems.Problem("file_exists", file=file))
    upload = Upload(uuid.uuid4().hex, file, size, sha256)
    try:
        staging.upload_folder().mkdir(parents=True, exist_ok=True)
        if len(list(staging.upload_folder().iterdir())) >= MOST_OPEN:
            raise ApiError("too_many_uploads", _("Too many uploads are open; finish or cancel some."), 409)
        check_room(staging.upload_folder(), size)
        folder = staging.upload_folder(upload.id)
        folder.mkdir()
        (folder / "data").touch()
        (folder / "upload.json").write_text(json.dumps(asdict(upload)), encoding="utf-8")
    except problems.Problem as problem:
        raise NotStored(problem) from problem
    except OSError as error:
        raise NotStored(as_problem(error, staging.upload_folder())) from error
    audit.record("download.upload", "download", "", file)
    return upload


def get(upload_id: str) -> Upload:
    """Raises UploadNotFound."""
    folder = _folder(upload_id)
    try:
        known = json.loads((folder / "upload.json").read_text(encoding="utf-8"))
        return Upload(**{**known, "offset": (folder / "data").stat().st_size})
    except (OSError, ValueError, TypeError):
        raise UploadNotFound from None


def _folder(upload_id: str) -> Path:
    if not ID.match(upload_id):
        raise UploadNotFound
    return staging.upload_folder(upload_id)


def append(upload_id: str, offset: int, stream: BinaryIO) -> Upload:
    """Writes what ``stream`` holds at ``offset``, which must be where the upload is. Raises ApiError."""
    folder = _folder(upload_id)
    get(upload_id)
    try:
        with FileLock(folder / "lock", timeout=0):
            upload = get(upload_id)
            if offset != upload.offset:
                raise WrongOffset(upload.offset)
            _write(folder / "data", upload, stream)
    except Timeout:
        raise WrongOffset(get(upload_id).offset) from None
    except problems.Problem as problem:
        raise NotStored(problem) from problem
    except OSError as error:
        raise NotStored(as_problem(error, folder)) from error
    return get(upload_id)


def _write(path: Path, upload: Upload, stream: BinaryIO) -> None:
    check_room(path.parent, CHUNK)
    taken = 0
    with path.open("ab") as target:
        while piece := stream.read(PIECE):
            taken += len(piece)
            if upload.offset + taken > upload.size or taken > CHUNK:
                target.truncate(upload.offset)
                raise ApiError(
                    "request_too_large", _("This is more than was announced, or than one piece may have."), 413
                )
            target.write(piece)


def finish(upload_id: str, wish: services.Wish) -> Download:
    """Hands it to the worker. Raises ApiError when something is missing, ValidationError."""
    upload = get(upload_id)
    if upload.offset != upload.size:
        raise WrongOffset(upload.offset)
    return services.take_upload(upload.id, upload.file, upload.size, upload.sha256, wish)


def cancel(upload_id: str) -> None:
    """Raises UploadNotFound."""
    upload = get(upload_id)
    shutil.rmtree(_folder(upload_id), ignore_errors=True)
    audit.record("download.cancel", "download", "", upload.file)
