"""Reading the service's settings from ``.env`` and the process environment.

This runs before Django is configured, so it uses nothing of Django. One order holds for every setting: the process
environment, then ``.env``, then the default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dotenv.parser import parse_stream

from llmplatform.lib.early_messages import translate as _

# Values that examples on the web use. A service that runs with one of them can be entered by anyone who read the example.
PLACEHOLDER_SECRETS = frozenset(
    {
        "your-secret-key-change-in-production",
        "your-generated-secret",
        "your-secret-key",
        "change-me",
        "changeme",
        "secret",
    }
)
SHORTEST_SECRET = 16  # characters; what is made here has 43
MICRO = 1_000_000  # micro-credits in one credit
PROJECT_DIR = Path(__file__).resolve().parents[2]


class ConfigurationError(Exception):
    """A setting is wrong. The message is one line, for the administrator, and says what to do."""


def home_dir() -> Path:
    """Where .env, the database, models and logs live. Tests and packagers point it elsewhere; everybody else leaves it alone."""
    return Path(os.environ.get("LLM_HOME") or PROJECT_DIR).resolve()


@dataclass(frozen=True)
class EnvFile:
    path: Path
    values: dict[str, str]


def read_env_file(path: Path) -> EnvFile:
    """Read ``.env``. Raises ConfigurationError naming the first line that cannot be understood."""
    if not path.exists():
        return EnvFile(path, {})
    values: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for binding in parse_stream(stream):
                if binding.error:
                    line = binding.original.line + _leading_newlines(binding.original.string)
                    raise ConfigurationError(
                        _("%(path)s, line %(line)d: not understood; write NAME=value") % {"path": path, "line": line}
                    )
                if binding.key is not None and binding.value is not None:
                    values[binding.key] = binding.value
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(_("%(path)s cannot be read: %(error)s") % {"path": path, "error": error}) from error
    return EnvFile(path, values)


def _leading_newlines(text: str) -> int:
    return len(text) - len(text.lstrip("\n"))


class Settings(Mapping[str, str]):
    """The merged view of process environment and ``.env``, with typed access that names the variable when it is wrong."""

    def __init__(self, env_file: EnvFile, environ: Mapping[str, str] = os.environ) -> None:
        self._values = {**env_file.values, **environ}
        self.read: dict[str, str] = {}  # what was asked for so far, and the answer

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def text(self, name: str, default: str = "") -> str:
        self.read[name] = self._values.get(name, "").strip() or default
        return self.read[name]

    def integer(self, name: str, default: int, low: int = 0, high: int = 2**31) -> int:
        raw = self.text(name)
        try:
            value = int(raw) if raw else default
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ConfigurationError(
                _("%(name)s=%(value)s: must be a whole number from %(low)d to %(high)d")
                % {"name": name, "value": raw, "low": low, "high": high}
            )
        return value

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise ConfigurationError(
                _("%(name)s=%(value)s: must be one of %(choices)s")
                % {"name": name, "value": value, "choices": ", ".join(choices)}
            )
        return value

    def flag(self, name: str, default: bool) -> bool:
        raw = self.text(name).lower()
        if raw in {"", "1", "true", "yes", "on", "0", "false", "no", "off"}:
            return raw in {"1", "true", "yes", "on"} if raw else default
        raise ConfigurationError(_("%(name)s=%(value)s: must be true or false") % {"name": name, "value": raw})

    def time_zone(self, name: str, default: str) -> str:
        value = self.text(name, default)
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigurationError(
                _("%(name)s=%(value)s: there is no such time zone; write for example Asia/Shanghai")
                % {"name": name, "value": value}
            ) from error
        return value

    def micro_credits(self, name: str, default: str) -> int:
        """A price in credits as whole micro-credits. Raises ConfigurationError when it is finer than one micro-credit."""
        raw = self.text(name, default)
        try:
            micro = Decimal(raw) * MICRO
        except InvalidOperation:
            micro = Decimal(-1)
        if not micro.is_finite() or micro < 0 or micro != micro.to_integral_value():
            raise ConfigurationError(
                _("%(name)s=%(value)s: must be a number of credits, 0 or more, with at most 6 decimals")
                % {"name": name, "value": raw}
            )
        return int(micro)

    def web_address(self, name: str, default: str) -> str:
        """Scheme and host, perhaps a port and a path; without a slash at its end."""
        value = self.text(name, default).rstrip("/")
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or "@" in parts.netloc:
            raise ConfigurationError(
                _("%(name)s=%(value)s: must be an address such as %(default)s")
                % {"name": name, "value": value, "default": default}
            )
        return value

    def items_of(self, name: str, default: str = "") -> list[str]:
        return [item.strip() for item in self.text(name, default).split(",") if item.strip()]

    def secret(self, name: str) -> str:
        """A secret. Empty when none is set yet; raises ConfigurationError for a value that stands in public examples or that
        a computer can find out by trying."""
        value = self.text(name)
        if value.lower() in PLACEHOLDER_SECRETS:
            raise ConfigurationError(
                _(
                    "%(name)s is still the placeholder “%(value)s”. Remove the line, and a secret is made at the next start."
                )
                % {"name": name, "value": value}
            )
        if 0 < len(value) < SHORTEST_SECRET:
            raise ConfigurationError(
                _(
                    "%(name)s has fewer than %(shortest)d characters. Remove the line, and a secret is made at the next start."
                )
                % {"name": name, "shortest": SHORTEST_SECRET}
            )
        return value
