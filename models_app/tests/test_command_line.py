"""The command line is the only way to an engine: what is in it, what can never be."""

import re
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from models_app import engine_main
from models_app.command_line import Chosen, Wanted, build
from models_app.models import MODEL_NAME

WANTED = Wanted(
    name="m",
    file="m.gguf",
    path="models/",
    context_length=None,
    max_tokens=100,
    temperature=0.7,
    top_p=0.8,
    repeat_penalty=1.1,
    threads=None,
    gpu_layers=0,
    slots=3,
    embeddings=False,
    restart_number=0,
)
CHOSEN = Chosen(Path("/models/m.gguf"), 8081, 1000, 4)


def replaced(**changes) -> Wanted:
    return Wanted(**{**WANTED.__dict__, **changes})


def test_every_setting_arrives_at_the_built_in_engine():
    options = engine_main.parse(build(WANTED, CHOSEN))
    assert (options.model, options.alias, options.host, options.port) == ("/models/m.gguf", "m", "127.0.0.1", 8081)
    assert (options.ctx_size, options.parallel) == (3000, 3), "each slot gets the whole context"
    assert (options.threads, options.threads_batch, options.n_predict) == (4, 4, 100)
    assert (options.temp, options.top_p, options.repeat_penalty) == (0.7, 0.8, 1.1)
    assert options.cache_ram == WANTED.prompt_cache == 256
    assert options.no_ui
    assert options.no_slots
    assert options.no_context_shift
    assert not options.embeddings


def test_the_host_cache_is_looked_at_before_a_slot_that_has_less_than_half_of_a_prompt():
    def similarity(**changes) -> float | None:
        return engine_main.parse(build(replaced(**changes), CHOSEN)).slot_prompt_similarity

    assert similarity() == 0.5
    assert [similarity(prompt_cache=0), similarity(embeddings=True), similarity(rerank=True)] == [None] * 3
    assert "--slot-prompt-similarity" not in build(WANTED, CHOSEN, frozenset({"--metrics"}))


def test_embedding_models_take_inputs_as_long_as_their_context():
    argv = build(replaced(embeddings=True), Chosen(Path("m"), 1, 2000, 1, "mean"))
    options = engine_main.parse(argv)
    assert (options.embeddings, options.batch_size, options.ubatch_size, options.pooling) == (True, 2001, 2001, "mean")
    assert options.kv_unified


@pytest.mark.parametrize(("context", "slots"), [(128, 1), (128, 3), (512, 7), (8192, 3), (100_000, 3), (64, 256)])
def test_batches_for_vectors_leave_no_rest_among_slots(context, slots):
    argv = build(replaced(embeddings=True, slots=slots), Chosen(Path("m"), 1, context, 1))
    options = engine_main.parse(argv)
    assert options.batch_size == options.ubatch_size
    assert options.ubatch_size % slots == 0
    assert options.ubatch_size >= min(context, 8192)


def test_settings_for_speed_and_memory():
    wanted = replaced(
        batch_threads=8, ubatch=4096, cache_type="q8_0", flash_attention="on", prompt_cache=0, speculative="ngram"
    )
    options = engine_main.parse(build(wanted, CHOSEN))
    assert (options.threads, options.threads_batch, options.cache_ram) == (4, 8, 0)
    assert (options.batch_size, options.ubatch_size) == (4096, 4096), "a batch holds at least what is computed at once"
    assert (options.cache_type_k, options.cache_type_v, options.flash_attn) == ("q8_0", "q8_0", "on")
    assert options.spec_type == "ngram-simple"


def test_files_beside_the_model():
    lora = ((Path("/models/a.gguf"), 1.0), (Path("/models/b.gguf"), 0.5))
    chosen = Chosen(
        Path("m"), 1, 2000, 1, "", Path("/models/d.gguf"), Path("/models/p.gguf"), lora, Path("/run/t.jinja")
    )
    options = engine_main.parse(build(replaced(speculative="draft"), chosen))
    assert (options.model_draft, options.mmproj) == ("/models/d.gguf", "/models/p.gguf")
    assert (options.lora, options.lora_scaled) == (["/models/a.gguf"], ["/models/b.gguf:0.5"])
    assert options.chat_template_file == "/run/t.jinja"


def test_a_reranking_model():
    options = engine_main.parse(build(replaced(rerank=True, embeddings=True), Chosen(Path("m"), 1, 2000, 1, "mean")))
    assert (options.reranking, options.embeddings, options.pooling, options.ubatch_size) == (True, True, "rank", 2001)


def test_flags_an_older_llama_server_does_not_know_are_left_out():
    argv = build(WANTED, CHOSEN, frozenset({"--port", "--no-webui", "--metrics"}))
    assert "--no-webui" in argv
    assert "--metrics" in argv
    assert not {"--no-ui", "--fit", "--offline", "--jinja"} & set(argv)
    assert "--cache-ram" in argv, "never left to its default"


def test_no_secret_and_no_dangerous_flag_is_ever_in_it():
    words = set(build(replaced(embeddings=True), CHOSEN))
    assert not {word for word in words if "key" in word}
    assert not words & {
        "--rpc",
        "--tools",
        "--path",
        "--slot-save-path",
        "--props",
        "--mcp-config",
        "--hf-repo",
        "--lora",
    }


NUMBERS = st.integers(0, 2**31)
FRACTIONS = st.floats(0, 5)


@given(
    name=st.text("aZ09._:-", min_size=1, max_size=20).filter(MODEL_NAME.regex.match),
    file=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
    numbers=st.tuples(*[NUMBERS] * 5),
    fractions=st.tuples(*[FRACTIONS] * 3),
)
def test_of_what_a_person_typed_only_a_name_a_path_and_numbers_are_in_it(name, file, numbers, fractions):
    """And each of them stays the value of its flag, whatever it looks like."""
    layers, tokens, slots, port, context = numbers
    wanted = replaced(
        name=name, gpu_layers=layers, max_tokens=tokens, slots=slots,
        temperature=fractions[0], top_p=fractions[1], repeat_penalty=fractions[2],
    )  # fmt: skip
    path = Path("/models") / file.lstrip("/")
    argv = build(wanted, Chosen(path, port, context, 4))
    options = engine_main.parse(argv)
    assert (options.model, options.alias, options.host, options.port) == (str(path), name, "127.0.0.1", port)
    flags = {word for word in build(WANTED, CHOSEN) if word.startswith("--")}
    others = [word for word in argv if word not in {str(path), name, "127.0.0.1", "off", *flags}]
    assert all(re.fullmatch(r"[0-9.e+-]+", word) for word in others), others


@pytest.mark.parametrize("name", ["", "-m", "--rpc", "a b", "a\n", "a\0b", "a,b", "$(x)", "a;b", "a/b", "é", "x" * 129])
def test_what_is_no_name(name):
    with pytest.raises(ValidationError):
        MODEL_NAME(name)


def test_the_fingerprint_changes_with_settings_engine_and_restart_only():
    mark = WANTED.fingerprint("engine 1")
    assert mark == replaced().fingerprint("engine 1")
    others = {
        WANTED.fingerprint("engine 2"),
        replaced(restart_number=1).fingerprint("engine 1"),
        replaced(temperature=0.8).fingerprint("engine 1"),
        replaced(context_length=2048).fingerprint("engine 1"),
    }
    assert len(others | {mark}) == 5


@pytest.mark.parametrize("argv", [[], ["--model", "m"], [*build(WANTED, CHOSEN), "--rpc", "x"]])
def test_the_built_in_engine_takes_nothing_else(argv, capsys):
    with pytest.raises(SystemExit):
        engine_main.parse(argv)


@pytest.mark.parametrize(
    ("known", "given"),
    [({"--model-draft", "--spec-type", "draft-simple"}, True), ({"--model-draft", "--spec-type"}, False)],
    ids=["newer", "older"],
)
def test_a_draft_model_is_named_as_the_way_to_guess_where_the_engine_knows_that(known, given):
    chosen = Chosen(Path("m"), 1, 2000, 1, "", Path("/models/d.gguf"))
    argv = build(replaced(speculative="draft"), chosen, frozenset(known))
    assert "--model-draft" in argv
    assert ("draft-simple" in argv) is given
