"""A real service for tests: ``manage.py serve`` in a folder of its own, as a user would run it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import filelock
import httpx
import psutil

from tests.ports import free_port

T = TypeVar("T")
FETCH = """
import django
django.setup()
from models_app.starter import ensure_starter_model
ensure_starter_model(lambda *_ignored: None)
"""

PREPARE = """
import django
django.setup()
from django.core.management import call_command
from llmplatform.service import static_files
call_command("migrate", verbosity=0)
static_files.collect_if_changed()
"""

PROJECT = Path(__file__).resolve().parents[1]
CACHE = PROJECT / "tests" / "output" / "cache"
START_SECONDS = 120.0
# Variables of whoever runs the tests that would change what is tested.
NOT_INHERITED = (
    "DATABASE_URL",
    "JWT_SECRET",
    "SECRET_KEY",
    "CLUSTER_TOKEN",
    "LLAMA_CPP_PATH",
    "MODELS_PATH",
    "MODEL_CONFIG_PATH",
    "LOG_DIR",
    "LOG_LEVEL",
    "LLM_CONSOLE_LEVEL",
    "LLM_PARENT_PIPE",
    "LLM_PROCESS",
    "ADMIN_USERNAME",
    "ADMIN_PASSWORD",
    "STARTER_MODEL",
    "DJANGO_SETTINGS_MODULE",
    "LANG",
    "LC_ALL",
    "LC_MESSAGES",
)


def wait_for(condition: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """The first true value of ``condition``; fails naming ``what`` it waited for."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


def environment(home: Path, **changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return {**kept, "LLM_HOME": str(home), "LANG": "C.UTF-8", **changes}


@dataclass
class Service:
    """``base_url``, ``home``, ``username``/``password`` of the administrator, ``pids()``; ``login()`` gives a client."""

    home: Path
    port: int
    model_port: int
    username: str = "admin"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        """What the terminal would have shown so far."""
        path = self.home / "terminal.txt"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    # -- commands --------------------------------------------------------------------------------------------------
    def command(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """``manage.py …`` in this service's folder."""
        argv = [sys.executable, str(PROJECT / "manage.py"), *arguments]
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False)

    def start(self) -> None:
        """``manage.py serve``; returns when its box is shown."""
        process = self.begin()
        wait_for(lambda: "╯" in self.output or process.poll() is not None, "the box", START_SECONDS)
        assert process.poll() is None, self.output

    def begin(self) -> subprocess.Popen[str]:
        """``manage.py serve``, not waited for."""
        with (self.home / "terminal.txt").open("w") as terminal:
            self.process = subprocess.Popen(
                [sys.executable, str(PROJECT / "manage.py"), "serve"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        return self.process

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)

    # -- looking ---------------------------------------------------------------------------------------------------
    def pids(self) -> dict[str, int]:
        """``serve``, ``web`` and ``supervisor`` as run/serve.json has them."""
        running = json.loads((self.home / "run" / "serve.json").read_text())
        return {"serve": running["pid"], **{name: child["pid"] for name, child in running["children"].items()}}

    def processes(self) -> list[psutil.Process]:
        """Every process that works in this folder, engines too: whoever has LLM_HOME, or the folder in its command line."""
        return [process for process in psutil.process_iter() if process.pid != os.getpid() and self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get("LLM_HOME") == str(self.home) or any(
                str(self.home) in argument for argument in process.cmdline()
            )
        except psutil.Error:
            return False

    def engines(self) -> list[psutil.Process]:
        return [process for process in self.processes() if "--alias" in command_line(process)]

    def log(self) -> list[dict[str, Any]]:
        path = self.home / "logs" / "llm-app.log"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    # -- talking ---------------------------------------------------------------------------------------------------
    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.base_url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def token(self, username: str = "", password: str = "") -> str:
        body = {"username": username or self.username, "password": password or self.password}
        answer = httpx.post(f"{self.base_url}/api/v1/auth/login", json=body, timeout=20)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access"])

    def client(self, token: str = "", timeout: float = 60.0) -> httpx.Client:
        """An HTTP client that is logged in: as administrator, or with ``token``."""
        headers = {"Authorization": f"Bearer {token or self.token()}"}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=timeout)

    def model_is_ready(self, name: str = "", client: httpx.Client | None = None) -> bool:
        with contextlib.suppress(httpx.HTTPError), client or self.client() as caller:
            models = caller.get("/v1/models").json()["data"]
            return any(model["state"] == "ready" for model in models if name in ("", model["id"]))
        return False

    # -- the end ---------------------------------------------------------------------------------------------------
    def kill_what_is_left(self) -> list[str]:
        """Kills, and says what there was."""
        left = self.processes()
        names = [" ".join(command_line(process)) for process in left]
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        return names


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def runs(process: psutil.Process) -> bool:
    """One that has ended does not, though nobody may have reaped it yet."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def new_service(home: Path, **changes: str) -> Service:
    """A service that is not started yet. ``changes`` are environment variables."""
    home.mkdir(parents=True, exist_ok=True)
    service = Service(home, free_port(), free_port())
    service.environment = environment(
        home,
        **{
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": str(service.port),
            "LLAMA_CPP_PORT": str(service.model_port),
            "ADMIN_USERNAME": service.username,
            "ADMIN_PASSWORD": service.password,
            **changes,
        },
    )
    return service


@contextlib.contextmanager
def running(home: Path, *, starter: bool = True, **changes: str) -> Iterator[Service]:
    """A started service; stopped at the end, when nothing of it may be left. Without ``starter`` it has no model. What takes the
    longest at a first start is done already; those who test first starts begin with ``new_service``."""
    put_prepared_files(home)
    if starter:
        put_starter_model(home / "models")
    service = new_service(home, **({} if starter else {"STARTER_MODEL": "none"}), **changes)
    try:
        service.start()
        yield service
        if service.process is not None and service.process.poll() is None:
            assert service.stop() == 0, service.output
        assert service.processes() == []
    finally:
        service.kill_what_is_left()


def put_prepared_files(home: Path) -> None:
    """An empty database with all its tables, and the collected static files."""
    prepared = prepared_home()
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(prepared / "llm.db", home / "llm.db")
    shutil.copytree(prepared / "run" / "static", home / "run" / "static", copy_function=_put)


@functools.cache
def prepared_home() -> Path:
    """Made once for each state of the migrations."""
    digest = hashlib.sha256()
    for path in sorted(PROJECT.glob("*/migrations/*.py")):
        digest.update(path.read_bytes())
    home = CACHE / f"prepared-{digest.hexdigest()[:16]}"
    with filelock.FileLock(_cache() / "lock-prepared", timeout=600):
        variables = environment(home, DJANGO_SETTINGS_MODULE="llmplatform.settings", STARTER_MODEL="none")
        home.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-c", PREPARE], cwd=PROJECT, env=variables, check=True, timeout=600)
    return home


def _cache() -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE


def put_starter_model(folder: Path) -> None:
    """The starter model, fetched once for all test runs by the service's own code."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in starter_cache().glob("*.gguf"):
        _put(file, folder / file.name)


def _put(file: Path | str, place: Path | str) -> None:
    """By a second name, as these files are never written to."""
    try:
        os.link(file, place)
    except FileExistsError:
        pass
    except OSError:  # another disk
        shutil.copyfile(file, place)


def starter_cache() -> Path:
    models = CACHE / "models"
    models.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(CACHE / "lock", timeout=600):
        if not list(models.glob("*.gguf")):
            variables = environment(CACHE, DJANGO_SETTINGS_MODULE="llmplatform.settings", MODELS_PATH=str(models))
            subprocess.run([sys.executable, "-c", FETCH], cwd=PROJECT, env=variables, check=True, timeout=600)
        assert list(models.glob("*.gguf")), "the starter model could not be fetched"
    return models
