"""Machines join, say that they live, are drained and removed. The only writer of ``Node``."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext as _

from cluster.models import Node
from cluster.system import host_name, system_figures
from llmplatform.lib import audit, host_names
from llmplatform.lib.errors import ApiError

MAX_SYSTEM_BYTES = 64 * 1024  # a heartbeat is figures, not a place to store things
ALIVE_FOR = timedelta(seconds=15)  # a machine heard of within this time is alive


class NodeNotFound(ApiError):
    def __init__(self) -> None:
        super().__init__("node_not_found", _("There is no such machine."), 404)


class NodeExists(ApiError):
    def __init__(self) -> None:
        super().__init__(
            "node_exists",
            _("Another machine has this id. Choose another id, or remove that machine first."),
            409,
        )


class MasterStays(ApiError):
    def __init__(self) -> None:
        super().__init__("master_node", _("The machine that runs this service cannot be removed."), 409)


def register_this_machine() -> Node:
    """The row of this machine, the master, made at its first start. Its name stays even when the host is renamed."""
    node = Node.objects.filter(role=Node.Role.MASTER).first()
    address = (host_names.own_addresses() or ["127.0.0.1"])[0]
    if node is None:
        return Node.objects.create(
            name=_free_name(slugify(host_name(), allow_unicode=True)[:90] or "master"),
            host=address,
            port=settings.SERVER_PORT,
            role=Node.Role.MASTER,
            system=system_figures(),
            last_seen=timezone.now(),
        )
    node.host, node.port, node.last_seen = address, settings.SERVER_PORT, timezone.now()
    node.save(update_fields=["host", "port", "last_seen"])
    return node


def _free_name(wanted: str) -> str:
    taken = set(Node.objects.filter(name__startswith=wanted).values_list("name", flat=True))
    names = (wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def join(name: str, host: str, port: int, role: str = Node.Role.WORKER) -> tuple[Node, bool]:
    """Take a machine in; the caller has probed it. Joining again with the same address is no error: ``(node, created)``.

    Raises NodeExists when the name belongs to another address, ApiError when the role cannot join.
    """
    if role != Node.Role.WORKER:
        raise ApiError("invalid_role", _("Only workers join; the master is the machine this service runs on."), 400)
    now = timezone.now()
    try:
        with transaction.atomic():
            node, created = Node.objects.get_or_create(
                name=name, defaults={"host": host, "port": port, "role": role, "last_seen": now}
            )
            if created:
                audit.on(node, "join", after=audit.fields_of(node, "host", "port", "role"))
    except IntegrityError as error:
        raise NodeExists from error
    if (node.host, node.port, node.role) != (host, port, role):
        raise NodeExists
    if not created:
        Node.objects.filter(pk=node.pk).update(last_seen=now)
        node.last_seen = now
    return node, created


def heartbeat(name: str, system: dict[str, Any], *, joined_only: bool = False) -> Node:
    """A machine lives and tells its figures. Raises NodeNotFound when it was removed: it should join again or end.

    ``joined_only`` for what comes over the network: the master's figures are its own supervisor's to tell.
    """
    if len(json.dumps(system)) > MAX_SYSTEM_BYTES:
        raise ApiError("request_too_large", _("These figures are too long."), 413)
    named = Node.objects.filter(name=name)
    if joined_only:
        named = named.filter(role=Node.Role.WORKER)
    if not named.update(system=system, last_seen=timezone.now()):
        raise NodeNotFound
    return Node.objects.get(name=name)


def heartbeat_this_machine() -> None:
    """Called every few seconds by the supervisor; makes the row when it is missing."""
    figures = system_figures()
    if not Node.objects.filter(role=Node.Role.MASTER).update(system=figures, last_seen=timezone.now()):
        register_this_machine()


def seen(name: str) -> None:
    """A machine without an agent of ours answered a probe."""
    Node.objects.filter(name=name).update(last_seen=timezone.now())


def drain(name: str) -> Node:
    """No new requests for that machine; those under way end as they would."""
    return _set_drained(name, True)


def resume(name: str) -> Node:
    return _set_drained(name, False)


def _set_drained(name: str, drained: bool) -> Node:
    with transaction.atomic():
        changed = Node.objects.filter(name=name, drained=not drained).update(drained=drained)
        node = Node.objects.filter(name=name).first()
        if node is None:
            raise NodeNotFound
        if changed:
            audit.on(node, "drain" if drained else "resume", {"drained": not drained}, {"drained": drained})
    return node


def remove(name: str) -> None:
    with transaction.atomic():
        node = Node.objects.filter(name=name).first()
        if node is None:
            raise NodeNotFound
        if node.role == Node.Role.MASTER:
            raise MasterStays
        audit.on(node, "remove", before=audit.fields_of(node, "host", "port", "role", "drained"))
        node.delete()
