"""What must hold for every input that claims to be a GGUF file. ``tools/fuzz_gguf.py`` makes such inputs by the million;
``test_gguf_corpus.py`` replays those that were kept."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

from models_app import memory, reasons
from models_app.gguf import GgufError, facts_of
from models_app.gguf_reader import read_stream
from models_app.memory import Load

LOADS = (Load(512), Load(131_072, 256, "q8_0", flash_attention=False), Load(8192, 3, encodes=True))
MOST_JSON = 16_384


def one_input(data: bytes) -> None:
    """Raises for a crash, a reason without a sentence, facts that are no sound numbers, or a plan that cannot be made."""
    error = None
    try:
        header = read_stream(io.BytesIO(data), len(data))
    except GgufError as caught:
        error = caught
    if error is not None:
        assert error.code in reasons.TEXTS, error.code
        json.dumps(error.params)
        return
    facts = facts_of(header.values, header.tensors, len(data))
    plain = asdict(facts)
    assert len(json.dumps(plain)) < MOST_JSON
    assert all(value >= 0 for value in plain.values() if isinstance(value, int))
    for load in LOADS:
        need = memory.need(facts, load)
        assert 0 <= need.at_start <= need.resident <= need.most
    memory.nearest(facts, LOADS[-1], need.at_start // 2)
