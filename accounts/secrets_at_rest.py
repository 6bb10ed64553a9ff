"""Secrets in the database, of which a copy must not be a bunch of keys: those that are only ever compared (API keys, codes,
invites) lie there as keyed hashes, those that have to be read again (of second factors) encrypted.

    Unreadable    encrypted with another SECRET_KEY than the present one
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class Unreadable(Exception):
    pass


def keyed_hash(purpose: str, secret: str) -> str:
    """HMAC-SHA256 of ``secret`` in hexadecimal. Its key comes from SECRET_KEY and the purpose, so that no hash fits elsewhere.

    A plain hash would do for 256 random bits; short codes need the key, without which a stolen table could be searched through.
    """
    return hmac.new(
        _key(settings.SECRET_KEY, purpose), secret.encode("utf-8", "surrogatepass"), hashlib.sha256
    ).hexdigest()


def sealed(purpose: str, secret: str) -> str:
    """Encrypted and signed. Its key comes from SECRET_KEY and the purpose: whoever has both can read it, the database alone
    cannot."""
    return _cipher(settings.SECRET_KEY, purpose).encrypt(secret.encode()).decode()


def opened(purpose: str, text: str) -> str:
    """What was ``sealed`` for the same purpose. Raises Unreadable."""
    try:
        return _cipher(settings.SECRET_KEY, purpose).decrypt(text.encode()).decode()
    except InvalidToken as error:
        raise Unreadable from error


@lru_cache(maxsize=8)
def _cipher(secret_key: str, purpose: str) -> Fernet:
    derived = HKDF(SHA256(), length=32, salt=None, info=f"accounts.{purpose}".encode()).derive(secret_key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))


@lru_cache(maxsize=32)
def _key(secret_key: str, purpose: str) -> bytes:
    return hashlib.sha256(f"accounts.{purpose}:{secret_key}".encode()).digest()
