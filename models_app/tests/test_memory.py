from dataclasses import replace

from models_app import memory
from models_app.gguf import GgufFacts

GIB = 1024**3
# Qwen2-7B-Instruct Q4_K_M, as its header says
QWEN = GgufFacts(
    "qwen2", "", "Q4_K_M", 7_615_616_512, 4_683_071_360, 32768, 28, 3584, 28, 4, 128, 128, 152_064, True, False
)


def test_the_cache_grows_with_context_and_slots():
    one = memory.need(QWEN, 32768, 1)
    assert one.kv_cache == 28 * 4 * (128 + 128) * 2 * 32768  # 1.75 GiB, as llama.cpp reports for this model
    assert memory.need(QWEN, 32768, 2).kv_cache == 2 * one.kv_cache
    assert one.at_start == one.weights + one.kv_cache + one.buffers < one.most


def test_a_context_that_is_not_set_is_bounded_by_training_and_memory():
    assert memory.default_context(QWEN, 2, 64 * GIB) == 8192
    assert memory.default_context(replace(QWEN, context_length=2048), 2, 64 * GIB) == 2048
    assert memory.default_context(replace(QWEN, context_length=0), 2, 64 * GIB) == 8192
    tight = memory.need(QWEN, 2048, 2).at_start
    assert memory.default_context(QWEN, 2, tight) == 2048
    assert memory.default_context(QWEN, 2, 1) == memory.SMALLEST_CONTEXT


def test_the_advice_is_a_context_that_fits():
    available = memory.need(QWEN, 4096, 2).at_start
    assert memory.largest_context(QWEN, 2, available, 16384) == 4096
    assert memory.largest_context(QWEN, 2, QWEN.size, 16384) == 0
