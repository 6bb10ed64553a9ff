"""The callers of the permission matrix, and one of everything for them to ask for."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from django.contrib import admin
from django.db.models import Model
from django.utils import timezone

from accounts import credits, groups, invites, keys, quota, services
from accounts.models import AuditEntry, ModelPolicy, UsageRecord, User
from chat.models import Conversation, Message
from cluster.models import Node
from models_app.downloads import staging, uploads
from models_app.downloads.models import Download
from models_app.models import ModelConfig, Replica

CLUSTER_TOKEN = "a-token-for-machines-of-this-test"
LABEL = re.compile(r"admin/(\w+)/(\w+)/")
CONVERTER = re.compile(r"<(?:\w+:)?(\w+)>")


def person(name: str, **fields: object) -> User:
    user = User(username=name, email=f"{name.replace(' ', '.')}@example.org", **fields)
    user.set_unusable_password()
    user.save()
    quota.open_wallet(user)
    return user


def key_of(owner: User, *scopes: str) -> str:
    return keys.create_key(owner, keys.NewKey(name="matrix", scopes=list(scopes)))[1]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass
class World:
    """``people`` by the name of the caller. Everybody has a key and a conversation of their own."""

    people: dict[str, User]
    own_keys: dict[str, int]
    conversations: dict[str, Conversation]
    objects: dict[str, Model]  # by their labels
    tokens: dict[str, str]
    download: Download

    def url(self, path: str, caller: str = "user") -> str:
        """The address of a route, about what belongs to ``caller`` where it belongs to somebody."""
        if "(?P<app_label>" in path:
            return "/admin/accounts/"
        if path.endswith("modelpolicy/set/"):
            return f"/{path}?model=tiny"
        if "(?P<url>" in path:
            return "/admin/no-such-page"
        return "/" + CONVERTER.sub(lambda match: self._place(match.group(1), path, caller), path)

    def _place(self, name: str, path: str, caller: str) -> str:
        if label := LABEL.match(path):
            return str(self.objects[f"{label[1]}.{label[2]}"].pk)
        owner = caller if caller in self.own_keys else "user"
        places = {
            "key_id": self.own_keys[owner],
            "conversation_id": self.conversations[owner].pk,
            "user_id": self.people["somebody else"].pk,
            "group_id": self.objects["accounts.group"].pk,
            "invite_id": self.objects["accounts.invite"].pk,
            "name": "tiny",
            "node_id": "worker-1",
            "content_type_id": "1",
            "object_id": "1",
            "download_id": self.download.pk,
            "upload_id": new_upload() if name == "upload_id" else "",
        }
        return str(places[name])


def make_world() -> World:
    people = {
        "user": person("a user"),
        "operator": person("an operator", is_staff=True),
        "admin": person("an administrator", is_staff=True, is_superuser=True),
        "another user": person("another user"),
        "waiting": person("one who waits"),
        "blocked": person("one who is blocked"),
        "somebody else": person("somebody else"),
    }
    own_keys, conversations, tokens = {}, {}, {}
    for name, user in people.items():
        own_keys[name] = keys.create_key(user, keys.NewKey(name="own"))[0].pk
        conversations[name] = conversation_of(user)
        tokens[name] = services.console_token(user)
    return World(people, own_keys, conversations, one_of_each(people["admin"], people["somebody else"]), tokens,
                 Download.objects.create(repository="a/b", state="failed", tries=1))  # fmt: skip


def new_upload() -> str:
    """Each is there until somebody cancels it."""
    shutil.rmtree(staging.upload_folder(), ignore_errors=True)
    return uploads.begin("new.gguf", 4).id


def conversation_of(user: User, text: str = "Hello") -> Conversation:
    conversation = Conversation.objects.create(user=user, title=text, updated_at=timezone.now())
    question = Message.objects.create(conversation=conversation, role=Message.Role.USER, text=text)
    Message.objects.create(conversation=conversation, parent=question, role=Message.Role.ASSISTANT, text=text)
    return conversation


def shut_out(world: World) -> None:
    """After they got their tokens and sessions: one has to wait, the other is blocked."""
    User.objects.filter(pk=world.people["waiting"].pk).update(is_active=False, waiting=True)
    User.objects.filter(pk=world.people["blocked"].pk).update(is_active=False)


def one_of_each(administrator: User, owner: User) -> dict[str, Model]:
    """A row of every table that the console shows."""
    group = groups.create_group({"name": "lab"})
    quota.top_up(groups.service_account(group).wallet, 10**7)
    codes = credits.make_codes("spring", 1, 250)[0]
    model = ModelConfig.objects.create(name="tiny", file="tiny.gguf")
    usage = UsageRecord.objects.create(
        request_id="one", user=owner, username=owner.username, model_name="tiny", status=200, created_at=timezone.now()
    )
    made: list[Model] = [
        group,
        owner,
        owner.wallet,
        owner.wallet.entries.latest("pk"),
        usage,
        keys.create_key(owner, keys.NewKey(name="robot"), by=administrator)[0],
        invites.make_invite()[0],
        codes,
        codes.codes.get(),
        ModelPolicy.objects.create(model_name="tiny"),
        AuditEntry.objects.latest("pk"),
        model,
        Replica.objects.create(model=model, number=1, node="worker-1", since=timezone.now()),
        Node.objects.create(name="worker-1", host="10.0.0.7", port=8081, role="worker", last_seen=timezone.now()),
    ]
    found = {row._meta.label_lower: row for row in made}
    assert set(found) == {table._meta.label_lower for table in admin.site._registry}, "one of each table of the console"
    return found
