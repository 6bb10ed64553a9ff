"""What a web process that was killed had delivered is settled from its journal: real processes, ended by SIGKILL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from accounts import journal, quota
from accounts.ledger_checks import ledger_problems
from accounts.models import Hold, LedgerEntry, UsageRecord, Wallet
from accounts.prices import Price
from accounts.quota import HoldRequest, Settlement, UsageFigures

pytestmark = pytest.mark.django_db
PRICE = Price(1000, 100, 2000)

# Puts notes as it is told, each with the tokens that were delivered; says so, and waits to be killed.
PROCESS = """
import django, json, sys, time
django.setup()
from django.conf import settings
from pathlib import Path
settings.RUN_DIR = Path(sys.argv[1])
settings.DATABASES["default"]["NAME"] = sys.argv[3]
from accounts import journal
from llmplatform.lib import process_identity
own = journal.own()
for content, delivered in json.loads(sys.argv[2]):
    own.count(own.put(content), delivered)
print(process_identity.own_identity(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def run_dir(tmp_path: Path, settings: Any) -> Path:
    settings.RUN_DIR = tmp_path
    return tmp_path


@pytest.fixture
def process(run_dir: Path, settings: Any) -> Any:
    """Starts one with notes; answers its identity and what kills it."""
    running: list[subprocess.Popen[str]] = []

    def start(notes: list[Any]) -> tuple[str, Callable[[], None]]:
        text = json.dumps(notes, default=str)
        argv = [sys.executable, "-c", PROCESS, str(run_dir), text, str(settings.DATABASES["default"]["NAME"])]
        one = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        running.append(one)
        assert one.stdout
        identity = one.stdout.readline().strip()
        assert identity

        def kill() -> None:
            one.kill()
            one.wait(timeout=30)

        return identity, kill

    yield start
    for one in running:
        one.kill()
        one.communicate(timeout=30)


@pytest.fixture
def wallet(make_user: Any) -> Wallet:
    found: Wallet = make_user().wallet
    return found


def settlement(request_id: str, wallet: Wallet, prompt: int = 0, answer: int = 0) -> Settlement:
    figures = UsageFigures(
        model_name="模型",
        endpoint="chat.completions",
        status=502,
        outcome="failed",
        streamed=True,
        prompt_tokens=prompt,
        completion_tokens=answer,
        first_token_ms=12,
        created_at=timezone.now(),
    )
    return Settlement(request_id, wallet.pk, figures, None, PRICE)


def note(request_id: str, wallet: Wallet, prompt: int = 0, answer: int = 0, *, is_final: bool = True) -> list[Any]:
    return quota.note_of(settlement(request_id, wallet, prompt, answer), is_final=is_final)


def held(wallet: Wallet, owner: str, *request_ids: str) -> None:
    quota.hold_many([HoldRequest(r, wallet.pk, "模型", 50, 100, price=PRICE) for r in request_ids])
    Hold.objects.filter(request_id__in=request_ids).update(owner=owner)


def costs() -> dict[str, int]:
    return dict(LedgerEntry.objects.filter(kind="settle").values_list("request_id", "cost"))


def test_what_a_killed_process_delivered_is_charged_once(wallet: Wallet, process: Any, run_dir: Path) -> None:
    before = wallet.available
    identity, kill = process(
        [
            (note("under-way", wallet, 10, is_final=False), 7),
            (note("ended", wallet, 10, 30), 0),
            (note("noted-twice", wallet, 10, is_final=False), 3),
            (note("noted-twice", wallet, 10, 20), 0),
        ]
    )
    held(wallet, identity, "under-way", "ended", "noted-twice", "nothing-delivered")
    assert quota.release_dead_holds() == 0
    assert costs() == {}, "it lives: what it noted is its own affair"
    kill()
    for _time in range(2):
        quota.release_dead_holds()
        assert costs() == {"under-way": 24_000, "ended": 70_000, "noted-twice": 50_000}
    assert ledger_problems() == []
    wallet.refresh_from_db()
    assert (wallet.available, wallet.held) == (before - 144_000, 0)
    assert list(journal.left_behind()) == []
    record = UsageRecord.objects.get(request_id="under-way")
    assert (record.model_name, record.outcome, record.prompt_tokens, record.completion_tokens) == (
        "模型",
        "failed",
        10,
        7,
    )


def test_what_was_settled_before_the_end_is_not_settled_again(wallet: Wallet, process: Any) -> None:
    identity, kill = process([(note("written", wallet, 10, is_final=False), 7)])
    held(wallet, identity, "written")
    quota.settle(settlement("written", wallet, 10, 40))
    kill()
    quota.release_dead_holds()
    assert costs() == {"written": 90_000}


def test_a_note_that_cannot_be_read_harms_no_other(wallet: Wallet, process: Any, run_dir: Path) -> None:
    identity, kill = process([(note("broken", wallet, 10, 5), 0), (note("whole", wallet, 10, 5), 0)])
    held(wallet, identity, "broken", "whole")
    kill()
    [path] = (run_dir / "journals").iterdir()
    with path.open("r+b") as file:
        file.seek(journal.HEAD.size)
        file.write(b"\xff\xfe")
    quota.release_dead_holds()
    assert costs() == {"whole": 20_000}
    assert ledger_problems() == []


def test_a_journal_cut_short_is_read_as_far_as_it_goes(wallet: Wallet, process: Any, run_dir: Path) -> None:
    identity, kill = process([(note("first", wallet, 10, 5), 0), (note("second", wallet, 10, 5), 0)])
    held(wallet, identity, "first", "second")
    kill()
    [path] = (run_dir / "journals").iterdir()
    os.truncate(path, journal.SLOT_BYTES + 100)
    quota.release_dead_holds()
    assert costs() == {"first": 20_000}


def test_the_journal_of_a_machine_with_another_name_is_settled_after_a_day(
    wallet: Wallet, process: Any, run_dir: Path
) -> None:
    identity, kill = process([(note("r", wallet, 10, 5), 0)])
    held(wallet, "elsewhere" + identity[identity.index(":") :], "r")
    kill()
    [path] = (run_dir / "journals").iterdir()
    _owner, rest = path.name.split("%3A", 1)
    renamed = path.rename(path.with_name(f"elsewhere%3A{rest}"))
    quota.release_dead_holds()
    assert costs() == {}
    long_ago = time.time() - journal.STRANGER_SECONDS - 60
    os.utime(renamed, (long_ago, long_ago))
    quota.release_dead_holds()
    assert costs() == {"r": 20_000}


def test_a_journal_of_another_database_is_left_alone(wallet: Wallet, process: Any, run_dir: Path) -> None:
    """Its wallets have the same numbers as ours and are other people's."""
    _identity, kill = process([(note("r", wallet, 10, 5), 0)])
    kill()
    [path] = (run_dir / "journals").iterdir()
    owner = path.name.split(".")[0]
    path.rename(path.with_name(f"{owner}.0123456789ab.journal"))
    quota.release_dead_holds()
    assert costs() == {}


def test_more_answers_than_there_is_room_for_are_not_noted_and_disturb_nothing(run_dir: Path) -> None:
    own = journal.Journal(run_dir / "j")
    own.open()
    slots = [own.put(["x"]) for _ in range(journal.SLOTS)]
    assert own.put(["one too many"]) is None
    own.count(None, 5)
    own.free(None)
    assert own.replace(slots[0], ["longer than a slot" * 100]) == slots[0], "the old note stays"
    own.free(slots[5])
    assert own.put(["again"]) == slots[5]


def test_nothing_is_left_of_a_process_that_has_settled_everything(run_dir: Path) -> None:
    own = journal.Journal(run_dir / "j")
    own.open()
    slot = own.put(["x"])
    own.close()
    assert own.path.exists()
    own.free(slot)
    own.close()
    assert not own.path.exists()


def test_no_room_on_the_disk_is_no_reason_not_to_serve(run_dir: Path) -> None:
    (run_dir / "journals").write_text("a file where the folder should be")
    journal.own.cache_clear()
    try:
        own = journal.own()
        assert own.put(["x"]) is None
        own.close()
    finally:
        journal.own.cache_clear()
