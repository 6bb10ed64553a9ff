"""What goes to and fro between this service and the OpenID Connect provider: authorization code with PKCE, state and nonce.

The protocol is Authlib's and joserfc's: the address with its challenge, the token request, the ID token's signature and claims.
Said here is only what they leave to whoever uses them: which algorithms, which issuer, which audience, and what is an error.

    ProviderError     its text is for the log; what people read is in single_sign_on_views
    ├── Unavailable   the provider does not answer, or not with what it should
    ├── Denied        the provider says no
    └── Untrusted     what came back does not prove anything: wrong state, signature, issuer, audience, nonce, time
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.oauth2.client import OAuth2Client
from authlib.oidc.core.claims import CodeIDToken
from django.conf import settings
from django.utils.crypto import constant_time_compare
from httpx import HTTPError
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from accounts.provider_http import BadAnswer, Session, check_address

# Signed by a key that only the provider has: neither "none" nor one made from the client's secret.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
KEY_TYPES = ("RSA", "EC", "OKP")
CLOCKS_DIFFER_BY = 60  # seconds, at most
DESCRIPTION_KEPT = 300  # seconds
LONGEST_SUBJECT = 255  # by the standard
LONGEST_CODE = 4096

_description: tuple[float, str, dict[str, Any]] | None = None


class ProviderError(Exception):
    pass


class Unavailable(ProviderError):
    pass


class Denied(ProviderError):
    pass


class Untrusted(ProviderError):
    pass


@dataclass(frozen=True)
class Claims:
    """What the provider says of somebody; only ``issuer`` and ``subject`` identify them."""

    issuer: str
    subject: str
    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        value = self.values.get(name, "")
        return value.strip() if isinstance(value, str) and "\0" not in value else ""

    def texts(self, name: str) -> list[str]:
        value = self.values.get(name)
        given = value if isinstance(value, list) else [value]
        return [text for text in given if isinstance(text, str)]


def begin(redirect_uri: str) -> tuple[str, dict[str, str]]:
    """Where to send the browser, and what its session has to remember until it comes back. Raises Unavailable."""
    try:
        with Session() as session:
            description = _description_of(session)
            client = _client(session, redirect_uri, description)
            verifier, nonce = generate_token(64), generate_token(32)
            address, state = client.create_authorization_url(
                description["authorization_endpoint"], code_verifier=verifier, nonce=nonce
            )
    except BadAnswer as error:
        raise Unavailable(str(error)) from error
    return address, {"state": state, "verifier": verifier, "nonce": nonce}


def finish(redirect_uri: str, remembered: Mapping[str, str], answer: Mapping[str, str]) -> Claims:
    """Who has come back from the provider. ``answer`` is the query of the address they came back to. Raises ProviderError."""
    _check_answer(remembered, answer)
    try:
        with Session() as session:
            description = _description_of(session)
            _check_issuer_of_answer(description, answer)
            token = _token(_client(session, redirect_uri, description), description, remembered, answer["code"])
            proven = _proven_claims(token, session.get_json(description["jwks_uri"]), description, remembered["nonce"])
            return Claims(proven["iss"], proven["sub"], _with_user_info(session, description, token, proven))
    except BadAnswer as error:
        raise Unavailable(str(error)) from error


# -- the provider's description of itself --------------------------------------------------------------------------------


def _description_of(session: Session) -> dict[str, Any]:
    """From /.well-known/openid-configuration, kept for a few minutes."""
    global _description
    kept = _description
    if kept and kept[1] == settings.OIDC_ISSUER and time.monotonic() - kept[0] < DESCRIPTION_KEPT:
        return kept[2]
    found = session.get_json(settings.OIDC_ISSUER.rstrip("/") + "/.well-known/openid-configuration")
    issuer = found.get("issuer")
    if not isinstance(issuer, str) or issuer.rstrip("/") != settings.OIDC_ISSUER.rstrip("/"):
        raise BadAnswer(f"the provider calls itself {issuer!r}, not {settings.OIDC_ISSUER!r}")
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        check_address(found.get(name))
    _description = (time.monotonic(), settings.OIDC_ISSUER, found)
    return found


def forget_description() -> None:
    global _description
    _description = None


def _client(session: Session, redirect_uri: str, description: Mapping[str, Any]) -> Any:
    return OAuth2Client(
        session,
        client_id=settings.OIDC_CLIENT_ID,
        client_secret=settings.OIDC_CLIENT_SECRET,
        token_endpoint_auth_method=_way_to_send_the_secret(description),
        scope=settings.OIDC_SCOPES,
        redirect_uri=redirect_uri,
        code_challenge_method="S256",
    )


def _way_to_send_the_secret(description: Mapping[str, Any]) -> str:
    """In the body where the provider takes it: about signs in the header (a colon, a percent sign) providers disagree."""
    if not settings.OIDC_CLIENT_SECRET:
        return "none"
    ways = description.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    return "client_secret_post" if "client_secret_post" in ways else "client_secret_basic"


# -- the way back --------------------------------------------------------------------------------------------------------


def _check_answer(remembered: Mapping[str, str], answer: Mapping[str, str]) -> None:
    if not constant_time_compare(remembered["state"], answer.get("state", "")):
        raise Untrusted("another state than the one that was sent")
    if "error" in answer:
        raise Denied(f"the provider answered {answer['error'][:100]!r}")
    if not 0 < len(answer.get("code", "")) <= LONGEST_CODE:
        raise Untrusted("no code")


def _check_issuer_of_answer(description: Mapping[str, Any], answer: Mapping[str, str]) -> None:
    """RFC 9207: that the answer is not another provider's."""
    required = description.get("authorization_response_iss_parameter_supported") is True
    if ("iss" in answer or required) and answer.get("iss") != description["issuer"]:
        raise Untrusted(f"the answer is of {answer.get('iss')!r}")


def _token(client: Any, description: Mapping[str, Any], remembered: Mapping[str, str], code: str) -> dict[str, Any]:
    try:
        token = client.fetch_token(
            description["token_endpoint"],
            grant_type="authorization_code",
            code=code,
            code_verifier=remembered["verifier"],
        )
    except AuthlibBaseError as error:  # the provider's own words, such as invalid_grant for a code that was used
        raise Untrusted(f"the code was not accepted: {error.error}") from error
    except (HTTPError, ValueError, TypeError, RecursionError) as error:
        raise Unavailable(f"no token came: {type(error).__name__}") from error
    if not isinstance(token.get("id_token"), str) or not isinstance(token.get("access_token"), str):
        raise Unavailable("no ID token came with the token")
    return dict(token)


def _proven_claims(
    token: Mapping[str, Any], keys: Mapping[str, Any], description: Mapping[str, Any], nonce: str
) -> dict[str, Any]:
    """The ID token's claims, after everything that the standard wants checked of them."""
    options = {
        "iss": {"essential": True, "values": [description["issuer"]]},
        "aud": {"essential": True, "values": [settings.OIDC_CLIENT_ID]},
    }
    expected = {"nonce": nonce, "client_id": settings.OIDC_CLIENT_ID, "access_token": token["access_token"]}
    try:
        registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        read = jwt.decode(token["id_token"], KeySet.import_key_set({"keys": _signing_keys(keys)}), registry=registry)
        claims = CodeIDToken(read.claims, read.header, options, expected)
        claims.validate(leeway=CLOCKS_DIFFER_BY)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Untrusted(f"the ID token is not right: {type(error).__name__} {error}"[:200]) from error
    if not 0 < len(claims["sub"]) <= LONGEST_SUBJECT or "\0" in claims["sub"]:
        raise Untrusted("the subject is empty or too long")
    return dict(claims)


def _signing_keys(keys: Mapping[str, Any]) -> list[Any]:
    """Those for signatures, of the kinds known here: one of another kind must not keep everybody out."""
    found = keys.get("keys")
    given = [key for key in found if isinstance(key, dict)] if isinstance(found, list) else []
    return [key for key in given if key.get("use", "sig") == "sig" and key.get("kty") in KEY_TYPES]


def _with_user_info(
    session: Session, description: Mapping[str, Any], token: Mapping[str, Any], proven: Mapping[str, Any]
) -> dict[str, Any]:
    """With what the ID token leaves to the user info endpoint. What the ID token says comes first."""
    wanted = {"email", settings.OIDC_USERNAME_CLAIM, settings.OIDC_GROUPS_CLAIM} - {""}
    endpoint = description.get("userinfo_endpoint")
    if wanted <= proven.keys() or not endpoint:
        return dict(proven)
    found = session.get_json(endpoint, token["access_token"])
    if found.get("sub") != proven["sub"]:
        raise Untrusted("the user info is somebody else's")
    if found.get("email") != proven.get("email", found.get("email")):
        found.pop("email_verified", None)  # says something about another address
    return {**found, **proven}
