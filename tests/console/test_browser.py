"""The console in a real Chromium, against a real Daphne with collected static files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from models_app.tests.gguf_files import make_gguf
from tests.browser.chromium import launch
from tests.browser.test_accessibility import violations
from tests.ports import free_port
from tests.running_service import put_prepared_files

ROOT = Path(__file__).resolve().parents[2]
FIRST_LOAD_BYTES = 260 * 1024
PAGES = [
    "/admin/",
    "/admin/models_app/modelconfig/",
    "/admin/models_app/modelconfig/1/change/",
    "/admin/models_app/modelconfig/add/",
    "/admin/models_app/modelconfig/add/fits/?file=tiny.gguf",
    "/admin/models_app/modelconfig/add/settings/?file=tiny.gguf",
    "/admin/models_app/modelconfig/add/start/?model=1",
    "/admin/models_app/modelconfig/config/",
    "/admin/models_app/replica/",
    "/admin/cluster/node/",
    "/admin/accounts/usagerecord/",
    "/admin/usage/",
    "/admin/usage/?by=key",
    "/admin/accounts/user/",
    "/admin/accounts/user/1/change/",
    "/admin/accounts/user/add/",
    "/admin/accounts/user/1/password/",
    "/admin/accounts/user/1/top_up/",
    "/admin/accounts/user/credits/",
    "/admin/accounts/group/",
    "/admin/accounts/group/1/change/",
    "/admin/accounts/group/add/",
    "/admin/accounts/apikey/",
    "/admin/accounts/apikey/1/change/",
    "/admin/accounts/apikey/add/",
    "/admin/accounts/invite/",
    "/admin/accounts/invite/add/",
    "/admin/accounts/wallet/",
    "/admin/accounts/wallet/1/change/",
    "/admin/accounts/ledgerentry/",
    "/admin/accounts/ledgerentry/?owner=1",
    "/admin/accounts/redeembatch/",
    "/admin/accounts/redeembatch/1/change/",
    "/admin/accounts/redeembatch/add/",
    "/admin/accounts/redeemcode/?batch=1",
    "/admin/accounts/modelpolicy/",
    "/admin/accounts/modelpolicy/set/?model=tiny",
    "/admin/accounts/auditentry/",
    "/admin/accounts/auditentry/1/change/",
]
SEED = """
from django.test import Client
from accounts import credits, invites, quota
from accounts.models import User, Wallet
from llmplatform.lib import audit
from models_app.models import ModelConfig
from tests.console.conftest import make_group, make_key, make_replica, make_settled_usage, make_usage, person
ada = User.objects.create(username="ada", email="ada@example.com", is_staff=True, is_superuser=True)
quota.open_wallet(ada)
make_replica(ModelConfig.objects.create(name="tiny", file="tiny.gguf"), "ready")
make_usage(60, ada)
audit.on(ada, "update", {"email": "", "role": "user"}, {"email": "ada@example.com", "role": "admin"})
group = make_group("staff", service=True, allowed_models=["tiny", "gone"])
make_key(ada, "notebook")
make_key(group.service_account, "nightly job")
credits.make_codes("Open day", 5, 5_000_000, by=ada)
invites.make_invite(group=group, by=ada)
person("new.one", is_active=False, waiting=True)
people = User.objects.bulk_create(User(username=f"student{number:03}") for number in range(500))
Wallet.objects.bulk_create(Wallet(user=user) for user in people)
make_settled_usage(9, ada)
client = Client()
client.force_login(ada)
print("session=" + client.cookies["sessionid"].value)
"""


def engine_log(home: Path) -> Path:
    return home / "logs" / "engines" / "tiny-1.log"


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"{url}/healthz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the web server did not start")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("home")
    return folder


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[tuple[str, str]]:
    """Address and session cookie of an administrator."""
    (home / ".env").write_text(
        f"JWT_SECRET={'j' * 40}\nSECRET_KEY={'s' * 50}\nALLOWED_HOSTS=127.0.0.1,testserver\n", encoding="utf-8"
    )
    environ = {**os.environ, "LLM_HOME": str(home), "DJANGO_SETTINGS_MODULE": "llmplatform.settings"}
    environ.pop("LLM_PROCESS", None)

    def manage(*arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True).stdout

    put_prepared_files(home)
    make_gguf(home / "models" / "tiny.gguf")
    engine_log(home).parent.mkdir(parents=True, exist_ok=True)
    engine_log(home).write_text("".join(f"line {number}\n" for number in range(200)), encoding="utf-8")
    found = re.search(r"session=(\w+)", manage("shell", "--verbosity=0", "-c", SEED))
    assert found is not None
    port = free_port()
    command = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "llmplatform.asgi:application"]
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}", found[1]
    finally:
        process.terminate()
        process.wait(timeout=15)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = launch(playwright)
        yield chromium
        chromium.close()


@pytest.fixture
def context(service, browser: Browser) -> Iterator[BrowserContext]:
    address, session = service
    made = browser.new_context(base_url=address, viewport={"width": 1280, "height": 900}, locale="en")
    made.add_cookies([{"name": "sessionid", "value": session, "url": address}])
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


def loaded(page: Page, path: str) -> None:
    page.goto(path)
    page.wait_for_load_state("networkidle")


@pytest.mark.e2e
def test_pages_work_under_the_content_policy_and_ask_nobody_else(page: Page, service):
    problems: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: hosts.add("/".join(request.url.split("/")[:3])))
    for path in PAGES:
        page.set_viewport_size({"width": 1440, "height": 844})
        loaded(page, path)
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} is wider than the screen"
            # An icon that the font lacks would show its name instead.
            wide = "[...document.querySelectorAll('.material-symbols-outlined')].filter(e => e.offsetWidth > 80).length"
            assert page.evaluate(wide) == 0, path
        assert problems == [], path
    assert hosts == {service[0]}


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_pages_have_no_violations(service, browser: Browser):
    address, session = service
    context = browser.new_context(base_url=address, color_scheme="light", locale="en", bypass_csp=True)
    context.add_cookies([{"name": "sessionid", "value": session, "url": address}])
    page = context.new_page()
    for number, path in enumerate(PAGES):
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(path)
        page.add_style_tag(content="* { transition: none !important; }")  # no colour is between two
        assert violations(page) == [], path
        if number % 3:  # pages share colours and the way they get narrow: of both, samples
            continue
        page.evaluate("document.documentElement.classList.add('dark')")
        assert violations(page, only="color-contrast") == [], f"{path}, dark"
        page.set_viewport_size({"width": 390, "height": 900})  # colours are the same on a phone
        assert violations(page, but="color-contrast") == [], f"{path}, on a phone"
    context.close()


@pytest.mark.e2e
def test_first_load_is_light_and_the_second_fetches_no_asset(page: Page):
    client = page.context.new_cdp_session(page)
    client.send("Network.enable")
    addresses: dict[str, str] = {}
    transferred: list[tuple[str, int]] = []
    client.on(
        "Network.responseReceived", lambda event: addresses.update({event["requestId"]: event["response"]["url"]})
    )
    client.on(
        "Network.loadingFinished",
        lambda event: transferred.append((addresses.get(event["requestId"], ""), event["encodedDataLength"])),
    )
    loaded(page, "/admin/")
    assert sum(size for _address, size in transferred) <= FIRST_LOAD_BYTES, sorted(transferred, key=lambda one: -one[1])
    transferred.clear()
    loaded(page, "/admin/")
    assert [address for address, size in transferred if "/static/" in address and size] == []


@pytest.mark.e2e
def test_top_up_through_the_dialog(page: Page):
    loaded(page, "/admin/accounts/user/1/change/")
    page.get_by_role("button", name="Balance").click()
    page.get_by_role("link", name="Top up").click()
    page.locator("#dialog input[name=credits]").fill("12.5")
    page.locator("#dialog button[type=submit]").click()
    expect(page.get_by_text("12.50 credits added for ada.")).to_be_visible()


@pytest.mark.e2e
def test_what_only_a_pointer_could_press_is_reached_by_keyboard(page: Page):
    loaded(page, "/admin/accounts/user/1/change/")
    page.get_by_role("button", name="Balance").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Allowance")).to_be_visible()
    loaded(page, "/admin/accounts/apikey/")
    page.get_by_role("button", name="More actions").first.focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("link", name="Revoke").first).to_be_visible()


@pytest.mark.e2e
def test_an_operator_s_morning_somebody_is_approved_and_500_people_get_credits(page: Page, tmp_path: Path):
    """By what the pages say alone, from the overview on."""
    loaded(page, "/admin/")
    page.get_by_role("link", name="Look at them").click()
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.get_by_text("new.one was approved.")).to_be_visible()

    page.get_by_role("link", name="Credits by CSV").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the list").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines()
    filled = [line.replace(",,", ",2.5,", 1) if line.startswith("student") else line for line in lines]
    file = tmp_path / "credits.csv"
    file.write_text("\n".join([*filled, "nobody,2.5"]), encoding="utf-8-sig")
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Show what it would do").click()
    expect(page.get_by_text("One line needs a correction.")).to_be_visible()
    expect(page.get_by_text("There is no user “nobody”.")).to_be_visible()

    file.write_text("\n".join(filled), encoding="utf-8-sig")
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Show what it would do").click()
    expect(page.get_by_text("500 people get 1,250.00 credits together.")).to_be_visible()
    page.get_by_role("button", name="Give 1,250.00 credits").dblclick()
    expect(page.get_by_text(re.compile("500 people got|nothing was given a second time")).first).to_be_visible()

    loaded(page, "/admin/accounts/user/?q=student499")
    expect(page.get_by_role("cell", name="2.50")).to_be_visible()


@pytest.mark.e2e
def test_a_key_is_made_and_copied(page: Page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    loaded(page, "/admin/accounts/user/1/change/")
    page.get_by_role("link", name="Make a key").click()
    page.get_by_label("Name").fill("laptop")
    with page.expect_navigation():  # what the button does is in place when the page is loaded
        page.get_by_role("button", name="Make the key").click()
    secret = page.locator("#secret").inner_text()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("link", name="laptop")).to_be_visible()
    assert secret not in page.content()


@pytest.mark.e2e
def test_the_model_list_follows_what_happens_elsewhere(page: Page, context: BrowserContext):
    loaded(page, "/admin/models_app/modelconfig/")
    expect(page.get_by_text("1 of 1")).to_be_visible()
    elsewhere = context.new_page()
    loaded(elsewhere, "/admin/models_app/modelconfig/1/change/")
    elsewhere.locator("a[href$='/stop/']").first.click()
    elsewhere.locator("#dialog button[type=submit]").click()
    expect(elsewhere.get_by_text("tiny: will be stopped.")).to_be_visible()
    elsewhere.close()
    page.bring_to_front()
    expect(page.get_by_text("1, being stopped")).to_be_visible(timeout=15000)


@pytest.mark.e2e
def test_the_log_is_followed_until_somebody_scrolls_up(page: Page, home: Path):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.set_viewport_size({"width": 390, "height": 844})
    loaded(page, "/admin/models_app/modelconfig/1/change/#log")
    shown, said = page.locator("#log-lines"), page.locator("#log-said")
    expect(said).to_contain_text("It is followed")
    with engine_log(home).open("a", encoding="utf-8") as log:
        print("a new line", file=log, flush=True)
        expect(shown).to_contain_text("a new line")
        assert shown.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight < 24"), "its end is seen"
        shown.evaluate("e => { e.scrollTop = 0; }")
        expect(said).to_contain_text("Not followed while you read")
        print("one more", file=log, flush=True)
        page.get_by_role("button", name="Copy", exact=True).click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert "line 199" in copied
        assert "a new line" in copied
        page.get_by_role("button", name="Follow", exact=True).click()
        expect(shown).to_contain_text("one more")
        assert shown.inner_text().count("one more") == 1


@pytest.mark.e2e
def test_a_model_is_added_by_the_wizard(page: Page):
    """Every step forth and back, by what the pages say alone."""
    loaded(page, "/admin/")
    page.get_by_role("link", name="Add a model").click()
    page.get_by_role("link", name="Choose tiny.gguf").click()
    page.get_by_label("2,048 tokens, one slot, f16").check()
    page.get_by_role("button", name="Go on to the settings").click()
    expect(page.get_by_label("Name")).to_have_value("tiny-2")
    expect(page.get_by_label("Context length")).to_have_value("2048")
    page.get_by_role("link", name="What fits").click()
    expect(page.get_by_label("2,048 tokens, one slot, f16")).to_be_checked()
    page.get_by_role("button", name="Go on to the settings").click()
    page.reload()
    page.get_by_label("Name").fill("second")
    page.get_by_role("button", name="Add and start").click()
    expect(page.get_by_role("heading", name="second")).to_be_visible()
    expect(page.get_by_text("The supervisor has not taken it up yet.")).to_be_visible()


@pytest.mark.e2e
def test_dark_is_one_choice_with_the_other_pages(page: Page):
    loaded(page, "/admin/")
    page.get_by_text("ada@example.com").click()
    page.locator("a:visible", has_text="Dark").click()
    expect(page.locator("html")).to_have_class(re.compile("dark"))
    loaded(page, "/admin/cluster/node/")
    expect(page.locator("html")).to_have_class(re.compile("dark"))
    loaded(page, "/account")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


@pytest.mark.e2e
def test_the_language_can_be_switched(page: Page):
    loaded(page, "/admin/cluster/node/")
    page.get_by_text("ada@example.com").click()
    page.get_by_role("button", name="简体中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-hans")
    assert page.url.endswith("/admin/cluster/node/")
