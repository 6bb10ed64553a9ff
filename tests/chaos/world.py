"""A running service with three small real models, what is done to it, and what is known of it then."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from models_app.tests.random_models import EMBEDDER, RERANKER, random_model
from tests.running_service import Service

CHAT_FILE = "chat.gguf"
ENTRIES = [
    {"modelName": "chat", "modelFile": CHAT_FILE, "contextLength": 512, "slots": 2},
    {"modelName": "embedder", "modelFile": "embedder.gguf", "contextLength": 128, "slots": 1, "embeddings": True},
    {
        "modelName": "reranker", "modelFile": "reranker.gguf", "contextLength": 128, "slots": 1, "embeddings": True,
        "rerank": True,
    },
]  # fmt: skip
EXTRA = {"modelName": "extra", "modelFile": CHAT_FILE, "contextLength": 256, "slots": 1}
CHANGES: list[dict[str, Any]] = [
    {"contextLength": 384},
    {"contextLength": 256, "slots": 2},
    {"slots": 1},
    {"slots": 3},
    {"replicas": 2},
    {"replicas": 1},
    {"temperature": 0.3},
    {"promptCache": 16},
    {"description": "changed"},
]
FIRST_PORT_TRIES = 12
SOON = 2.0  # from a change to the last of what was answered before it


@dataclass
class Outage:
    """Of the web server, from the signal until it answers again. ``pids`` had to end before that means anything."""

    began: float
    pids: list[int]
    ended: float = float("inf")


class Fact:
    """All that a setting may be: what was confirmed, or that and what was asked for when the connection broke. None: anything."""

    def __init__(self) -> None:
        self.values: list[Any] | None = None

    def confirm(self, value: Any) -> None:
        self.values = [value]

    def suspect(self, value: Any) -> None:
        if self.values is not None:
            self.values.append(value)

    def forget(self) -> None:
        self.values = None


class World:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.began = time.monotonic()
        self.findings: list[str] = []
        self.notes: list[str] = []
        self.outages: list[Outage] = []
        self.files: dict[str, bytes] = {}  # as they should be; of the large one only the name
        self.wanted: dict[tuple[str, str], Fact] = {}  # by model and key
        self.off: dict[str, list[list[float]]] = {}  # when a model may have been switched off or not there
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._token = ""
        self._web = httpx.Client(base_url=service.base_url, timeout=60)
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._watch_web, name="watch")

    # -- the beginning and the end -------------------------------------------------------------------------------------
    def __enter__(self) -> World:
        self._token = self.service.token()
        self.began = time.monotonic()
        for entry in ENTRIES:
            for key, value in {"active": True, "replicas": 1, **entry}.items():
                self.fact(entry["modelName"], key).confirm(value)
        self.fact("extra", "there").confirm(False)
        self.off["extra"] = [[0.0, float("inf")]]
        self._watch.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._watch.join()
        self.undo_all()
        self._web.close()

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    def fact(self, model: str, key: str) -> Fact:
        return self.wanted.setdefault((model, key), Fact())

    def note(self, text: str) -> None:
        self.notes.append(f"{self.now:7.2f} s  {text}")
        with (self.service.home / "notes.txt").open("a") as file:  # to follow a long one
            file.write(f"{time.strftime('%H:%M:%S')} {self.notes[-1]}\n")

    def later(self, seconds: float, undo: Callable[[], object]) -> None:
        self._later.append((self.now + seconds, undo))

    def step(self) -> None:
        """What is due; and ``serve`` runs unless it was told to end."""
        due = [entry for entry in self._later if entry[0] <= self.now]
        self._later = [entry for entry in self._later if entry[0] > self.now]
        for _at, undo in due:
            undo()
        process = self.service.process
        if process is not None and process.poll() is not None:
            self.findings.append(f"serve ended by itself ({process.returncode}): {self.service.output[-2000:]}")
            self.begin_serve()

    def undo_all(self) -> None:
        undone, self._later = self._later, []
        for _at, undo in undone:
            undo()

    # -- processes -----------------------------------------------------------------------------------------------------
    def processes(self, command: str) -> list[psutil.Process]:
        """Those of ``manage.py COMMAND``, or with "engines" those."""
        if command == "engines":
            return sorted(self.service.engines(), key=lambda process: process.pid)
        return [process for process in self.service.processes() if command in _words(process)[2:3]]

    def send(self, number: signal.Signals, processes: list[psutil.Process]) -> None:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        self.note(f"{number.name} to {[process.pid for process in processes]}")

    def freeze(self, processes: list[psutil.Process], seconds: float) -> None:
        """By a clock of its own: whoever goes through the events may be waiting for an answer of what is frozen."""
        self.send(signal.SIGSTOP, processes)
        thaw = threading.Timer(seconds, self.send, (signal.SIGCONT, processes))
        thaw.daemon = True
        thaw.start()
        self.later(seconds, thaw.join)

    @contextlib.contextmanager
    def web_ends(self) -> Iterator[list[psutil.Process]]:
        """The web server is about to be made to end."""
        found = self.processes("web")
        self.outages.append(Outage(self.now, [process.pid for process in found]))
        yield found

    def begin_serve(self) -> None:
        self.service.begin()
        self.note(f"serve is started, pid {self.service.process.pid if self.service.process else 0}")

    def _watch_web(self) -> None:
        while not self._over.wait(0.05):
            open_ones = [outage for outage in list(self.outages) if outage.ended == float("inf")]
            if open_ones and self.answers():
                for outage in open_ones:
                    if not any(psutil.pid_exists(pid) and not _is_zombie(pid) for pid in outage.pids):
                        outage.ended = self.now

    def is_up(self) -> bool:
        """Something is there that can be hit."""
        return self.answers() and bool(self.processes("startmodels")) and bool(self.processes("engines"))

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.service.base_url}/healthz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    # -- wishes --------------------------------------------------------------------------------------------------------
    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response | None:
        """As administrator. None: the connection broke, and nobody knows whether it was done."""
        began = self.now
        try:
            answer = self._web.request(method, path, json=body, headers={"Authorization": f"Bearer {self._token}"})
        except httpx.HTTPError as error:
            self.note(f"{method} {path} {body}: {error!r}")
            if not self.web_was_out(began, self.now):
                self.findings.append(f"{method} {path} from {began:.2f} to {self.now:.2f} s: {error!r}")
            return None
        self.note(f"{method} {path} {body}: {answer.status_code}")
        if answer.status_code >= 500:
            self.findings.append(f"{method} {path} at {self.now:.2f} s: {answer.status_code} {answer.text[:300]}")
            return None
        return answer

    def get(self, path: str) -> httpx.Response:
        """Not written down. Raises httpx.HTTPError."""
        return self._web.get(path, headers={"Authorization": f"Bearer {self._token}"}, timeout=10)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self._web.post(path, json=body, headers={"Authorization": f"Bearer {self._token}"})

    def web_was_out(self, began: float, ended: float) -> bool:
        return any(outage.began <= ended and began <= outage.ended for outage in self.outages)

    def switching(self, model: str, on: bool) -> None:
        """A model is being switched: from now it may be off; once it is on again and seen, no more."""
        times = self.off.setdefault(model, [])
        if not on and not (times and times[-1][1] == float("inf")):
            times.append([self.now, float("inf")])

    def switched_on(self, model: str) -> None:
        for period in self.off.get(model, []):
            if period[1] == float("inf"):
                period[1] = self.now + SOON

    def may_be_off(self, model: str, began: float, ended: float) -> bool:
        return any(start <= ended and began <= end for start, end in self.off.get(model, []))

    # -- files ---------------------------------------------------------------------------------------------------------
    @property
    def models(self) -> Path:
        return self.service.home / "models"

    def put_models(self) -> None:
        """The starter model under another name, and two tiny ones as files of their own."""
        [starter] = self.models.glob("*.gguf")
        starter.rename(self.models / CHAT_FILE)
        os.link(self.models / CHAT_FILE, self.service.home / CHAT_FILE)
        for name, shape in (("embedder.gguf", EMBEDDER), ("reranker.gguf", RERANKER)):
            self.files[name] = random_model(shape).read_bytes()
            (self.models / name).write_bytes(self.files[name])
        (self.models / "model_config.json").write_text(json.dumps({"models": ENTRIES}, indent=1))

    def restore(self, name: str) -> None:
        scratch = self.models / f".{name}.new"
        if name == CHAT_FILE:
            os.link(self.service.home / CHAT_FILE, scratch)
        else:
            scratch.write_bytes(self.files[name])
        scratch.replace(self.models / name)
        with contextlib.suppress(FileNotFoundError):  # two names of one file are not replaced by each other
            scratch.unlink()
        self.note(f"{name} is as it was")

    def edit_config(self, change: Callable[[list[dict[str, Any]]], None]) -> bool:
        """As a person does: the file, and then ``manage.py syncmodels``."""
        path = self.models / "model_config.json"
        document = json.loads(path.read_text())
        change(document["models"])
        scratch = path.with_suffix(".edited")
        scratch.write_text(json.dumps(document, indent=1))
        scratch.replace(path)
        done = self.service.command("syncmodels", timeout=120)
        self.note(f"syncmodels: {done.returncode} {done.stdout.strip()}")
        if done.returncode:
            self.findings.append(f"syncmodels at {self.now:.2f} s: {done.returncode} {done.stderr[-1000:]}")
        return done.returncode == 0

    # -- ports ---------------------------------------------------------------------------------------------------------
    def stranger(self, port: int | None, seconds: float) -> bool:
        """Another program's web server on a port of the models, if it can have one."""
        tried = [port] if port else range(self.service.model_port, self.service.model_port + FIRST_PORT_TRIES)
        for one in tried:
            with contextlib.suppress(OSError):
                server = http.server.ThreadingHTTPServer(("127.0.0.1", one), _Stranger)
                threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
                self.note(f"a stranger listens on {one}")
                self.later(seconds, functools.partial(_close, server))
                return True
        return False


class _Stranger(http.server.BaseHTTPRequestHandler):
    """Answers as something else than a llama-server."""

    def do_GET(self) -> None:
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


def _close(server: http.server.ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def port_of(engine: psutil.Process) -> int:
    words = _words(engine)
    return int(words[words.index("--port") + 1]) if "--port" in words else 0


def copy_in_place(path: Path, data: bytes) -> None:
    """As ``cp`` does: whoever has the file open sees it change."""
    with path.open("r+b") as stream:
        stream.truncate(len(data))
        stream.write(data)
