"""``manage.py serve``: the parent of the web server and the supervisor. It holds no state that matters and little memory.

The work that needs Django (migrations, administrator, starter model, waiting for the models) is done by a helper process,
``manage.py bringup``, which tells what it does as JSON lines and ends when the service is up.
"""

from __future__ import annotations

import json
import logging
import logging.config
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import filelock

import llmplatform
from llmplatform import settings
from llmplatform.lib import process_identity
from llmplatform.lib.early_messages import translate as _
from llmplatform.service import addresses, children, preflight, run_folder
from llmplatform.service.terminal import Progress, box, complain, say

logger = logging.getLogger(__name__)
TICK = 0.2


@dataclass(frozen=True)
class Options:
    background: bool = False
    detached: bool = False
    debug: bool = False
    first: bool = False


class Stopped(Exception):
    """SIGTERM or Ctrl-C came."""


class Failed(Exception):
    """The service cannot start; the reason was shown."""


def run(options: Options, lock: filelock.BaseFileLock) -> int:
    os.environ["LLM_PROCESS"] = "serve"
    logging.config.dictConfig(settings.LOGGING)
    serve = Serve(options, lock)
    try:
        return serve.run()
    except Stopped:
        return 0
    except Failed:
        return 1
    finally:
        serve.end()


class Serve:
    def __init__(self, options: Options, lock: filelock.BaseFileLock) -> None:
        self.options = options
        self.lock = lock
        # SimpleQueue may be put to from a signal handler.
        self.events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.web = children.Child("web", ["web"])
        self.children = [self.web, children.Child("supervisor", ["startmodels"])]
        self.helper: subprocess.Popen[bytes] | None = None
        self.progress = Progress()
        self.login: dict[str, str] = {}

    # -- the course of things --------------------------------------------------------------------------------------
    def run(self) -> int:
        self._install_signal_handlers()
        self._wait_for_left_over()
        self._check()
        if self.options.detached:
            return self._keep_running()
        self._start_helper()
        if self.options.background:
            self._until("prepared")
            return self._hand_over()
        # The web server loads its programs, which takes a second, while the database is prepared; then it may open it.
        self.web.start("--wait")
        self._until("prepared")
        children.tell_to_go_on(self.web.process)
        children.tell_to_go_on(self.helper)
        return self._keep_running()

    def _keep_running(self) -> int:
        logger.info("serve started", extra={"version": llmplatform.__version__})
        recorded: list[int] = []
        while True:
            running = [child.step() for child in self.children]
            if running != recorded:
                self._record()
                recorded = running
            self._handle(self._next_event(TICK))

    def _hand_over(self) -> int:
        """--background: another ``serve`` takes over; this one waits until it is ready and shows the box."""
        self.lock.release(force=True)
        detached = _spawn_detached(self.options.debug)
        children.tell_to_go_on(self.helper)
        while self.helper is not None:
            if detached.poll() is not None:
                complain(_("The service ended at once; logs/serve.log says why."))
                raise Failed
            self._handle(self._next_event(TICK))
        return 0

    def end(self) -> None:
        processes = [child.process for child in self.children if child.process is not None]
        if self.helper is not None:  # it may be in the middle of a download by another program
            children.kill_tree(self.helper)
            processes.append(self.helper)
        if processes:
            logger.info("stopping")
        children.stop_all(processes)
        self._show_login_if_unseen()
        if self.lock.is_locked:
            run_folder.remove(settings.HOME_DIR)
            logger.info("stopped")

    # -- start -----------------------------------------------------------------------------------------------------
    def _wait_for_left_over(self) -> None:
        """After a ``serve`` that was killed, its children are about to end; until then they have our port."""
        deadline = time.monotonic() + children.GRACE
        while left := run_folder.left_over(settings.HOME_DIR):
            if time.monotonic() > deadline:
                children.kill([child.pid for child in left])
            self._handle(self._next_event(0.05))

    def _check(self) -> None:
        verdicts = preflight.all_checks()
        problems = [verdict for verdict in verdicts if verdict.level == "problem"]
        shown = verdicts if self.options.first else problems
        preflight.show(shown)
        for problem in problems:
            logger.error("%s: %s", problem.text, problem.remedy, extra={"console": False})
        if problems:
            raise Failed

    def _record(self) -> None:
        records = {child.name: child.record() for child in self.children}
        run_folder.write(
            settings.HOME_DIR,
            run_folder.Running(
                os.getpid(),
                process_identity.started_at(os.getpid()) or 0.0,
                addresses.local_url(),
                llmplatform.__version__,
                {name: record for name, record in records.items() if record is not None},
            ),
        )

    # -- helper ----------------------------------------------------------------------------------------------------
    def _start_helper(self) -> None:
        self.helper = children.spawn(["bringup"], "bringup", stdout=subprocess.PIPE)
        threading.Thread(target=self._read_helper, args=(self.helper,), name="helper", daemon=True).start()

    def _read_helper(self, helper: subprocess.Popen[bytes]) -> None:
        for line in helper.stdout or ():
            try:
                self.events.put(json.loads(line))
            except ValueError:  # something printed there by a library
                sys.stderr.buffer.write(line)
        self.events.put({"event": "helper_ended", "code": helper.wait()})

    # -- events ----------------------------------------------------------------------------------------------------
    def _install_signal_handlers(self) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_ignored: self.events.put({"event": "stop"}))
        if hasattr(signal, "SIGHUP"):  # ignored by the children too, who inherit it: a closed terminal harms nobody
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _next_event(self, timeout: float) -> dict[str, Any]:
        try:
            return self.events.get(timeout=timeout)
        except queue.Empty:
            return {"event": "nothing"}

    def _until(self, wanted: str) -> None:
        while (event := self._next_event(TICK))["event"] != wanted:
            self._handle(event)
            if event["event"] == "helper_ended":
                raise Failed

    def _handle(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "stop":
                raise Stopped
            case "say":
                say(event["text"])
            case "progress":
                self.progress.update(event["label"], event["done"], event["total"])
            case "login":
                self.login = {"username": event["username"], "password": event["password"]}
            case "box":
                self._show_box(event)
            case "helper_ended":
                self._helper_ended(event["code"])

    def _helper_ended(self, code: int) -> None:
        if self.helper is not None:
            children.close_pipe(self.helper)
        self.helper = None
        if code:
            logger.error("bringup ended with exit code %d", code, extra={"console": False})
        self._show_login_if_unseen()

    def _show_box(self, event: dict[str, Any]) -> None:
        self.login = {}
        say()
        say(box(event["title"], event["lines"]))
        for line in event["after"]:
            say(line)
        say()

    def _show_login_if_unseen(self) -> None:
        """Whatever interrupted the start: the password that was made is shown once."""
        if self.login:
            say(_("Administrator %(username)s, password %(password)s (to be changed at the first login)") % self.login)
            self.login = {}


def _spawn_detached(debug: bool) -> subprocess.Popen[bytes]:
    log = children.log_file(settings.LOG_DIR / "serve.log")
    try:
        return children.spawn_detached(["serve", "--detached", *(["--debug"] if debug else [])], log)
    finally:
        os.close(log)
