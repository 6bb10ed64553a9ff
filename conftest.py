"""Fixtures for every app's tests: a real running service."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone, translation
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.running_service import Service, running

# Of how long a test takes, slow machines and neighbours decide. CI's own profile stays beneath.
hypothesis_settings.register_profile(
    "slow", hypothesis_settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("slow")

# What a script puts into the background (`./run-tests.sh &`) is started to ignore Ctrl-C, and whatever it starts inherits this.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _static_files_by_their_own_names(settings: Any) -> None:
    """Pages are rendered without collecting static files first."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}


@pytest.fixture(autouse=True)
def _language_and_zone_of_nobody() -> Iterator[None]:
    """A test leaves neither to the next one."""
    yield
    translation.deactivate()
    timezone.deactivate()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One real service with the starter model for the whole run. Leave it as you found it; start your own to break things
    (``tests.running_service.running``)."""
    with running(tmp_path_factory.mktemp("service")) as started:
        yield started


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes: what takes long first, so that none of them waits for the other at the end."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--no-skips") or session.exitstatus != pytest.ExitCode.OK:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
