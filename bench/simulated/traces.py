"""What is asked, and when: made up from documented distributions, or recorded.

A conversation is a list of turns, one after the other: each is asked at its ``time`` or ``think`` seconds after the answer
before it, whichever is later. Its prompt is that of the turn before, the answer to it, and what is new.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench.simulated.replica import Text
from cluster.prefixes import Prompt

TOKEN = 4  # bytes
SYSTEM, QUESTION, ANSWER, NOBODY = range(4)  # kinds of parts; numbers, since hashes of text differ from run to run
LONGEST = 7000  # tokens of a conversation, which ends then


@dataclass(slots=True)
class Turn:
    time: float
    think: float
    prompt: Prompt
    text: Text
    answer_hash: int
    answer: int  # tokens


@dataclass(slots=True)
class Conversation:
    user: int
    turns: list[Turn] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """Log-normal figures are (median, sigma) in tokens. ``rate``: conversations that begin a second, a Poisson process;
    ``burst``: all begin within a second instead. ``turns``: their mean, geometric. ``systems``: so many system prompts of
    ``system`` tokens, the second one half as
    frequent as the first, the third a third (Zipf). ``hot``: the share
    of conversations that are one user's, who does not think."""

    conversations: int = 400
    rate: float = 1.0
    burst: bool = False
    turns: float = 5.0
    think: float = 20.0  # seconds, mean of an exponential distribution
    system: int = 0
    systems: int = 1
    first: tuple[float, float] = (300.0, 0.8)
    later: tuple[float, float] = (60.0, 0.8)
    answer: tuple[float, float] = (120.0, 0.7)
    hot: float = 0.0


def made_up(load: Load, seed: int) -> list[Conversation]:
    chance = random.Random(seed)
    moment, made = 0.0, []
    for number in range(load.conversations):
        moment += 1 / load.conversations if load.burst else chance.expovariate(load.rate)
        hot = chance.random() < load.hot
        user = 0 if hot else 1 + number % max(load.conversations // 4, 1)
        made.append(_conversation(load, chance, number, user, moment))
    return made


def _conversation(load: Load, chance: random.Random, number: int, user: int, moment: float) -> Conversation:
    made, builder = Conversation(user), Builder()
    if load.system:
        builder.add(hash((SYSTEM, _zipf(chance, load.systems))), load.system, False)
    think, turn = 0.0, 0
    while True:
        builder.add(hash((QUESTION, number, turn)), _tokens(chance, load.first if turn == 0 else load.later), False)
        answer, identity = _tokens(chance, load.answer), hash((ANSWER, number, turn))
        made.turns.append(builder.turn(moment, think, identity, answer))
        builder.add(identity, answer, True)
        turn += 1
        if chance.random() < 1 / load.turns or builder.total > LONGEST:
            return made
        think = 0.0 if user == 0 and load.hot else chance.expovariate(1 / load.think)


def _tokens(chance: random.Random, figures: tuple[float, float]) -> int:
    median, sigma = figures
    return max(4, min(round(chance.lognormvariate(math.log(median), sigma)), 4000))


def _zipf(chance: random.Random, count: int) -> int:
    return chance.choices(range(count), [1 / (place + 1) for place in range(count)])[0]


class Builder:
    """A prompt that grows."""

    def __init__(self) -> None:
        self._hashes: list[int] = []
        self._tokens: list[int] = []
        self._answers: list[bool] = []

    @property
    def total(self) -> int:
        return self._tokens[-1] if self._tokens else 0

    def add(self, identity: int, tokens: int, is_answer: bool) -> None:
        self._hashes.append(self._next(identity))
        self._tokens.append(self.total + tokens)
        self._answers.append(is_answer)

    def _next(self, identity: int) -> int:
        return hash((self._hashes[-1] if self._hashes else 0, identity))

    def turn(self, time: float, think: float, answer_identity: int, answer: int) -> Turn:
        hashes, tokens = tuple(self._hashes), tuple(self._tokens)
        prompt = Prompt(hashes, tuple(TOKEN * count for count in tokens), tuple(self._answers))
        return Turn(time, think, prompt, Text(hashes, tokens), self._next(answer_identity), answer)


def recorded(file: Path) -> list[Conversation]:
    """One request a line, as JSON, in the order of time: ``time`` in seconds; ``user`` and ``conversation``, any names;
    ``parts`` of the prompt, each a list of a hash (any name; the same for the same text), tokens, and ``true`` if a model
    wrote it; ``answer``, a hash (null if nobody goes on with it) and tokens."""
    found: dict[str, Conversation] = {}
    users: dict[str, int] = {}
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            request = json.loads(line)
            user = users.setdefault(str(request["user"]), len(users))
            conversation = found.setdefault(str(request["conversation"]), Conversation(user))
            conversation.turns.append(_recorded_turn(request, number))
    return list(found.values())


def _recorded_turn(request: dict, number: int) -> Turn:
    builder = Builder()
    for identity, tokens, *written in request["parts"]:
        builder.add(_number(identity), int(tokens), bool(written and written[0]))
    identity, answer = request["answer"]
    identity = _number(identity) if identity is not None else hash((NOBODY, number))
    return builder.turn(float(request["time"]), 0.0, identity, int(answer))


def _number(name: object) -> int:
    return int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=8).digest())


def requests(conversations: Iterable[Conversation]) -> int:
    return sum(len(conversation.turns) for conversation in conversations)
