"""A certificate in TLS_CERT: the web server speaks TLS, cookies stay with it, and browsers are told to come back by it."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.running_service import Service, running

pytestmark = pytest.mark.e2e


def make_certificate(folder: Path) -> Path:
    """For 127.0.0.1, signed by itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "llm test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = (
        builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).add_extension(address, False)
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path = folder / "certificate.pem"
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("tls"), starter=False, TLS_CERT=str(certificate)) as started:
        yield started


@pytest.fixture
def client(service: Service, certificate: Path) -> Iterator[httpx.Client]:
    trusted = ssl.create_default_context(cafile=str(certificate))
    with httpx.Client(base_url=f"https://127.0.0.1:{service.port}", verify=trusted, timeout=30) as opened:
        yield opened


def test_cookies_and_hsts(service: Service, client: httpx.Client) -> None:
    page = client.get("/login")
    assert page.headers["strict-transport-security"] == "max-age=2592000"
    token = client.cookies["csrftoken"]
    form = {"username": service.username, "password": service.password, "csrfmiddlewaretoken": token}
    entered = client.post("/login", data=form, headers={"Referer": str(page.url)})
    assert entered.status_code == 302
    cookies = [line.lower() for answer in (page, entered) for line in answer.headers.get_list("set-cookie")]
    assert {line.partition("=")[0] for line in cookies} >= {"sessionid", "csrftoken"}
    assert [line for line in cookies if "secure" not in line] == []
    assert client.get("/account").status_code == 200


def test_programs_come_by_it_too(service: Service, client: httpx.Client) -> None:
    answer = client.post("/api/v1/auth/login", json={"username": service.username, "password": service.password})
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {answer.json()['access']}"}).status_code == 200


def test_nothing_is_answered_without_it(service: Service) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{service.port}/healthz", timeout=10)


def test_status_finds_it(service: Service) -> None:
    assert "https://" in service.command("status").stdout
