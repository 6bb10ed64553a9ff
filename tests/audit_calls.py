"""What the audit log's test calls, and what has to be there first."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import pyotp
from django.conf import settings
from django.test import Client
from rest_framework.test import APIClient

from accounts import groups, keys, password_reset, quota, second_factor, services
from accounts.models import Group, SingleSignOnIdentity, User
from cluster.models import Node
from models_app.downloads import uploads
from models_app.downloads.models import Download
from models_app.models import ModelConfig
from tests.console.conftest import MODEL_FORM as USUAL

MODEL_FORM = {**USUAL, "name": "new"}
PASSWORD = "correct horse battery"
NEW_PASSWORD = "staple wagon nineteen"


@dataclass
class World:
    """What the calls below are about."""

    administrator: User
    user: User
    machine: Node
    model: ModelConfig
    api: APIClient
    console: Client = field(default_factory=Client)

    @property
    def refresh(self) -> str:
        return services.token_pair(self.administrator).refresh


class Call(NamedTuple):
    action: str
    path: str
    body: dict[str, Any]


Row = Callable[[World], Call] | str

OWN_LOGIN = {"username": "admin-person", "password": PASSWORD}
TUNING = {"_form_submitted": "on", "aim": "latency", "clients": "2", "seconds": "60"}
YES = {"post": "yes", "_form_submitted": "on"}


def after(prepare: Callable[[World], object], row: Callable[[World], Call]) -> Callable[[World], Call]:
    def prepared(world: World) -> Call:
        prepare(world)
        return row(world)

    return prepared


def drained(world: World) -> None:
    Node.objects.filter(pk=world.machine.pk).update(drained=True)


def changed_once(world: World) -> None:
    """The model has a version to go back to."""
    ModelConfig.objects.update(last_version={"context_length": 64})


def model_added_in_the_file(world: World) -> None:
    entry = {"modelName": "new", "modelFile": "tiny.gguf"}
    settings.MODEL_CONFIG_PATH.write_text(json.dumps({"models": [entry]}), encoding="utf-8")


def key(world: World) -> int:
    return keys.create_key(world.user, keys.NewKey(name="build"))[0].pk


def own_key(world: World) -> int:
    return keys.create_key(world.administrator, keys.NewKey(name="build"))[0].pk


def link(world: World) -> dict[str, str]:
    """What the mail for a forgotten password holds."""
    query = password_reset.link_for(world.administrator, "").partition("#")[2]
    return {name: values[0] for name, values in parse_qs(query).items()}


def download(**fields: Any) -> int:
    return Download.objects.create(repository="a/b", **fields).pk


def upload(content: bytes = b"") -> str:
    made = uploads.begin(f"{uuid.uuid4().hex}.gguf", 4)
    uploads.append(made.id, 0, io.BytesIO(content))
    return made.id


def group() -> int:
    return groups.create_group({"name": "lab"}).pk


def page(model: str, rest: str) -> str:
    return f"/admin/{model}/{rest}/" if rest else f"/admin/{model}/"


def chosen(name: str, pk: int, **more: str) -> dict[str, Any]:
    return {"action": name, "_selected_action": [pk], **more}


def on_model(action: str, rest: str, body: dict[str, Any]) -> Callable[[World], Call]:
    return lambda w: Call(action, page("models_app/modelconfig", rest.format(w.model.pk)), body)


def with_model(action: str, name: str, **more: str) -> Callable[[World], Call]:
    return lambda w: Call(action, page("models_app/modelconfig", ""), chosen(name, w.model.pk, **more))


def with_user(action: str, name: str, **more: str) -> Callable[[World], Call]:
    return lambda w: Call(action, page("accounts/user", ""), chosen(name, w.user.pk, **more))


def with_person(action: str, name: str) -> Callable[[World], Call]:
    return lambda w: Call(action, page("accounts/user", f"{w.user.pk}/{name}"), {**YES, **form_of_its_own()})


def form_of_its_own() -> dict[str, str]:
    """What a form carries that takes effect once."""
    return {"once": uuid.uuid4().hex, "_form_submitted": "on"}


def waits(world: World) -> None:
    User.objects.filter(pk=world.user.pk).update(waiting=True, is_active=False)


def shuts_out(world: World) -> None:
    User.objects.filter(pk=world.user.pk).update(is_active=False)


def lets_in(world: World) -> None:
    pass


def has_second_factor(world: World) -> None:
    turn_on(world.user)


def turn_on(user: User) -> list[str]:
    """Answers the recovery codes."""
    setup = second_factor.begin_setup(user)
    return second_factor.confirm_setup(user, setup.kept, PASSWORD, pyotp.TOTP(setup.secret).now())


def own_recovery_code(world: World) -> str:
    return turn_on(world.administrator)[0]


def begun_setup(world: World) -> str:
    """A first code for the secret that the page shows."""
    page = world.console.get("/account/security?setup=1")
    return pyotp.TOTP(page.context["setup"].secret).now()


def waits_for_code(world: World) -> str:
    """A recovery code, when the password is proven already."""
    code = own_recovery_code(world)
    world.console.logout()
    world.console.post("/login", OWN_LOGIN)
    return code


def connected(world: World) -> None:
    SingleSignOnIdentity.objects.create(user=world.administrator, issuer="https://sso.example.org", subject="a")


GROUP_FORM = {"name": "staff", "which_models": "all", "allowance_period": "month", "queue_weight": "1"}
KEY_FORM = {"name": "notebook", "scopes": ["inference"], "which_models": "all"}
BALANCE_DIALOGS = [
    ("top_up", "balance.topup", {"credits": "5"}),
    ("correct", "balance.adjust", {"credits": "-0.25", "note": "mistake"}),
    ("unlimited_or_not", "balance.unlimited", {"unlimited": "yes"}),
    ("set_allowance", "balance.allowance", {"credits": "10", "period": "week"}),
]


def balance_dialog(table: str, name: str, action: str, fields: dict[str, str]) -> Callable[[World], Call]:
    def row(world: World) -> Call:
        owner = {"user": lambda: world.user.pk, "wallet": lambda: world.user.wallet.pk, "group": service_group}[table]()
        return Call(action, page(f"accounts/{table}", f"{owner}/{name}"), {**YES, **form_of_its_own(), **fields})

    return row


def service_group() -> int:
    """A group whose service account has some credit."""
    number = group()
    wallet = groups.service_account(Group.objects.get(pk=number)).wallet
    quota.top_up(wallet, 10**7)
    return number


def person_form(user: User) -> dict[str, Any]:
    return {"username": user.username, "email": "new@example.com", "role": "user", "is_active": "on", "language": ""}
