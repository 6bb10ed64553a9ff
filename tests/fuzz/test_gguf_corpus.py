"""Inputs that fuzzing has found interesting (``tools/fuzz_gguf.py``), and what becomes of each when it is cut or changed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.gguf_target import one_input

CORPUS = sorted((Path(__file__).parent / "gguf_corpus").iterdir())


def test_the_corpus_is_there_and_small():
    assert len(CORPUS) >= 20
    assert sum(path.stat().st_size for path in CORPUS) < 300_000


@pytest.mark.parametrize("start", range(8))
def test_every_input_and_small_changes_of_it(start):
    chance = random.Random(start)
    for path in CORPUS[start::8]:
        data = path.read_bytes()
        one_input(data)
        for _number in range(8):
            changed = bytearray(data[: chance.randrange(len(data) + 1)] if chance.random() < 0.3 else data)
            for _change in range(chance.randrange(4)):
                if changed:
                    changed[chance.randrange(len(changed))] = chance.choice((0, 1, 7, 127, 128, 255))
            one_input(bytes(changed))
