"""Single sign-on and the second factor as people meet them: a real browser, a real service, a provider that is a process."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pyotp
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import DESKTOP, PHONE, NewContext, Person, Watch, contexts, log_in, watching
from tests.browser.test_accessibility import violations
from tests.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider, running_provider
from tests.running_service import Service, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running_provider() as started:
        yield started


@pytest.fixture(scope="module")
def guarded(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with single sign-on, where operators must have a second factor."""
    switches = {
        "OIDC_ISSUER": provider.issuer,
        "OIDC_CLIENT_ID": CLIENT_ID,
        "OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "OIDC_NAME": "Campus ID",
        "SECOND_FACTOR": "operators",
    }
    with running(tmp_path_factory.mktemp("guarded"), starter=False, **switches) as started:
        yield started


@pytest.fixture
def guarded_watch(guarded: Service, provider: Provider) -> Iterator[Watch]:
    provider.behave()
    for watch in watching(guarded):
        yield watch
        watch.problems = [problem for problem in watch.problems if provider.issuer not in problem]


@pytest.fixture
def make_context(chromium: Browser, guarded: Service, guarded_watch: Watch) -> Iterator[NewContext]:
    yield from contexts(chromium, guarded, guarded_watch)


@pytest.fixture
def somebody(guarded: Service) -> Person:
    person = Person("person-" + secrets.token_hex(3))
    body = {"username": person.name, "password": person.password}
    assert httpx.post(f"{guarded.base_url}/api/v1/auth/register", json=body, timeout=30).status_code == 201
    return person


def sign_in_at_the_provider(page: Page, name: str) -> None:
    expect(page).to_have_title("Provider")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Sign in").click()


def set_up(page: Page, person: Person) -> tuple[pyotp.TOTP, list[str]]:
    """From the page with the QR code to the recovery codes."""
    page.get_by_text("Or type the key in").click()
    app = pyotp.TOTP(page.locator(".key").inner_text().replace(" ", ""))
    page.get_by_label("Code from the app").fill(app.now())
    page.get_by_role("textbox", name="Password").fill(person.password)
    page.get_by_role("button", name="Turn on").click()
    return app, page.locator("#codes").inner_text().split()


def test_logging_in_by_single_sign_on(make_context: NewContext, guarded_watch: Watch):
    page = make_context().new_page()
    page.goto("/account")
    page.get_by_role("link", name="Log in with Campus ID").click()
    name = "ada-" + secrets.token_hex(3)
    sign_in_at_the_provider(page, name)
    expect(page).to_have_url(re.compile("/account$"))
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_role("link", name="Change password")).to_have_count(0)


def test_cancelling_at_the_provider(make_context: NewContext, provider: Provider, guarded_watch: Watch):
    page = make_context().new_page()
    provider.behave(failure="access_denied")
    page.goto("/login/sso")
    sign_in_at_the_provider(page, "ada")
    expect(page.get_by_role("alert")).to_contain_text("did not let you in")
    guarded_watch.problems = [problem for problem in guarded_watch.problems if "403" not in problem]
    provider.behave()
    page.get_by_role("link", name="Begin again").click()
    expect(page).to_have_title("Provider")


def test_connecting_an_account_and_logging_in_with_it(make_context: NewContext, somebody: Person, guarded_watch: Watch):
    page = make_context().new_page()
    log_in(page, somebody)
    page.goto("/account/security")
    page.get_by_text("Connect", exact=True).click()
    page.get_by_role("textbox", name="Password").fill(somebody.password)
    page.get_by_role("button", name="Go on").click()
    subject = "subject-" + secrets.token_hex(3)
    sign_in_at_the_provider(page, subject)
    expect(page.get_by_role("status").filter(has_text="Connected.")).to_be_visible()
    other = make_context().new_page()
    other.goto("/login/sso?next=/account")
    sign_in_at_the_provider(other, subject)
    expect(other.get_by_role("heading", name=somebody.name)).to_be_visible()


def test_setting_up_a_second_factor_and_logging_in_with_it(
    make_context: NewContext, guarded: Service, somebody: Person, guarded_watch: Watch
):
    page = make_context().new_page()
    log_in(page, somebody)
    page.goto("/account/security")
    page.get_by_role("link", name="Set it up").click()
    expect(page.get_by_alt_text("QR code for the app")).to_be_visible()
    assert page.locator(".qr").evaluate("image => image.complete && image.naturalWidth > 0")
    app, codes = set_up(page, somebody)
    assert len(codes) == 10

    other = make_context().new_page()
    log_in(other, somebody)
    expect(other).to_have_url(re.compile("/login/code$"))
    expect(other.get_by_label("Code", exact=True)).to_be_focused()
    other.get_by_label("Code", exact=True).fill("000000" if app.now() != "000000" else "111111")
    other.get_by_role("button", name="Log in").click()
    expect(other.locator(".problem")).to_contain_text("wrong, too old or was used before")
    guarded_watch.problems = [problem for problem in guarded_watch.problems if "400" not in problem]
    other.get_by_label("Code", exact=True).fill(unused_code(app))
    other.get_by_role("button", name="Log in").click()
    expect(other.locator("#composer")).to_be_attached()

    third = make_context().new_page()
    log_in(third, somebody)
    third.get_by_role("link", name="Use a recovery code").click()
    third.get_by_label("Recovery code").fill(codes[0])
    third.get_by_role("button", name="Log in").click()
    expect(third.locator("#composer")).to_be_attached()
    assert entering(guarded, somebody, codes[1:2] * 8).count(200) == 1, "one recovery code, eight at once"


def unused_code(app: pyotp.TOTP) -> str:
    """The next step's: the present one was used up by setting up, and a phone's clock may be that far ahead."""
    return app.at(int(time.time()) + 30)


def entering(service: Service, person: Person, codes: list[str]) -> list[int]:
    def log_in_with(code: str) -> int:
        body = {"username": person.name, "password": person.password, "otp": code}
        return httpx.post(f"{service.base_url}/api/v1/auth/login", json=body, timeout=30).status_code

    with ThreadPoolExecutor(len(codes)) as threads:
        return list(threads.map(log_in_with, codes))


def test_one_code_of_the_app_lets_one_in_of_many_at_once(guarded: Service, somebody: Person):
    code = (
        "from accounts import second_factor; from accounts.models import User; import pyotp;"
        f"user = User.objects.get(username={somebody.name!r}); setup = second_factor.begin_setup(user);"
        f"second_factor.confirm_setup(user, setup.kept, {somebody.password!r}, pyotp.TOTP(setup.secret).now());"
        "print(setup.secret)"
    )
    done = guarded.command("shell", "-v0", "-c", code)
    assert done.returncode == 0, done.stderr
    answers = entering(guarded, somebody, [unused_code(pyotp.TOTP(done.stdout.strip()))] * 4)
    assert sorted(answers) == [200, 401, 401, 401]


def test_an_administrator_sets_one_up_before_anything_else(make_context: NewContext, guarded: Service):
    admin = Person(guarded.username, guarded.password)
    page = make_context().new_page()
    log_in(page, admin)
    expect(page).to_have_url(re.compile("/account/security$"))
    page.goto("/admin/")
    expect(page).to_have_url(re.compile("/account/security$"))
    body = {"username": admin.name, "password": admin.password}
    refused = httpx.post(f"{guarded.base_url}/api/v1/auth/login", json=body, timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "second_factor_setup_required")
    _app, codes = set_up(page, admin)
    page.get_by_role("link", name="I have kept them").click()
    expect(page.locator("#composer")).to_be_attached()
    page.goto("/admin/")
    expect(page).to_have_url(re.compile("/admin/$"))
    asked = httpx.post(f"{guarded.base_url}/api/v1/auth/login", json=body, timeout=30)
    assert (asked.status_code, asked.json()["error"]["code"]) == (401, "second_factor_required")
    answer = httpx.post(f"{guarded.base_url}/api/v1/auth/login", json={**body, "otp": codes[0]}, timeout=30)
    assert answer.status_code == 200
    lost = guarded.command("resetsecondfactor", admin.name)
    assert lost.returncode == 0, lost.stderr


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_have_no_violations(
    make_context: NewContext, somebody: Person, theme: str, viewport: dict[str, int], guarded_watch: Watch
):
    page = make_context(viewport=viewport, color_scheme=theme, bypass_csp=True).new_page()
    page.goto("/login")
    assert violations(page) == []
    log_in(page, somebody)
    page.goto("/account/security")
    assert violations(page) == []
    page.goto("/account/security?setup=1")
    assert violations(page) == []
    set_up(page, somebody)
    assert violations(page) == []
    page.goto("/account/security")
    for summary in page.locator("summary").all():
        summary.click()
    assert violations(page) == []
    other = make_context(viewport=viewport, color_scheme=theme, bypass_csp=True).new_page()
    log_in(other, somebody)
    expect(other).to_have_url(re.compile("/login/code$"))
    assert violations(other) == []
    other.goto("/login/sso/back")
    guarded_watch.problems = [problem for problem in guarded_watch.problems if "400" not in problem]
    assert violations(other) == []
