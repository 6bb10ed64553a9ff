"""Figures that live above this app, offered by whoever has them.

``cluster`` may not import what stands on it (the models, the gateway), yet ``cluster/stats`` shows their figures. So they
register a function here when their app is ready; it is called when somebody asks, in the process that asks.

    "gateway"   requests_under_way, slots_in_use, queued: of this web process, from memory
    "replicas"  by_state {state: number}, slots: from the database
    "usage"     requests_today, prompt_tokens_today, completion_tokens_today, tokens_per_second: from the database
    "engines"   processes: [{name, pid, started}]: the llama-servers on this machine
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger(__name__)
Figures = Callable[[], Mapping[str, Any]]
_sources: dict[str, Figures] = {}


def register(name: str, figures: Figures) -> None:
    """Offer figures under ``name``; a second registration replaces the first."""
    _sources[name] = figures


def figures(name: str) -> dict[str, Any]:
    """The figures of that name now; empty when nobody offers them in this process."""
    source = _sources.get(name)
    return dict(source()) if source else {}
