#!/usr/bin/env python3
"""Fills a database with conversations and usage, to see how pages and endpoints do when there is much.

    LLM_HOME=/somewhere/else python bench/seed.py --conversations 1000 --usage 100000

Usage is records with two ledger entries each and sums by the hour (bench/usage_rows.py): ten million take some minutes and ten
gigabytes. Writes rows directly, past the services, since through them it would take hours: only for a database that is thrown
away afterwards. The tables are made when missing. Run again, it adds as much again. The same arguments give the same rows.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from accounts.models import User, Wallet  # noqa: E402
from bench import usage_rows  # noqa: E402
from chat.models import Conversation, Message  # noqa: E402

BATCH = 5000
WORDS = [
    "why",
    "does",
    "a",
    "cache",
    "forget",
    "what",
    "nobody",
    "asks",
    "for",
    "为什么",
    "天空",
    "是",
    "蓝色",
    "的",
    "and",
    "how",
    "long",
    "is",
    "an",
    "answer",
    "你好",
    "请",
    "解释",
]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--username", default="seeded", help="whose conversations (made when missing)")
    parser.add_argument("--password", default="seeded-password-1", help="of a user that is made")
    parser.add_argument("--operator", action="store_true", help="make that user an operator")
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=6, help="in each conversation")
    parser.add_argument("--usage", type=int, default=100_000, help="requests")
    parser.add_argument("--users", type=int, default=20, help="people they are spread over")
    parser.add_argument("--days", type=float, default=30.0, help="time they are spread over, until now")
    return parser.parse_args()


def person(name: str, password: str | None = None, **fields: Any) -> User:
    user, created = User.objects.get_or_create(username=name, defaults=fields)
    if created:
        user.set_password(password)  # None: nobody can log in
        user.save()
        Wallet.objects.get_or_create(user=user)
    return user


def text(dice: random.Random, words: int) -> str:
    return " ".join(dice.choices(WORDS, k=words))


def conversations(dice: random.Random, count: int, user: User, start: datetime, days: float) -> Iterator[Conversation]:
    for number in range(count):
        changed = start + timedelta(days=days * (number + 1) / count)
        title = text(dice, dice.randint(2, 8))[:200]
        yield Conversation(id=uuid.uuid4(), user=user, title=title, model_name=usage_rows.MODELS[0], updated_at=changed)


def messages(dice: random.Random, of: Iterable[Conversation], each: int) -> Iterator[Message]:
    """A straight line of questions and answers, parents before children."""
    for conversation in of:
        parent: Message | None = None
        for number in range(each):
            answer = number % 2 == 1
            parent = Message(
                id=uuid.uuid4(),
                conversation=conversation,
                parent=parent,
                role="assistant" if answer else "user",
                text=text(dice, dice.randint(40, 200) if answer else dice.randint(3, 20)),
                model_name=usage_rows.MODELS[0] if answer else "",
            )
            yield parent


def store(model: type[Any], rows: Iterator[Any]) -> list[Any]:
    stored: list[Any] = []
    while batch := list(islice(rows, BATCH)):
        with transaction.atomic():
            stored += model.objects.bulk_create(batch)
    return stored


def main() -> None:
    wanted = arguments()
    dice = random.Random(1)
    Path(settings.HOME_DIR).mkdir(parents=True, exist_ok=True)
    call_command("migrate", verbosity=0)
    user = person(wanted.username, wanted.password, is_staff=wanted.operator)
    others = [user, *(person(f"{wanted.username}-{number}") for number in range(1, wanted.users))]
    start = timezone.now() - timedelta(days=wanted.days)
    began = time.monotonic()
    usage_rows.make(wanted.usage, others, start, wanted.days)
    made = store(Conversation, conversations(dice, wanted.conversations, user, start, wanted.days))
    for first in range(0, len(made), 500):
        store(Message, messages(dice, made[first : first + 500], wanted.messages))
    print(f"{wanted.usage} requests, {len(made)} conversations of {wanted.username}: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
