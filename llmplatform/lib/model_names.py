"""The names of all models, for those below the app that knows them; it registers them here when it is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass
class _Source:
    names: Callable[[], Iterable[str]] = tuple
    aliases: Callable[[], Mapping[str, str]] = dict


_source = _Source()


def register(names: Callable[[], Iterable[str]], aliases: Callable[[], Mapping[str, str]]) -> None:
    _source.names, _source.aliases = names, aliases


def model_names() -> list[str]:
    """In alphabetical order; models' own names only."""
    return sorted(_source.names())


def model_aliases() -> dict[str, str]:
    """The model that each alias stands for, in alphabetical order."""
    return dict(sorted(_source.aliases().items()))
