"""The names of all models, for those below the app that knows them; it registers them here when it is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable

_sources: list[Callable[[], Iterable[str]]] = []


def register(source: Callable[[], Iterable[str]]) -> None:
    _sources[:] = [source]


def model_names() -> list[str]:
    """In alphabetical order."""
    return sorted(name for source in _sources for name in source())
