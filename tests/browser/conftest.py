"""Chromium against the running service. Every page a test opens is watched: an error on its console, something the content
policy refused, or a request to another host fails the test."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests import standin
from tests.browser.chromium import launch
from tests.running_service import Service, running, wait_for

expect.set_options(timeout=15_000)
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}


@dataclass
class Person:
    name: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))


@dataclass
class Watch:
    """What went wrong on the pages of a test. A test may take out what it provoked itself."""

    host: str
    problems: list[str] = field(default_factory=list)

    def add(self, page: Page) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        where = urlsplit(request.url)
        if where.scheme in ("http", "https", "ws", "wss") and where.netloc != self.host:
            self.problems.append(f"request to {request.url}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For one module only: while Playwright's loop runs, no other test in this process can have one."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def watch(service: Service) -> Iterator[Watch]:
    yield from watching(service)


def watching(service: Service) -> Iterator[Watch]:
    watch = Watch(urlsplit(service.base_url).netloc)
    yield watch
    assert watch.problems == []


NewContext = Callable[..., BrowserContext]


@pytest.fixture
def new_context(chromium: Browser, service: Service, watch: Watch) -> Iterator[NewContext]:
    yield from contexts(chromium, service, watch)


def contexts(chromium: Browser, service: Service, watch: Watch) -> Iterator[NewContext]:
    made: list[BrowserContext] = []

    def make(**options: object) -> BrowserContext:
        settings = {"viewport": DESKTOP, "locale": "en-US", "color_scheme": "light", **options}
        context = chromium.new_context(base_url=service.base_url, **settings)
        context.on("page", watch.add)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()


@pytest.fixture
def page(new_context: NewContext) -> Page:
    return new_context().new_page()


@pytest.fixture(scope="session")
def person(service: Service) -> Person:
    return registered(service)


def registered(service: Service) -> Person:
    """Somebody with an account and enough credit for all tests."""
    person = Person("person-" + secrets.token_hex(3))
    body = {"username": person.name, "password": person.password, "email": f"{person.name}@example.com"}
    answer = httpx.post(f"{service.base_url}/api/v1/auth/register", json=body, timeout=20)
    assert answer.status_code == 201, answer.text
    give_credit(service, person.name)
    return person


def give_credit(service: Service, name: str) -> None:
    code = (
        "from accounts import quota; from accounts.models import Wallet;"
        f"quota.top_up(Wallet.objects.get(user__username={name!r}), 10**12, 'tests')"
    )
    done = service.command("shell", "-v0", "-c", code)
    assert done.returncode == 0, done.stderr


def log_in(page: Page, person: Person) -> None:
    page.goto("/login")
    page.get_by_label("User name or email address").fill(person.name)
    page.get_by_label("Password", exact=True).fill(person.password)
    page.locator("main form button.primary").click()


def new_chat(page: Page, person: Person) -> Page:
    log_in(page, person)
    expect(page.locator("main[data-line=up]")).to_be_attached()
    return page


@pytest.fixture
def chat(page: Page, person: Person) -> Page:
    """A new conversation of somebody who is logged in."""
    return new_chat(page, person)


# -- answers that take as long as a test needs ---------------------------------------------------------------------------
SLOW = {"chunks": 400, "token_seconds": 0.05, "answer": None}


@pytest.fixture(scope="session")
def slow_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose engine is the stand-in: each answer is 400 words, one every 50 ms, whatever else the machine does."""
    folder = tmp_path_factory.mktemp("slow")
    engine = standin.write_executable(folder / "llama-server", **SLOW)
    with running(folder / "home", LLAMA_CPP_PATH=str(engine)) as started:
        yield started


@pytest.fixture
def switch(slow_service: Service) -> Iterator[Callable[..., None]]:
    """Changes switches of the slow engine, for an answer under way too. At the end it is slow again."""
    wait_for(slow_service.model_is_ready, "the stand-in")
    (engine,) = slow_service.engines()
    argv = engine.cmdline()
    port = argv[argv.index("--port") + 1]

    def switched(**switches: object) -> None:
        httpx.post(f"http://127.0.0.1:{port}/standin", json=switches, timeout=20).raise_for_status()

    yield switched
    switched(**SLOW)


@pytest.fixture(scope="session")
def slow_person(slow_service: Service) -> Person:
    return registered(slow_service)


@pytest.fixture
def slow_watch(slow_service: Service) -> Iterator[Watch]:
    yield from watching(slow_service)


@pytest.fixture
def slow_context(chromium: Browser, slow_service: Service, slow_watch: Watch) -> Iterator[NewContext]:
    yield from contexts(chromium, slow_service, slow_watch)


@pytest.fixture
def slow_chat(slow_context: NewContext, slow_person: Person) -> Iterator[Page]:
    """As ``chat``, with the slow engine. An answer still being written at the end is stopped."""
    page = new_chat(slow_context().new_page(), slow_person)
    yield page
    page.evaluate("document.getElementById('stop').click()")  # hidden, and without effect, when nothing is written
    expect(page.locator("#send")).to_be_visible()
