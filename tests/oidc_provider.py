"""A small OpenID Connect provider for tests: a process of its own that speaks real HTTP, keeps to the standards (discovery,
authorization code with PKCE, signed ID tokens, user info) and can be told to do what a provider must not.

``python -m tests.oidc_provider`` prints its port. People log in on its page with any name; ``POST /control`` sets what it
says of them (``claims``) and what it does wrong (``failure``).
"""

from __future__ import annotations

import base64
import html
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.running_service import PROJECT

CLIENT_ID = "llm-platform"
CLIENT_SECRET = "a secret: with % signs + more"
PADDING = 1_000_000  # of an answer that is right but huge
DRIPS = 100  # of one that is right but slow, 20 ms each
FAILURES = frozenset(
    {
        "",
        "down",
        "not_json",
        "huge",
        "slow",
        "redirect",
        "other_issuer",
        "access_denied",
        "no_id_token",
        "invalid_grant",
    }
    | {"wrong_nonce", "no_nonce", "wrong_signature", "no_signature", "signed_with_client_secret", "wrong_issuer"}
    | {
        "wrong_audience",
        "several_audiences",
        "expired",
        "no_expiry",
        "from_the_future",
        "no_subject",
        "other_user_info",
    }
)


@dataclass
class Grant:
    subject: str
    redirect_uri: str
    nonce: str
    challenge: str


@dataclass
class State:
    issuer: str = ""
    failure: str = ""
    at: str = ""  # the path that goes wrong, for those failures that any can have
    claims: dict[str, Any] = field(default_factory=dict)
    in_user_info: list[str] = field(default_factory=list)  # claims that the ID token leaves out
    codes: dict[str, Grant] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"}))
    other_key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one"}))

    def id_token(self, grant: Grant) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": grant.subject,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": grant.nonce,
            **self.person(grant.subject),
        }
        claims |= {
            "wrong_nonce": {"nonce": secrets.token_hex(8)},
            "no_nonce": {"nonce": None},
            "wrong_issuer": {"iss": "https://accounts.example.com"},
            "wrong_audience": {"aud": "another-client"},
            "several_audiences": {"aud": [CLIENT_ID, "another-client"], "azp": "another-client"},
            "expired": {"iat": now - 7200, "exp": now - 3600},
            "no_expiry": {"exp": None},
            "from_the_future": {"iat": now + 3600, "exp": now + 7200},
            "no_subject": {"sub": ""},
        }.get(self.failure, {})
        return self.signed({name: value for name, value in claims.items() if value is not None})

    def signed(self, claims: dict[str, Any]) -> str:
        match self.failure:
            case "wrong_signature":
                return jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.other_key)
            case "no_signature":
                parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
                return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."
            case "signed_with_client_secret":
                key = OctKey.import_key(CLIENT_SECRET)
                return jwt.encode({"alg": "HS256", "kid": "one"}, claims, key, algorithms=["HS256"])
        return jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)

    def person(self, subject: str, *, user_info: bool = False) -> dict[str, Any]:
        known = {"preferred_username": subject, "email": f"{subject}@example.org", **self.claims}
        return {name: value for name, value in known.items() if (name in self.in_user_info) == user_info}


class Handler(BaseHTTPRequestHandler):
    state: State

    def log_message(self, *_arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/requests":
            self.state.requests.append(parts.path)
        if self._fails(parts.path):
            return
        match parts.path:
            case "/.well-known/openid-configuration":
                self._json(self._description())
            case "/jwks":
                keys = [ECKey.generate_key("P-256", {"kid": "two"}), self.state.key]
                self._json({"keys": [key.as_dict(private=False) for key in keys]})
            case "/authorize":
                self._login_page(query)
            case "/userinfo":
                self._user_info()
            case "/requests":
                self._json({"requests": self.state.requests})
            case _:
                self._answer(404, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        path = urlsplit(self.path).path
        if path == "/control":
            self._control(json.loads(body))
            return
        self.state.requests.append(path)
        fields = {name: values[0] for name, values in parse_qs(body).items()}
        if self._fails(path):
            return
        if path == "/authorize":
            self._authorize(fields)
        elif path == "/token":
            self._token(fields)
        else:
            self._answer(404, b"")

    # -- endpoints -------------------------------------------------------------------------------------------------
    def _control(self, wanted: dict[str, Any]) -> None:
        assert wanted.get("failure", "") in FAILURES
        self.state.failure, self.state.at = wanted.get("failure", ""), wanted.get("at", "")
        self.state.claims, self.state.in_user_info = wanted.get("claims", {}), wanted.get("in_user_info", [])
        self.state.requests.clear()
        self._json({})

    def _description(self) -> dict[str, Any]:
        issuer = self.state.issuer
        return {
            "issuer": "https://accounts.example.com" if self.state.failure == "other_issuer" else issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "userinfo_endpoint": f"{issuer}/userinfo",
            "jwks_uri": f"{issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
        }

    def _login_page(self, query: dict[str, str]) -> None:
        hidden = "".join(
            f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
            for name, value in query.items()
        )
        page = (
            "<!doctype html><title>Provider</title><link rel='icon' href='data:,'><h1>Provider</h1>"
            f"<form method='post' action='/authorize'>{hidden}"
            "<label>Name <input name='person'></label><button>Sign in</button></form>"
        )
        self._answer(200, page.encode(), "text/html")

    def _authorize(self, fields: dict[str, str]) -> None:
        if fields.get("client_id") != CLIENT_ID or fields.get("response_type") != "code":
            self._answer(400, b"unknown client")
            return
        assert fields["code_challenge_method"] == "S256"
        back = {"state": fields["state"]}
        if self.state.failure == "access_denied":
            back |= {"error": "access_denied", "error_description": "<b>no</b>"}
        else:
            back["code"] = secrets.token_urlsafe(16)
            self.state.codes[back["code"]] = Grant(
                fields["person"], fields["redirect_uri"], fields["nonce"], fields["code_challenge"]
            )
        self._redirect(f"{fields['redirect_uri']}?{urlencode(back)}")

    def _token(self, fields: dict[str, str]) -> None:
        grant = self.state.codes.pop(fields.get("code", ""), None)
        is_client = (fields.get("client_id"), fields.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        if not is_client:
            self._json({"error": "invalid_client"}, 401)
        elif (
            grant is None
            or self.state.failure == "invalid_grant"
            or fields.get("redirect_uri") != grant.redirect_uri
            or create_s256_code_challenge(fields.get("code_verifier", "")) != grant.challenge
        ):
            self._json({"error": "invalid_grant"}, 400)
        else:
            access = secrets.token_urlsafe(16)
            self.state.tokens[access] = grant.subject
            answer = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
            if self.state.failure != "no_id_token":
                answer["id_token"] = self.state.id_token(grant)
            self._json(answer)

    def _user_info(self) -> None:
        subject = self.state.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if subject is None:
            self._json({"error": "invalid_token"}, 401)
            return
        told = "somebody-else" if self.state.failure == "other_user_info" else subject
        self._json({"sub": told, **self.state.person(subject, user_info=True)})

    # -- answers ---------------------------------------------------------------------------------------------------
    def _fails(self, path: str) -> bool:
        """What can go wrong at any address."""
        if path != self.state.at:
            return False
        match self.state.failure:
            case "down":
                self._answer(500, b"Traceback: the provider's own secrets")
            case "not_json":
                self._answer(200, b"<html>", "text/html")
            case "redirect":
                self._redirect(f"{self.state.issuer}/elsewhere")
            case _:
                return False
        return True

    def _redirect(self, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, answer: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(answer).encode()
        if urlsplit(self.path).path != self.state.at:
            self._answer(status, body)
        elif self.state.failure == "huge":
            self._answer(status, b" " * PADDING + body)
        elif self.state.failure == "slow":
            self._drip(body)
        else:
            self._answer(status, body)

    def _drip(self, body: bytes) -> None:
        """A byte now and then, so that no single read takes too long."""
        self.send_response(200)
        self.send_header("Content-Length", str(DRIPS + len(body)))
        self.end_headers()
        with suppress(OSError):  # whoever asked has had enough
            for part in [b" "] * DRIPS + [body]:
                self.wfile.write(part)
                self.wfile.flush()
                time.sleep(0.02)

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # whoever asked has had enough
            self.wfile.write(body)


# -- for the tests -----------------------------------------------------------------------------------------------------------
@dataclass
class Provider:
    issuer: str

    def behave(self, **wanted: Any) -> None:
        """As it should, but for what is given: ``failure``, ``at`` (a path), ``claims``, ``in_user_info``."""
        httpx.post(f"{self.issuer}/control", json=wanted).raise_for_status()

    def log_in(self, address: str, person: str) -> str:
        """What a browser does at the provider: the address it is sent back to."""
        page = urlsplit(address)
        assert address.startswith(f"{self.issuer}/authorize?"), address
        fields = {name: values[0] for name, values in parse_qs(page.query).items()}
        answer = httpx.post(f"{self.issuer}/authorize", data={**fields, "person": person})
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]

    def requests(self) -> list[str]:
        found: list[str] = httpx.get(f"{self.issuer}/requests").json()["requests"]
        return found


@contextmanager
def running_provider() -> Iterator[Provider]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.oidc_provider"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Provider(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.kill()
        process.wait(timeout=10)


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.state = State(issuer=f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()  # until whoever started it is gone


if __name__ == "__main__":
    main()
