"""The part of a start that needs Django: prepare the folder, then wait for the service and say how to use it.

It runs in a process of its own beside ``serve`` and tells what happens as JSON lines on standard output; after ``prepared`` it
waits for a line on standard input, which ``serve`` writes when it has started the children. So one Django start-up serves both.
"""

from __future__ import annotations

import http
import json
import shlex
import sys
import time
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext as _

from accounts import services as accounts
from accounts.models import User
from llmplatform.lib import process_identity
from llmplatform.service import addresses, checks, local_client, settings_audit, static_files
from llmplatform.service.terminal import padded
from models_app import starter
from models_app.config_sync import sync_config_file
from models_app.models import ModelConfig, Replica
from models_app.reasons import text as reason_text
from models_app.states import COMING, State

WEB_MAY_TAKE = 60.0
MODEL_MAY_TAKE = 600.0
POLL = 0.05


class WrongSettings(Exception):
    """One sentence on what is wrong, one on what to do."""


def tell(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


# -- before the children start -----------------------------------------------------------------------------------------
def prepare() -> str:
    """Returns the administrator's password if one was made up now, else nothing."""
    _check_settings()
    _migrate()
    if static_files.collect_if_changed():
        tell("say", text=_("Pages and styles are in place."))
    settings_audit.note(settings.READ_SETTINGS)
    _install_starter_model()
    for line, problem in sync_config_file().problems:
        tell("say", text=_("model_config.json, line %(line)s: %(problem)s") % {"line": line, "problem": problem})
    password = _create_administrator()
    tell("prepared")
    return password


def _check_settings() -> None:
    """Raises WrongSettings; what is only unwise is told."""
    messages = run_checks(tags=[checks.TAG])
    for message in messages:
        if message.is_serious():
            raise WrongSettings(f"{message.msg} {message.hint}")
        tell("say", text=f"! {message.msg} {message.hint}")


def _migrate() -> None:
    connection = connections["default"]
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", interactive=False, verbosity=0)
        tell("say", text=_("The database is up to date."))


def _install_starter_model() -> None:
    def progress(done: int, total: int) -> None:
        tell("progress", label=_("Starter model"), done=done, total=total)

    result = starter.ensure_starter_model(progress)
    if result.message:
        tell("say", text=str(result.message))


def _create_administrator() -> str:
    """Once. Told at the moment it is stored, so that an interrupted start does not lose the password."""
    if User.objects.filter(is_superuser=True).exists():
        return ""
    made = accounts.create_administrator(settings.ADMIN_USERNAME, settings.ADMIN_PASSWORD or None)
    if not made.password:
        return ""
    tell("login", username=made.user.get_username(), password=made.password)
    return made.password


# -- after --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Outcome:
    """What there is to show: a model that answers, or why there is none."""

    model: str = ""
    reason: str = ""


def announce(password: str) -> None:
    if not _wait_for_web():
        tell("say", text=_("The web server does not answer yet; logs/llm-app.log says why."))
        return
    outcome = _wait_for_model()
    tell("box", title=_("LLM Platform is running"), lines=_lines(outcome, password), after=_after(outcome))


def _wait_for_web() -> bool:
    deadline = time.monotonic() + WEB_MAY_TAKE
    while time.monotonic() < deadline:
        if local_client.get_json("/healthz")[0] == http.HTTPStatus.OK:
            return True
        time.sleep(POLL)
    return False


def _wait_for_model() -> Outcome:
    """Until one model is ready, or none will be."""
    deadline = time.monotonic() + MODEL_MAY_TAKE
    while time.monotonic() < deadline:
        if (outcome := model_outcome()) is not None:
            return outcome
        time.sleep(POLL)
    return Outcome(reason=_("No model is ready yet; manage.py status shows what they do."))


def model_outcome() -> Outcome | None:
    """None while a model is on its way."""
    wanted = [model for model in ModelConfig.objects.all() if model.wanted_replicas]
    replicas = list(Replica.objects.filter(model__in=wanted).select_related("model"))
    for replica in replicas:
        if replica.state == State.READY and _lives(replica):
            return Outcome(model=replica.model.name)
    if not wanted and (on_demand := next((model for model in ModelConfig.objects.all() if model.is_on_demand), None)):
        return Outcome(model=on_demand.name)
    if not wanted:
        return Outcome(reason=_("There is no model yet."))
    with_replicas = {replica.model_id for replica in replicas}
    if any(replica.state in COMING | {State.READY} for replica in replicas) or len(with_replicas) < len(wanted):
        return None
    return Outcome(reason="\n".join(f"{replica.model.name}: {reason_text(replica.reason)}" for replica in replicas))


def _lives(replica: Replica) -> bool:
    """A row may be left from a run that was killed; a replica on another machine is taken at its word."""
    if replica.pid is None or replica.pid_started is None:
        return True
    return process_identity.is_same(replica.pid, replica.pid_started)


def _lines(outcome: Outcome, password: str) -> list[str]:
    rows = [(_("Address"), addresses.local_url())]
    rows += [("", url) for url in addresses.network_urls()[:3]]
    administrator = User.objects.filter(is_superuser=True, is_active=True).order_by("id").first()
    name = administrator.get_username() if administrator else settings.ADMIN_USERNAME
    if password:
        rows.append((_("Login"), f"{name} / {password}"))
        rows.append(("", _("shown only now; change it at the first login")))
    else:
        rows.append((_("Login"), name))
    rows.append((_("Model"), outcome.model or _("none is running")))
    return [padded(label, 8) + text for label, text in rows]


def _after(outcome: Outcome) -> list[str]:
    if outcome.model:
        return [_("Try it:"), curl_line(outcome.model)]
    lines = outcome.reason.splitlines()
    lines.append(
        _("To add a model: put a .gguf file into %(folder)s, add it to %(config)s, and run manage.py syncmodels.")
        % {"folder": settings.MODELS_PATH, "config": settings.MODEL_CONFIG_PATH}
    )
    return lines


def curl_line(model: str) -> str:
    administrator = User.objects.filter(is_superuser=True, is_active=True).order_by("id").first()
    if administrator is None:
        return addresses.local_url()
    message = {"model": model, "messages": [{"role": "user", "content": _("Hello! Who are you?")}], "max_tokens": 60}
    return (
        f"curl {addresses.local_url()}/v1/chat/completions"
        f' -H "Authorization: Bearer {accounts.console_token(administrator)}"'
        f' -H "Content-Type: application/json" -d {shlex.quote(json.dumps(message, ensure_ascii=False))}'
    )
