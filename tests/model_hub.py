"""A model hub for tests, as a process of its own: the HTTP APIs of Hugging Face and ModelScope, with faults on demand.

``python -m tests.model_hub FOLDER`` serves FOLDER/OWNER/REPOSITORY/FILE on a free port of 127.0.0.1 and prints the port. Faults
are set by ``PUT /fault`` with a JSON object (see ``Faults``), what was asked is told by ``GET /asked``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx

PROJECT = Path(__file__).resolve().parents[1]


@dataclass
class Faults:
    cut: int = 0  # bytes of each answer after which the connection ends
    stall: int = 0  # bytes of each answer after which nothing comes any more
    slow: float = 0.0  # seconds before each piece of 64 KB
    length: int = 0  # added to Content-Length
    extra: int = 0  # bytes sent after the file, without a length
    damage: bool = False  # one byte is another
    redirect: str = ""  # where files are
    status: int = 0  # instead of any file
    times: int = 0  # how often status, cut and damage hold; 0: always
    retry_after: str = ""
    etag: str = ""  # in place of the file's own
    ranges: bool = True
    html: bool = False
    no_hash: bool = False  # the listing tells no hashes
    token: str = ""  # without it 401
    down: bool = False  # the APIs answer 500


@dataclass
class State:
    folder: Path
    faults: Faults = field(default_factory=Faults)
    asked: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def spend(self) -> bool:
        """Whether a fault that holds a few times still holds."""
        with self.lock:
            if self.faults.times == 0:
                return True
            self.faults.times -= 1
            if self.faults.times == 0:
                self.faults.times = -1
            return self.faults.times >= -1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(200, b"")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.state.faults = Faults(**json.loads(body))
        self.state.asked.clear()
        self.answer(200, b"{}")

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), {name: values[0] for name, values in parse_qs(parts.query).items()}
        if path == "/asked":
            self.answer(200, json.dumps(self.state.asked).encode())
            return None
        self.state.asked.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        faults = self.state.faults
        if faults.token and self.headers.get("Authorization") != f"Bearer {faults.token}":
            return self.answer(401, b"{}")
        if path.startswith(("/api/", "/openapi/")) and "FilePath" not in query:
            return self.answer(500, b"{}") if faults.down else self.api(path, query)
        if "/resolve/" in path:
            name, _, file = path.strip("/").partition("/resolve/")
            return self.file(self.state.folder / name / file.partition("/")[2])
        if "FilePath" in query:
            name = path.removeprefix("/api/v1/models/").removesuffix("/repo")
            return self.file(self.state.folder / name / query["FilePath"])
        return self.file(self.state.folder / path.strip("/"))

    # -- the APIs ----------------------------------------------------------------------------------------------------
    def api(self, path: str, query: dict[str, str]) -> None:
        if path == "/api/models":
            return self.json([{"id": name} for name in self.names(query["search"])])
        if path == "/openapi/v1/models":
            found = [{"id": name} for name in self.names(query["search"].split()[0])]
            return self.json({"success": True, "data": {"models": found, "total_count": len(found)}})
        modelscope = path.startswith("/api/v1/")
        steps = path.removeprefix("/api/v1/models/" if modelscope else "/api/models/").split("/")
        folder = self.state.folder / steps[0] / steps[1]
        if not folder.is_dir():
            return self.answer(404, b'{"Code": 10010205001, "Success": false}')
        if not modelscope:
            return self.json(self.hugging_face(folder))
        if steps[2:] == ["repo", "files"]:
            return self.json({"Code": 200, "Success": True, "Data": {"Files": self.modelscope(folder)}})
        return self.json({"Code": 200, "Success": True, "Data": {"License": "Apache License 2.0"}})

    def names(self, words: str) -> list[str]:
        found = ("/".join(path.parts[-2:]) for path in sorted(self.state.folder.glob("*/*")) if path.is_dir())
        return [name for name in found if words.lower() in name.lower()]

    def files(self, folder: Path) -> Iterator[tuple[str, int, str]]:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                digest = "" if self.state.faults.no_hash else hashlib.sha256(path.read_bytes()).hexdigest()
                yield path.relative_to(folder).as_posix(), path.stat().st_size, digest

    def hugging_face(self, folder: Path) -> dict[str, Any]:
        siblings = [
            {"rfilename": name, "size": size, "lfs": {"sha256": digest, "size": size} if digest else None}
            for name, size, digest in self.files(folder)
        ]
        return {
            "id": folder.name,
            "sha": "c0ffee",
            "gated": False,
            "cardData": {"license": "apache-2.0"},
            "siblings": siblings,
        }

    def modelscope(self, folder: Path) -> list[dict[str, Any]]:
        return [
            {"Path": name, "Name": name, "Type": "blob", "Size": size, "Sha256": digest, "Revision": "c0ffee"}
            for name, size, digest in self.files(folder)
        ]

    # -- files -------------------------------------------------------------------------------------------------------
    def file(self, path: Path) -> None:
        faults = self.state.faults
        if faults.redirect and "moved" not in self.path:
            return self.answer(302, b"", {"Location": faults.redirect})
        if faults.status and self.state.spend():
            return self.answer(faults.status, b"{}", {"Retry-After": faults.retry_after} if faults.retry_after else {})
        if faults.html:
            return self.answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"})
        if not path.is_file():
            return self.answer(404, b"{}")
        content = path.read_bytes()
        etag = faults.etag or f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        start = self.start(etag, len(content))
        if start > len(content) - 1:
            return self.answer(416, b"")
        status = 206 if start else 200
        headers = {"ETag": etag, "Content-Type": "application/octet-stream"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(status, content[start:], headers)
        return None

    def start(self, etag: str, _size: int) -> int:
        asked = self.headers.get("Range", "")
        if not asked or not self.state.faults.ranges or self.headers.get("If-Range", etag) != etag:
            return 0
        return int(asked.removeprefix("bytes=").partition("-")[0])

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        faults = self.state.faults
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if faults.extra:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(content) + faults.length))
        self.end_headers()
        if faults.damage and self.state.spend():
            content = content[:-1] + bytes([content[-1] ^ 1])
        content += b"x" * faults.extra
        end = faults.cut if faults.cut and self.state.spend() else faults.stall or len(content)
        with contextlib.suppress(OSError):
            for position in range(0, min(end, len(content)), 65536):
                time.sleep(faults.slow)
                self.wfile.write(content[position : min(position + 65536, end)])
            self.wfile.flush()
            while self.state.faults.stall:
                time.sleep(0.05)
        if faults.cut or faults.extra or faults.length:
            self.close_connection = True

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            if self.command != "HEAD":
                self.wfile.write(body)


@dataclass
class Hub:
    """A running one."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fault(self, **faults: Any) -> None:
        httpx.put(f"{self.url}/fault", json=faults, trust_env=False).raise_for_status()

    def asked(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/asked", trust_env=False).json()
        return found

    def files_asked(self) -> list[dict[str, Any]]:
        return [one for one in self.asked() if "/resolve/" in one["path"] or "FilePath" in one["path"]]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Hub]:
    argv = [sys.executable, "-m", "tests.model_hub", str(folder)]
    process = subprocess.Popen(argv, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Hub(folder, int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


def main(folder: Path) -> None:
    handler = type("Bound", (Handler,), {"state": State(folder)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
