"""/api/schema is complete and valid; /api/docs works in a real browser under our own Content-Security-Policy, offline."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml
from django.core.management import call_command
from django.urls import URLPattern, URLResolver, get_resolver
from playwright.async_api import async_playwright

from tests.browser.chromium import launch


def api_paths(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[str]:
    for pattern in patterns:
        path = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from api_paths(pattern.url_patterns, path)
        elif path.startswith("api/v1/"):
            yield "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)


def test_the_description_is_valid_and_leaves_no_endpoint_out(tmp_path):
    file = tmp_path / "schema.yaml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(file))
    schema = yaml.safe_load(file.read_text("utf-8"))
    assert set(api_paths(get_resolver().url_patterns)) <= set(schema["paths"])
    # The gateway's endpoints are no Django views: they stand in no resolver.
    assert {"/v1/chat/completions", "/api/v1/v1/models", "/api/v1/models/{name}/chat"} <= set(schema["paths"])
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert operation["tags"] != ["api"], f"{method} {path} stands in no group"
            assert operation.get("summary"), f"{method} {path} says nothing"


@pytest.mark.e2e
async def test_the_page_shows_operations_and_needs_nothing_from_outside(service):
    asked, complaints = [], []
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        page = await browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"{service.base_url}/api/docs")
        operation = page.locator(".opblock", has_text="/api/v1/cluster/stats")
        await operation.wait_for()
        assert await page.locator(".opblock").count() > 20
        await operation.locator(".opblock-summary").click()
        await page.get_by_role("button", name="Try it out").click()
        await page.get_by_role("button", name="Execute").click()
        status = page.locator(".live-responses-table .response-col_status").last
        await status.wait_for()
        assert "401" in await status.inner_text()  # nobody is logged in; the call itself goes through
        await browser.close()
    assert [url for url in asked if not url.startswith((service.base_url, "data:", "blob:"))] == []
    assert [text for text in complaints if "401" not in text] == []
