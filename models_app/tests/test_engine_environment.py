"""What an engine process is told of the environment it is started from."""

from __future__ import annotations

from models_app import process


def test_no_secret_reaches_an_engine_but_its_own_key() -> None:
    source = {"JWT_SECRET": "a", "SECRET_KEY": "b", "DATABASE_URL": "c", "ADMIN_PASSWORD": "d", "PATH": "/bin"}
    given = process.environment(7, "nonce", source)
    assert set(given) == {"PATH", "LLAMA_API_KEY", "LLM_REPLICA", "LLM_CLAIM", *process.ENGINE_DEFAULTS}
    assert given["LLAMA_API_KEY"] == process.engine_key("nonce")


def test_threads_spin_a_short_while_unless_the_administrator_wants_it_otherwise() -> None:
    assert process.environment(7, "nonce", {})["GOMP_SPINCOUNT"] == "1000"
    assert process.environment(7, "nonce", {"GOMP_SPINCOUNT": "7"})["GOMP_SPINCOUNT"] == "7"
