"""Reads of the machines."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from cluster.models import Node
from cluster.services import ALIVE_FOR, NodeNotFound


def is_alive(node: Node) -> bool:
    return node.last_seen is not None and timezone.now() - node.last_seen < ALIVE_FOR


def nodes() -> list[Node]:
    return list(Node.objects.all())


def node(name: str) -> Node:
    """Raises NodeNotFound."""
    found = Node.objects.filter(name=name).first()
    if found is None:
        raise NodeNotFound
    return found


def node_dict(node: Node) -> dict[str, Any]:
    """A machine as the API shows it. ``serving``: the gateway sends requests there; for machines that joined, not yet."""
    return {
        "id": node.name,
        "host": node.host,
        "port": node.port,
        "role": node.role,
        "drained": node.drained,
        "alive": is_alive(node),
        "serving": node.role == Node.Role.MASTER and not node.drained,
        "joined": node.joined_at,
        "last_seen": node.last_seen,
        "system": node.system,
    }


def node_counts() -> dict[str, int]:
    found = nodes()
    return {
        "total": len(found),
        "alive": sum(is_alive(node) for node in found),
        "drained": sum(node.drained for node in found),
    }
