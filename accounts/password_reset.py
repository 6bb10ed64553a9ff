"""A new password for somebody who forgot theirs: by a link in a mail, or one that an administrator hands over.

Whether an account exists must not show, neither in the answer nor in its time: whoever asks gets the same answer at once, and
everything else is done after it.

    LinkRefused    wrong, used or too old: which of them is not told
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from smtplib import SMTPException
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.db import close_old_connections
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import translation
from django.utils.encoding import force_bytes, force_str
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode
from django.utils.translation import gettext as _

from accounts import attempts, people, services
from accounts.models import User
from llmplatform.lib import audit

logger = logging.getLogger(__name__)

MAILS_AN_HOUR = 3  # to one account
WAITING_AT_MOST = 200
_sender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mail")
_waiting: set[Future[None]] = set()


class LinkRefused(Exception):
    pass


def is_possible() -> bool:
    """Whether mail is set up, and a link can be made that leads here and nowhere else."""
    return bool(settings.EMAIL_URL) and (bool(settings.PUBLIC_URL) or "*" not in settings.ALLOWED_HOSTS)


def ask(email: str, address: str, origin: str) -> None:
    """Sends a link if there is such an account. ``origin`` is where the request came to: used unless PUBLIC_URL is set.

    Raises TooManyAttempts, by the address that asks.
    """
    attempts.count("password-reset", address)
    if len(_waiting) >= WAITING_AT_MOST:
        logger.error("too many mails are waiting: one was not sent")
        return
    work = _sender.submit(_send, email, settings.PUBLIC_URL or origin)
    _waiting.add(work)
    work.add_done_callback(_waiting.discard)


def link_for(user: User, origin: str) -> str:
    """Works once, for ``PASSWORD_RESET_TIMEOUT`` seconds."""
    audit.on(user, "reset_link")
    uid = urlsafe_base64_encode(force_bytes(user.pk))
    query = urlencode({"uid": uid, "token": default_token_generator.make_token(user)})
    # Behind the #: what stands there is not sent to servers, and so stands in no log and no Referer.
    return f"{origin}{reverse('password_reset')}#{query}"


def confirm(uid: str, token: str, new_password: str) -> User:
    """Ends every session and token of the account. Raises LinkRefused, or ValidationError with messages per field."""
    user = _user_of(uid)
    if user is None or not default_token_generator.check_token(user, token):
        raise LinkRefused
    try:
        validate_password(new_password, user)
    except ValidationError as error:
        raise ValidationError({"new_password": error.messages}) from error
    with audit.acting_as(user):
        services.set_password(user, new_password, verb="password_reset")
    return user


def _user_of(uid: str) -> User | None:
    try:
        number = int(force_str(urlsafe_base64_decode(uid)))
    except (ValueError, OverflowError, UnicodeDecodeError):
        return None
    return people.persons().filter(pk=number, is_active=True).first() if 0 < number < 2**63 else None


def _send(email: str, origin: str) -> None:
    """In a thread of its own, after the answer."""
    close_old_connections()
    try:
        user = people.persons().filter(email__iexact=email, is_active=True).exclude(email="").first()
        if user is None or not user.has_usable_password():
            return
        attempts.count_up_to(MAILS_AN_HOUR, 3600, "password-mail", str(user.pk))
        with translation.override(user.language or settings.LANGUAGE_CODE):
            context = {"user": user, "link": link_for(user, origin), "hours": settings.PASSWORD_RESET_TIMEOUT // 3600}
            text = render_to_string("accounts/password_mail.txt", context)
            EmailMessage(_("A new password for %(name)s") % {"name": user.username}, text, to=[user.email]).send()
    except attempts.TooManyAttempts:
        logger.warning("no more mails for a new password to user %d this hour", user.pk if user else 0)
    except (SMTPException, OSError):
        logger.exception("the mail server did not take a mail; see EMAIL_URL")
    finally:
        close_old_connections()
