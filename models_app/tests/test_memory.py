"""The plan as arithmetic; tests/test_memory_measured.py holds it against running engines."""

from dataclasses import replace

import pytest

from models_app import memory
from models_app.memory import Load
from models_app.tests.gguf_files import facts

GIB, MIB = 1024**3, 1024**2


@pytest.fixture
def qwen(tmp_path):
    """Qwen2-7B-Instruct Q4_K_M, as its header says."""
    return facts(
        tmp_path,
        size=4_683_071_360,
        context_length=32768,
        layers=28,
        embedding_length=3584,
        feed_forward_length=18944,
        heads=28,
        vocabulary=152_064,
        kv_values=28 * 4 * (128 + 128),
        stored=(("Q4_K", 3_500_000_000), ("Q6_K", 900_000_000)),
        embedded_bytes=306_000_000,
        embedded_kind="Q4_K",
        tied=False,
    )


def test_the_cache_grows_with_context_slots_and_precision(qwen):
    one = memory.need(qwen, Load(32768))
    assert one.kv_cache == 28 * 4 * (128 + 128) * 2 * 32768  # 1.75 GiB, as llama.cpp reports for this model
    assert memory.need(qwen, Load(32768, 2)).kv_cache == 2 * one.kv_cache
    assert memory.need(qwen, Load(32768, cache_type="q8_0")).kv_cache == one.kv_cache * 17 // 32
    assert memory.need(qwen, Load(1000)).kv_cache == memory.need(qwen, Load(1024)).kv_cache  # padded to 256
    assert one.at_start == one.weights + one.kv_cache + one.buffers < one.most


def test_layers_with_a_window_stop_growing_and_states_never_grow(qwen):
    narrow = replace(qwen, kv_values=0, window=1024, window_values=100)
    assert memory.need(narrow, Load(32768)).kv_cache == 100 * 2 * (1024 + 512)
    assert memory.need(narrow, Load(512)).kv_cache == 100 * 2 * 512
    state = replace(qwen, kv_values=0, state_bytes=5 * MIB)
    assert memory.need(state, Load(32768, 3)).kv_cache == memory.need(state, Load(512, 3)).kv_cache == 15 * MIB
    copies = memory.need(state, Load(32768, prompt_cache=0)).prompt_cache
    assert copies == 5 * (5 * MIB)  # one at the start of each 8,192 tokens, and one more


def test_copies_for_the_processor_count_and_what_they_replace_need_not_stay(qwen):
    need = memory.need(qwen, Load(512, repacked=frozenset({"Q4_K"})))
    assert need.weights == qwen.size + 3_500_000_000 - 306_000_000
    assert need.at_start == need.resident - need.mapped
    tied = memory.need(replace(qwen, tied=True), Load(512, repacked=frozenset({"Q4_K"})))
    assert tied.weights == qwen.size + 3_500_000_000


def test_the_batch_costs_and_flash_attention_saves(qwen):
    plain = memory.need(qwen, Load(8192)).buffers
    assert memory.need(qwen, Load(8192, ubatch=2048)).buffers > 3 * plain
    assert memory.need(qwen, Load(8192, flash_attention=False)).buffers - plain > 28 * 8192 * 4 * 512 // 2
    assert memory.need(qwen, Load(256, ubatch=2048)).buffers < plain  # no batch is longer than the context
    encoding = memory.need(qwen, Load(2048, encodes=True)).buffers
    assert encoding > 2048 * 152_064 * 4  # a row for each token


def test_second_files_count(qwen):
    alone = memory.need(qwen, Load(4096))
    draft = replace(qwen, size=400 * MIB, kv_values=1000)
    both = memory.need(qwen, Load(4096, draft=draft, projector=100 * MIB, adapters=10 * MIB))
    assert both.weights == alone.weights + 510 * MIB
    assert both.kv_cache == alone.kv_cache + 1000 * 2 * 4096
    assert both.prompt_cache == alone.prompt_cache


def test_a_context_that_is_not_set_is_bounded_by_training_and_memory(qwen):
    two = Load(8192, 2)
    assert memory.default_context(qwen, two, 64 * GIB) == 8192
    assert memory.default_context(replace(qwen, context_length=2048), two, 64 * GIB) == 2048
    assert memory.default_context(replace(qwen, context_length=0), two, 64 * GIB) == 8192
    tight = memory.need(qwen, Load(2048, 2)).at_start
    assert memory.default_context(qwen, two, tight) == 2048
    assert memory.default_context(qwen, two, 1) == memory.SMALLEST_CONTEXT


@pytest.mark.parametrize(
    ("fits", "change"),
    [
        (Load(8192, 4, cache_type="q8_0"), {"cache_type": "q8_0"}),
        (Load(8192, 2), {"slots": 2}),
        (Load(8192, 2, cache_type="q8_0"), {"slots": 2, "cache_type": "q8_0"}),
        (Load(8192, 1, cache_type="q8_0"), {"slots": 1, "cache_type": "q8_0"}),
        (Load(1024, 1, cache_type="q8_0"), {"slots": 1, "cache_type": "q8_0", "context_length": 1024}),
    ],
)
def test_the_nearest_settings_that_fit(qwen, fits, change):
    """What is found fits, and nothing that costs less of what people notice does."""
    available = memory.need(qwen, fits).at_start
    found = memory.nearest(qwen, Load(8192, 4), available)
    assert found.as_dict() == change


def test_nothing_helps_when_the_weights_do_not_fit(qwen):
    assert memory.nearest(qwen, Load(8192, 4), qwen.size) is None


def test_measuring_corrects_the_plan_within_bounds(qwen):
    plan = memory.need(qwen, Load(8192, 2))
    assert plan.corrected(None) is plan
    assert plan.corrected(plan.resident + 1).learned == 0  # the prompt cache may be that much
    assert plan.corrected(plan.most + 100 * MIB).learned == 100 * MIB
    assert plan.corrected(plan.most * 50).learned == plan.resident
    assert plan.corrected(plan.resident - 20 * MIB).learned == -10 * MIB
    assert plan.corrected(plan.resident // 2).learned == 0  # not used to the full
    small = memory.MemoryNeed(weights=95, kv_cache=0, buffers=2, prompt_cache=0)
    assert small.corrected(90).at_start == 95


def test_a_reserve_stays():
    assert memory.usable(100 * GIB) == 95 * GIB
    assert memory.usable(1 * GIB) == 1 * GIB - 256 * MIB
    assert memory.usable(1) == 0
