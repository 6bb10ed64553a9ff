"""Whatever can change something leaves an entry in the audit log: every operation of the console, every writing call of the API.

A new console page, action or endpoint without a row here fails a test. To add it, write one line: what is recorded and how it
is called, or a text that says why nothing is to be recorded.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.core.cache import cache
from django.test import RequestFactory
from django.urls import get_resolver
from django.utils import timezone

from accounts import audit_words, credits, invites, quota, services
from accounts.models import AuditEntry, User
from cluster import probe
from cluster.models import Node
from models_app.models import ModelConfig
from models_app.tests.gguf_files import make_gguf
from models_app.tuning import runs as tuning_runs
from tests.api_callers import client_of
from tests.audit_calls import (
    BALANCE_DIALOGS,
    GROUP_FORM,
    KEY_FORM,
    MODEL_FORM,
    NEW_PASSWORD,
    OWN_LOGIN,
    PASSWORD,
    TUNING,
    YES,
    Call,
    Row,
    World,
    after,
    balance_dialog,
    begun_setup,
    changed_once,
    chosen,
    connected,
    download,
    drained,
    form_of_its_own,
    group,
    has_second_factor,
    key,
    lets_in,
    link,
    model_added_in_the_file,
    on_model,
    own_key,
    own_recovery_code,
    page,
    person_form,
    shuts_out,
    upload,
    waits,
    waits_for_code,
    with_model,
    with_person,
    with_user,
)
from tests.permissions.routes import endpoints, patterns

CONSOLE: dict[str, Row] = {
    "accounts_user_add": lambda w: Call(
        "user.create",
        page("accounts/user", "add"),
        {"username": "cleo", "password1": PASSWORD, "password2": PASSWORD, "role": "operator"},
    ),
    "accounts_user_change": lambda w: Call(
        "user.update", page("accounts/user", f"{w.user.pk}/change"), person_form(w.user)
    ),
    "auth_user_password_change": lambda w: Call(
        "user.password",
        page("accounts/user", f"{w.user.pk}/password"),
        {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD},
    ),
    "accounts_user:activate": after(
        lambda w: User.objects.filter(pk=w.user.pk).update(is_active=False), with_user("user.unblock", "activate")
    ),
    "accounts_user:deactivate": with_user("user.block", "deactivate", confirmed="yes"),
    "accounts_user:make_operator": with_user("user.role", "make_operator", confirmed="yes"),
    "accounts_user:make_user": after(
        lambda w: User.objects.filter(pk=w.user.pk).update(is_staff=True),
        with_user("user.role", "make_user", confirmed="yes"),
    ),
    **{
        f"accounts_{table}_{name}": balance_dialog(table, name, action, fields)
        for table in ("user", "wallet")
        for name, action, fields in BALANCE_DIALOGS
    },
    **{
        f"accounts_group_{name}": balance_dialog("group", name, action, fields)
        for name, action, fields in BALANCE_DIALOGS
        if name != "set_allowance"
    },
    **{
        f"accounts_user_{name}": after(prepare, with_person(f"user.{name}", name))
        for name, prepare in (("approve", waits), ("refuse", waits), ("block", lets_in), ("unblock", shuts_out))
    },
    "accounts_user_reset_second_factor": after(
        has_second_factor, with_person("user.second_factor_off", "reset_second_factor")
    ),
    "accounts_user:approve_chosen": after(waits, with_user("user.approve", "approve_chosen", confirmed="yes")),
    "accounts_user:refuse_chosen": after(waits, with_user("user.refuse", "refuse_chosen", confirmed="yes")),
    "accounts_user:move_chosen": lambda w: Call(
        "user.update",
        page("accounts/user", ""),
        chosen("move_chosen", w.user.pk, confirmed="yes", group=str(group()), **form_of_its_own()),
    ),
    "accounts_user_credits_by_csv": lambda w: Call(
        "balance.topup",
        page("accounts/user", "credits"),
        {"step": "give", "nonce": uuid.uuid4().hex, "rows": "username,amount,note\r\nbob,5,x\r\n"},
    ),
    "accounts_user_credits_list": "a file to download",
    "accounts_group_add": lambda w: Call("group.create", page("accounts/group", "add"), GROUP_FORM),
    "accounts_group_change": lambda w: Call(
        "group.update", page("accounts/group", f"{group()}/change"), {**GROUP_FORM, "description": "of chemistry"}
    ),
    "accounts_group_delete": lambda w: Call("group.delete", page("accounts/group", f"{group()}/delete"), YES),
    "accounts_apikey_add": lambda w: Call(
        "key.create", f"/admin/accounts/apikey/add/?user={w.user.pk}", {**KEY_FORM, **form_of_its_own()}
    ),
    "accounts_apikey_change_rules": lambda w: Call(
        "key.update",
        page("accounts/apikey", f"{key(w)}/change_rules"),
        {**KEY_FORM, **form_of_its_own(), "name": "other"},
    ),
    "accounts_apikey_revoke": lambda w: Call(
        "key.revoke", page("accounts/apikey", f"{key(w)}/revoke"), {**YES, **form_of_its_own()}
    ),
    "accounts_apikey_rotate": lambda w: Call(
        "key.rotate", page("accounts/apikey", f"{key(w)}/rotate"), {**YES, **form_of_its_own(), "overlap": "24"}
    ),
    "accounts_apikey:revoke_chosen": lambda w: Call(
        "key.revoke", page("accounts/apikey", ""), chosen("revoke_chosen", key(w), confirmed="yes")
    ),
    "accounts_invite_add": lambda w: Call(
        "invite.create", page("accounts/invite", "add"), {"uses": "1", "note": "", **form_of_its_own()}
    ),
    "accounts_invite_revoke": lambda w: Call(
        "invite.revoke",
        page("accounts/invite", f"{invites.make_invite()[0].pk}/revoke"),
        {**YES, **form_of_its_own()},
    ),
    "accounts_redeembatch_add": lambda w: Call(
        "code.create",
        page("accounts/redeembatch", "add"),
        {"name": "spring", "count": "2", "credits": "2.5", **form_of_its_own()},
    ),
    "accounts_redeembatch_revoke": lambda w: Call(
        "code.revoke",
        page("accounts/redeembatch", f"{credits.make_codes('spring', 1, 250)[0].pk}/revoke"),
        {**YES, **form_of_its_own()},
    ),
    "accounts_redeembatch_csv": "a file to download",
    "accounts_ledgerentry_csv": "a file to download",
    "accounts_modelpolicy_set": lambda w: Call(
        "price.create", "/admin/accounts/modelpolicy/set/?model=tiny", {"prompt_price": "500", **form_of_its_own()}
    ),
    "cluster_node_drain": lambda w: Call("node.drain", page("cluster/node", f"{w.machine.pk}/drain"), YES),
    "cluster_node_resume": after(
        drained, lambda w: Call("node.resume", page("cluster/node", f"{w.machine.pk}/resume"), YES)
    ),
    "models_app_modelconfig_add": on_model("download.create", "add", {"source": "a/b"}),
    "models_app_modelconfig_wizard_fits": "shows",
    "models_app_modelconfig_wizard_settings": lambda w: Call(
        "model.create", "/admin/models_app/modelconfig/add/settings/?file=tiny.gguf", {**MODEL_FORM, "anyway": "yes"}
    ),
    "models_app_modelconfig_wizard_start": "shows",
    "models_app_modelconfig_wizard_start_live": "shows",
    "models_app_modelconfig_wizard_live": "shows",
    "models_app_modelconfig_config": after(
        model_added_in_the_file,
        lambda w: Call("model.import", page("models_app/modelconfig", "config"), {"sync": "yes"}),
    ),
    "models_app_modelconfig_config_export": "a file to download",
    "models_app_modelconfig_next": after(
        lambda w: ModelConfig.objects.update(active=False),
        lambda w: Call("model.start", page("models_app/modelconfig", "next"), {"step": f"{w.model.pk}:start:{{}}"}),
    ),
    "models_app_modelconfig_change": on_model("model.update", "{}/change", MODEL_FORM),
    "models_app_modelconfig_delete": on_model("model.delete", "{}/delete", YES),
    "models_app_modelconfig:delete_selected": with_model("model.delete", "delete_selected", post="yes"),
    "models_app_modelconfig:start_chosen": with_model("model.start", "start_chosen"),
    "models_app_modelconfig:stop_chosen": with_model("model.stop", "stop_chosen"),
    "models_app_modelconfig:restart_chosen": with_model("model.restart", "restart_chosen"),
    "models_app_modelconfig_start": on_model("model.start", "{}/start", YES),
    "models_app_modelconfig_stop": on_model("model.stop", "{}/stop", YES),
    "models_app_modelconfig_restart": on_model("model.restart", "{}/restart", YES),
    "models_app_modelconfig_go_back": after(changed_once, on_model("model.go_back", "{}/go_back", YES)),
    "models_app_modelconfig_tune": on_model("model.tune", "{}/tune", TUNING),
    "models_app_modelconfig_stop_tuning": after(
        lambda w: tuning_runs.want("tiny", "latency", 1, 60, False),
        on_model("model.tune_stop", "{}/stop_tuning", YES),
    ),
    "models_app_modelconfig_live_list": "shows",
    "models_app_modelconfig_live": "shows",
    "accounts_auditentry_csv": "shows",
}

API: dict[tuple[str, str], Row] = {
    ("POST", "api/v1/auth/register"): lambda w: Call(
        "user.register", "/api/v1/auth/register", {"username": "cleo", "password": PASSWORD}
    ),
    ("POST", "api/v1/auth/login"): lambda w: Call(
        "user.login", "/api/v1/auth/login", {"username": w.administrator.username, "password": PASSWORD}
    ),
    ("POST", "api/v1/auth/refresh"): "a token for a token of the same person: their login is what counts",
    ("POST", "api/v1/auth/logout"): "ends one's own login; nothing else changes",
    ("PATCH", "api/v1/auth/me"): lambda w: Call("user.update", "/api/v1/auth/me", {"language": "zh-hans"}),
    ("POST", "api/v1/auth/password"): lambda w: Call(
        "user.password", "/api/v1/auth/password", {"old_password": PASSWORD, "new_password": NEW_PASSWORD}
    ),
    ("POST", "api/v1/users/<int:user_id>/credits"): lambda w: Call(
        "balance.adjust", f"/api/v1/users/{w.user.pk}/credits", {"amount": -5}
    ),
    ("POST", "api/v1/auth/password/reset"): "nothing yet: the link that is made then is told, test_audit.py",
    ("POST", "api/v1/auth/password/reset/confirm"): lambda w: Call(
        "user.password_reset", "/api/v1/auth/password/reset/confirm", {**link(w), "new_password": NEW_PASSWORD}
    ),
    ("POST", "api/v1/redeem"): lambda w: Call(
        "balance.redeem", "/api/v1/redeem", {"code": credits.make_codes("spring", 1, 250)[1][0]}
    ),
    ("POST", "api/v1/keys"): lambda w: Call("key.create", "/api/v1/keys", {"name": "build"}),
    ("PATCH", "api/v1/keys/<int:key_id>"): lambda w: Call("key.update", f"/api/v1/keys/{key(w)}", {"name": "other"}),
    ("DELETE", "api/v1/keys/<int:key_id>"): lambda w: Call("key.revoke", f"/api/v1/keys/{key(w)}", {}),
    ("POST", "api/v1/keys/<int:key_id>/rotate"): lambda w: Call("key.rotate", f"/api/v1/keys/{key(w)}/rotate", {}),
    ("PATCH", "api/v1/users/<int:user_id>"): lambda w: Call(
        "user.role", f"/api/v1/users/{w.user.pk}", {"role": "operator"}
    ),
    ("POST", "api/v1/users/<int:user_id>/approve"): after(
        lambda w: User.objects.filter(pk=w.user.pk).update(is_active=False, waiting=True),
        lambda w: Call("user.approve", f"/api/v1/users/{w.user.pk}/approve", {}),
    ),
    ("POST", "api/v1/groups"): lambda w: Call("group.create", "/api/v1/groups", {"name": "lab"}),
    ("PATCH", "api/v1/groups/<int:group_id>"): lambda w: Call(
        "group.update", f"/api/v1/groups/{group()}", {"description": "of chemistry"}
    ),
    ("DELETE", "api/v1/groups/<int:group_id>"): lambda w: Call("group.delete", f"/api/v1/groups/{group()}", {}),
    ("POST", "api/v1/groups/<int:group_id>/keys"): lambda w: Call(
        "key.create", f"/api/v1/groups/{group()}/keys", {"name": "robot"}
    ),
    ("POST", "api/v1/invites"): lambda w: Call("invite.create", "/api/v1/invites", {}),
    ("DELETE", "api/v1/invites/<int:invite_id>"): lambda w: Call(
        "invite.revoke", f"/api/v1/invites/{invites.make_invite()[0].pk}", {}
    ),
    ("POST", "api/v1/models"): lambda w: Call(
        "model.create", "/api/v1/models", {"modelName": "new", "modelFile": "tiny.gguf"}
    ),
    ("POST", "api/v1/downloads"): lambda w: Call("download.create", "/api/v1/downloads", {"source": "a/b"}),
    ("DELETE", "api/v1/downloads/<int:download_id>"): lambda w: Call(
        "download.cancel", f"/api/v1/downloads/{download()}", {}
    ),
    ("POST", "api/v1/downloads/<int:download_id>/retry"): lambda w: Call(
        "download.retry", f"/api/v1/downloads/{download(state='failed', tries=1)}/retry", {}
    ),
    ("POST", "api/v1/uploads"): lambda w: Call(
        "download.upload", "/api/v1/uploads", {"fileName": f"{uuid.uuid4().hex}.gguf", "size": 4}
    ),
    ("PUT", "api/v1/uploads/<str:upload_id>"): "a piece of what was begun",
    ("DELETE", "api/v1/uploads/<str:upload_id>"): lambda w: Call("download.cancel", f"/api/v1/uploads/{upload()}", {}),
    ("POST", "api/v1/uploads/<str:upload_id>/finish"): lambda w: Call(
        "download.create", f"/api/v1/uploads/{upload(b'GGUF')}/finish", {}
    ),
    ("PATCH", "api/v1/models/<str:name>"): lambda w: Call("model.update", "/api/v1/models/tiny", {"temperature": 0.1}),
    ("DELETE", "api/v1/models/<str:name>"): lambda w: Call("model.delete", "/api/v1/models/tiny", {}),
    ("POST", "api/v1/models/<str:name>/start"): lambda w: Call("model.start", "/api/v1/models/tiny/start", {}),
    ("POST", "api/v1/models/<str:name>/stop"): lambda w: Call("model.stop", "/api/v1/models/tiny/stop", {}),
    ("POST", "api/v1/models/<str:name>/restart"): lambda w: Call("model.restart", "/api/v1/models/tiny/restart", {}),
    ("POST", "api/v1/models/<str:name>/go-back"): after(
        changed_once, lambda w: Call("model.go_back", "/api/v1/models/tiny/go-back", {})
    ),
    ("POST", "api/v1/models/<str:name>/tuning"): lambda w: Call("model.tune", "/api/v1/models/tiny/tuning", {}),
    ("DELETE", "api/v1/models/<str:name>/tuning"): after(
        lambda w: tuning_runs.want("tiny", "latency", 1, 60, False),
        lambda w: Call("model.tune_stop", "/api/v1/models/tiny/tuning", {}),
    ),
    ("DELETE", "api/v1/cluster/nodes/<str:node_id>"): lambda w: Call(
        "node.remove", "/api/v1/cluster/nodes/worker-1", {}
    ),
    ("POST", "api/v1/cluster/nodes/<str:node_id>/drain"): lambda w: Call(
        "node.drain", "/api/v1/cluster/nodes/worker-1/drain", {}
    ),
    ("POST", "api/v1/cluster/nodes/<str:node_id>/resume"): after(
        drained, lambda w: Call("node.resume", "/api/v1/cluster/nodes/worker-1/resume", {})
    ),
    ("POST", "api/v1/cluster/join"): lambda w: Call(
        "node.join", "/api/v1/cluster/join", {"id": "worker-2", "host": "10.0.0.8", "port": 8081, "role": "worker"}
    ),
    ("POST", "api/v1/cluster/heartbeat"): "figures every few seconds, by a machine",
}
# Other pages, by path.
PAGES: dict[str, Row] = {
    "login": after(lambda w: w.console.logout(), lambda w: Call("user.login", "/login", OWN_LOGIN)),
    "register": after(
        lambda w: w.console.logout(),
        lambda w: Call("user.register", "/register", {"username": "cleo", "password": PASSWORD}),
    ),
    "login/code": lambda w: Call("user.login", "/login/code?recovery=1", {"code": waits_for_code(w)}),
    "login/sso": "leads away; nothing is changed yet",
    "login/sso/back": "a login, a new account or a connection by a provider: accounts/tests/test_single_sign_on.py",
    "account/security": "shows",
    "account/security/on": lambda w: Call(
        "user.second_factor_on", "/account/security/on", {"code": begun_setup(w), "password": PASSWORD}
    ),
    "account/security/codes": lambda w: Call(
        "user.recovery_codes",
        "/account/security/codes",
        {"codes-code": own_recovery_code(w), "codes-password": PASSWORD},
    ),
    "account/security/off": lambda w: Call(
        "user.second_factor_off",
        "/account/security/off",
        {"off-code": own_recovery_code(w), "off-password": PASSWORD},
    ),
    "account/security/connect": "leads away; what comes of it is told when they are back, at login/sso/back",
    "account/security/disconnect": after(
        connected, lambda w: Call("user.sso_disconnect", "/account/security/disconnect", {"sso-password": PASSWORD})
    ),
    "password": lambda w: Call("user.password", "/password", {"old_password": PASSWORD, "new_password": NEW_PASSWORD}),
    "language": lambda w: Call("user.update", "/language", {"language": "zh-hans", "next": "/"}),
    "account": lambda w: Call("user.update", "/account", {"email": "new@example.com", "language": ""}),
    "account/token": "a day's access token, as a login gives; nothing of the account changes",
    "password/forgotten": "nothing yet: the link that is made then is told, test_audit.py",
    "password/reset": lambda w: Call(
        "user.password_reset", "/password/reset", {**link(w), "new_password": NEW_PASSWORD}
    ),
    "account/balance": lambda w: Call(
        "balance.redeem", "/account/balance", {"code": credits.make_codes("spring", 1, 250)[1][0]}
    ),
    "account/keys": lambda w: Call("key.create", "/account/keys", {"name": "build", "scopes": ["inference"]}),
    "account/keys/<int:key_id>/revoke": lambda w: Call("key.revoke", f"/account/keys/{own_key(w)}/revoke", {}),
    "account/keys/<int:key_id>/rotate": lambda w: Call("key.rotate", f"/account/keys/{own_key(w)}/rotate", {}),
    "account/usage": "shows",
    "account/": "leads to the page without the slash",
    "logout": "ends one's own session; nothing else changes",
    "chat/<uuid:conversation_id>/rename": "one's own conversations are private",
    "chat/<uuid:conversation_id>/delete": "one's own conversations are private",
    **dict.fromkeys(("", "healthz", "readyz", "metrics", "chat/", "chat/list", "chat/models"), "shows"),
    **dict.fromkeys(("chat/<uuid:conversation_id>", "chat/<uuid:conversation_id>/messages"), "shows"),
}


# -- nothing is missing ------------------------------------------------------------------------------------------------------
STANDARD = ("add", "change", "delete")


def console_operations() -> Iterator[str]:
    """Names of the addresses of every registered page that can be sent something, and of the actions in its list."""
    request = RequestFactory().get("/admin/")
    request.user = User(username="ada", is_staff=True, is_superuser=True)
    for model, pages in admin.site._registry.items():
        name = f"{model._meta.app_label}_{model._meta.model_name}"
        allowed = (pages.has_add_permission, pages.has_change_permission, pages.has_delete_permission)
        for verb, may in zip(STANDARD, allowed, strict=True):
            if may(request):
                yield f"{name}_{verb}"
        shown = {f"{name}_{verb}" for verb in (*STANDARD, "changelist", "history")}
        yield from (url.name for url in pages.get_urls() if url.name and url.name not in shown)
        yield from (f"{name}:{action}" for action in pages.get_actions(request))
        if pages.list_editable:
            yield f"{name}_changelist"


def test_every_operation_of_the_console_has_a_row() -> None:
    found = set(console_operations())
    assert found - set(CONSOLE) == set(), "say for each of these what it records"
    assert set(CONSOLE) - found == set(), "these are not there any more"


def test_every_writing_call_of_the_api_has_a_row() -> None:
    found = {(method, path) for method, path in endpoints() if method != "GET"}
    assert found - set(API) == set(), "say for each of these what it records"
    assert set(API) - found == set(), "these are not there any more"


def test_every_page_has_a_row() -> None:
    found = {path for path, _pattern in patterns(get_resolver()) if not path.startswith(("admin/", "api/"))}
    assert found - set(PAGES) == set(), "say for each of these what it records"
    assert set(PAGES) - found == set(), "these are not there any more"


# -- and each does what its row says -----------------------------------------------------------------------------------------
@pytest.fixture
def world(db: None, settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.REGISTRATION = "open"
    settings.RUN_DIR, settings.LOG_DIR, settings.MODELS_PATH = tmp_path / "run", tmp_path / "logs", tmp_path
    settings.MODEL_CONFIG_PATH = tmp_path / "model_config.json"
    make_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(probe, "probe", lambda *_arguments, **_more: None)
    cache.clear()
    api = client_of("admin")
    administrator = User.objects.get(username="admin-person")
    administrator.set_password(PASSWORD)
    administrator.save()
    user = services.create_user("bob", PASSWORD)
    quota.ensure_wallet(administrator)
    machine = Node.objects.create(name="worker-1", host="10.0.0.7", port=8081, role="worker", last_seen=timezone.now())
    model = ModelConfig.objects.create(name="tiny", file="tiny.gguf")
    world = World(administrator, user, machine, model, api)
    world.console.force_login(administrator)
    world.api.credentials(HTTP_AUTHORIZATION=f"Bearer {services.console_token(administrator)}")
    return world


def check(call: Call, before: int, actor: User) -> None:
    told = list(AuditEntry.objects.filter(pk__gt=before))
    assert call.action in {entry.action for entry in told}, f"{call.path} left {[str(entry) for entry in told]}"
    for entry in told:
        assert entry.action in audit_words.ACTIONS, "without words for people"
        assert entry.target_type in audit_words.TYPES
        assert entry.address == "127.0.0.1"
        assert entry.actor == actor or entry.action == "user.register"
        assert PASSWORD not in json.dumps(entry.changes)
        assert NEW_PASSWORD not in json.dumps(entry.changes)


def newest() -> int:
    return max(AuditEntry.objects.values_list("pk", flat=True), default=0)


@pytest.mark.parametrize("name", [name for name, row in CONSOLE.items() if callable(row)])
def test_the_console_records(world: World, name: str) -> None:
    row = CONSOLE[name]
    assert callable(row)
    call, before = row(world), newest()
    answer = world.console.post(call.path, call.body, follow=False, headers={"HX-Request": "true"})
    assert answer.status_code in {200, 302}
    check(call, before, world.administrator)


@pytest.mark.parametrize("path", [path for path, row in PAGES.items() if callable(row)])
def test_a_page_records(world: World, path: str) -> None:
    row = PAGES[path]
    assert callable(row)
    call, before = row(world), newest()
    answer = world.console.post(call.path, call.body)
    assert answer.status_code in {200, 302}
    check(call, before, world.administrator)


@pytest.mark.parametrize("key", [key for key, row in API.items() if callable(row)], ids=" ".join)
def test_the_api_records(world: World, key: tuple[str, str]) -> None:
    row = API[key]
    assert callable(row)
    call, before = row(world), newest()
    answer = world.api.generic(key[0], call.path, json.dumps(call.body), content_type="application/json")
    assert answer.status_code in {200, 201, 202, 204}, answer.content
    check(call, before, world.administrator)
