"""``manage.py pullmodel`` as a person runs it: a real process against a real hub, killed and run again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from models_app.downloads.tests.conftest import TINY
from tests.running_service import PROJECT, Service, new_service, put_prepared_files, wait_for

FILE = "tiny-q4_k_m.gguf"
BEGUN = 1_200_000  # bytes of it after which the hub is silent; what is written at once is a megabyte


@pytest.fixture
def place(running_hub, tmp_path) -> Service:
    """A service's folder where nothing runs."""
    running_hub.fault()
    home = tmp_path / "home"
    put_prepared_files(home)
    (home / "models").mkdir()
    return new_service(
        home, HF_ENDPOINT=running_hub.url, MODELSCOPE_ENDPOINT=running_hub.url, STARTER_MODEL="none", HF_TOKEN=""
    )


def pull(place: Service, *arguments: str) -> tuple[int, dict]:
    done = place.command("pullmodel", *arguments, "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def begin(place: Service, *arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, str(PROJECT / "manage.py"), "pullmodel", *arguments]
    return subprocess.Popen(
        argv, env=place.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def files(place: Service) -> set[str]:
    return {path.name for path in (place.home / "models").iterdir() if not path.name.startswith(".")}


def staged(place: Service) -> list:
    return list((place.home / "models" / ".downloads").glob("*/*.partial"))


def test_pulling_a_quantisation_and_making_a_model_of_it(place, running_hub):
    code, end = pull(place, f"{TINY}:q4_k_m", "--name", "tiny")
    assert (code, end["state"], end["hub"], end["licence"]) == (0, "done", "huggingface", "apache-2.0")
    original = running_hub.folder / TINY / FILE
    assert (place.home / "models" / FILE).read_bytes() == original.read_bytes()
    entries = json.loads((place.home / "models" / "model_config.json").read_text())["models"]
    assert (entries[0]["modelName"], entries[0]["modelFile"]) == ("tiny", FILE)
    assert staged(place) == []


def test_a_killed_pull_goes_on_where_it_was(place, running_hub):
    running_hub.fault(stall=BEGUN)
    process = begin(place, f"{TINY}:{FILE}")
    wait_for(lambda: staged(place) and staged(place)[0].stat().st_size, "the first megabyte")
    process.kill()
    process.wait()
    assert files(place) == set()
    running_hub.fault()
    code, end = pull(place, f"{TINY}:{FILE}")
    assert (code, end["state"], end["id"]) == (0, "done", 1)
    assert running_hub.files_asked()[0]["range"].startswith("bytes=")


def test_ctrl_c_says_how_to_cancel_and_cancel_leaves_nothing(place, running_hub):
    running_hub.fault(stall=BEGUN)
    process = begin(place, f"{TINY}:{FILE}")
    wait_for(lambda: staged(place) and staged(place)[0].stat().st_size, "the first megabyte")
    process.send_signal(signal.SIGINT)
    _out, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "pullmodel --cancel 1" in errors
    assert staged(place)
    assert pull(place, "--cancel", "1")[1]["state"] == "cancelled"
    assert (staged(place), files(place)) == ([], set())


def test_a_token_opens_what_is_gated_and_is_nowhere_to_be_read(place, running_hub):
    running_hub.fault(token="hf_very_secret")
    place.environment["HF_TOKEN"] = "hf_very_secret"
    assert pull(place, f"{TINY}:q8_0")[1]["state"] == "done"
    for path in place.home.rglob("*"):
        if path.is_file():
            assert b"hf_very_secret" not in path.read_bytes(), path


def test_what_a_person_reads(place, running_hub):
    done = place.command("pullmodel", f"{TINY}:q8_0")
    assert "tiny-GGUF:q8_0  done" in done.stdout
    assert "tiny-GGUF:q8_0  done" in place.command("pullmodel", "--list").stdout
    assert "MODEL_HOSTS" in place.command("pullmodel", "https://evil.example/x.gguf").stderr
