"""``EMAIL_URL``: through which server mail is sent."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from llmplatform.lib.configuration import ConfigurationError
from llmplatform.lib.early_messages import translate as _

YES, NO = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class MailServer:
    host: str = "localhost"
    port: int = 25
    user: str = ""
    password: str = ""
    tls_at_once: bool = False
    starttls: bool = False


def parse(url: str) -> MailServer:
    """``smtp://user:password@host:587?tls=true`` or ``smtps://…`` (TLS from the first byte). Raises ConfigurationError, which
    does not quote the URL: a password stands in it.

    A password travels over TLS unless ``tls=false`` says otherwise.
    """
    if not url:
        return MailServer()
    try:
        parts = urlsplit(url)
        port, options = parts.port, dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise _not_understood() from None
    tls = options.pop("tls", "true" if parts.username else "false").lower()
    bare = parts.path in {"", "/"} and not parts.fragment and not options  # a # in a password is written %23
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or not bare or tls not in YES | NO:
        raise _not_understood()
    at_once = parts.scheme == "smtps"
    usual_port = 465 if at_once else 587 if parts.username else 25
    return MailServer(
        host=parts.hostname,
        port=port or usual_port,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls_at_once=at_once,
        starttls=tls in YES and not at_once,
    )


def _not_understood() -> ConfigurationError:
    return ConfigurationError(
        _("EMAIL_URL is not understood; write for example smtp://user:password@mail.example.com:587?tls=true")
    )
