"""What must hold when things have calmed down. Each check gives sentences about what does not."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import psutil

from tests.chaos.clients import Asked
from tests.chaos.world import CHAT_FILE, World, port_of
from tests.running_service import PROJECT, wait_for

CALM_WITHIN = 150.0  # serve waits up to a minute before it starts a child again that has ended often
MEMORY = {"web": 400e6, "startmodels": 160e6, "serve": 80e6}
DESCRIPTORS = 250
ROWS = """
import django, json
django.setup()
from accounts.ledger_checks import ledger_problems
from accounts.models import Hold
from accounts.quota import release_dead_holds
from models_app.models import Replica
from models_app.process import find_engines, engine_key
from models_app.config_file import read
from django.conf import settings
release_dead_holds()
rows = Replica.objects.select_related("model")
print(json.dumps({
    "rows": [{"model": row.model.name, "number": row.number, "id": row.pk, "state": row.state, "pid": row.pid,
              "port": row.port, "slots": row.slots, "key": engine_key(row.key_nonce), "nonce": row.key_nonce} for row in rows],
    "marked": [[found.process.pid, found.replica_id, found.nonce] for found in find_engines()],
    "ledger": ledger_problems(), "holds": Hold.objects.count(),
    "config problems": [problem.reason for problem in read(settings.MODEL_CONFIG_PATH).problems],
}))
"""
SIMPLE_QUESTION = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}),
    "embedder": ("/v1/embeddings", {"input": "token1"}),
    "reranker": ("/v1/rerank", {"query": "token1", "documents": ["token2"]}),
}


# -- calming down ------------------------------------------------------------------------------------------------------------
def calm_down(world: World) -> None:
    """Nothing is done to it any more, and what was broken is whole again; what gave up is asked for once more."""
    world.undo_all()
    for name in (CHAT_FILE, *world.files):
        world.restore(name)
    world.step()
    world.note("-- calm")

    def settled() -> bool:
        world.step()
        models = listed(world)
        for model in models or ():
            for running in model["running"]:
                # It was ended too often to be tried again by itself: what somebody would press a button for.
                if running["state"] == "failed" and str(running["error"]).startswith("llama-server "):
                    world.ask("POST", f"/api/v1/models/{model['modelName']}/restart")
        return models is not None and all(as_wanted(model) for model in models)

    try:
        wait_for(settled, "what runs is what is wanted", CALM_WITHIN)
    except AssertionError:
        world.findings.append(f"never calm: {json.dumps(_short(listed(world)), indent=1)}")


def listed(world: World) -> list[dict[str, Any]] | None:
    with contextlib.suppress(httpx.HTTPError):
        answer = world.get("/api/v1/models")
        return answer.json()["models"] if answer.status_code == 200 else None
    return None


def _short(models: list[dict[str, Any]] | None) -> list[Any]:
    keys = ("modelName", "active", "policy", "replicas", "slots", "contextLength", "state", "running")
    return [{key: model[key] for key in keys} for model in models or ()]


def wanted_replicas(model: dict[str, Any]) -> int:
    return model["replicas"] if model["active"] and model["policy"] != "off" else 0


def serving(world: World) -> set[str]:
    return {model["modelName"] for model in listed(world) or () if wanted_replicas(model)}


def as_wanted(model: dict[str, Any]) -> bool:
    states = [running["state"] for running in model["running"]]
    return states == ["ready"] * wanted_replicas(model)


# -- the checks --------------------------------------------------------------------------------------------------------------
def findings(world: World, asked: list[Asked]) -> list[str]:
    models = listed(world) or []
    inside = _inside(world)
    checks: list[Iterator[str]] = [
        iter(world.findings),
        of_requests(world, asked),
        of_settings(world, models),
        of_replicas(world, models, inside),
        of_processes(world, inside),
        of_ports(world, inside),
        of_answers(world, models),
        of_books(inside),
        of_logs(world),
    ]
    return [finding for check in checks for finding in check]


def _inside(world: World) -> dict[str, Any]:
    """Rows, engines with this folder's mark, and books; once every request has been settled."""
    variables = {**world.service.environment, "DJANGO_SETTINGS_MODULE": "llmplatform.settings"}

    def look() -> dict[str, Any] | None:
        done = subprocess.run(
            [sys.executable, "-c", ROWS], cwd=PROJECT, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.clear()
        found.update(json.loads(done.stdout.splitlines()[-1]))
        return found if not found["holds"] else None

    found: dict[str, Any] = {}
    with contextlib.suppress(AssertionError):
        wait_for(look, "no holds", 60)
    return found


def of_requests(world: World, asked: list[Asked]) -> Iterator[str]:
    """A whole answer, an error in the API's form, or a connection that broke when the web server was made to end."""
    for one in asked:
        fine = one.end in {"answered", "left", "refused", "cut by an error event"}
        if one.end == "dropped":
            fine = world.web_was_out(one.began, one.ended)
        if one.told == "404 model_not_found":
            fine = world.may_be_off(one.model, one.began, one.ended)
        if not fine:
            yield f"request: {one}"


def of_settings(world: World, models: list[dict[str, Any]]) -> Iterator[str]:
    """What was confirmed has stayed."""
    found = {model["modelName"]: model for model in models}
    for (name, key), fact in world.wanted.items():
        if fact.values is None or name == "extra":
            continue
        if name not in found:
            yield f"{name} is gone"
        elif found[name].get(key) not in fact.values:
            yield f"{name}: {key} is {found[name].get(key)}, and was set to one of {fact.values}"
    for model in models:
        if not as_wanted(model):
            yield f"{model['modelName']} does not run as wanted: {_short([model])}"


def of_replicas(world: World, models: list[dict[str, Any]], inside: dict[str, Any]) -> Iterator[str]:
    """Rows, processes and settings say the same."""
    by_name = {model["modelName"]: model for model in models}
    rows = [(row["pid"], row["id"], row["nonce"]) for row in inside["rows"]]
    marked = [tuple(entry) for entry in inside["marked"]]
    if set(rows) != set(marked):
        yield f"rows have {rows}, and processes with this folder's mark are {marked}"
    for row in inside["rows"]:
        model = by_name.get(row["model"])
        command = _command_line(row["pid"])
        if model is None or row["state"] != "ready":
            yield f"a row of nothing that should run: {row}"
            continue
        wished = {"--port": row["port"], "--parallel": model["slots"], "--alias": row["model"]}
        if model["contextLength"]:
            wished["--ctx-size"] = model["contextLength"] * model["slots"]
        for flag, value in wished.items():
            if flag not in command or command[command.index(flag) + 1] != str(value):
                yield f"{row['model']}/{row['number']} should have {flag} {value}: {command}"


def of_processes(world: World, inside: dict[str, Any]) -> Iterator[str]:
    """serve, web, supervisor and the engines of the rows; nothing else, and none has grown."""
    known = {row["pid"] for row in inside["rows"]}
    for command, most in MEMORY.items():
        found = world.processes(command)
        if len(found) != 1:
            yield f"{len(found)} processes for {command}"
        for process in found:
            known.add(process.pid)
            if (size := process.memory_info().rss) > most:
                yield f"{command} has {size / 1e6:.0f} MB"
            if (count := process.num_fds()) > DESCRIPTORS:
                yield f"{command} has {count} open files"
            world.note(f"{command}: {process.memory_info().rss / 1e6:.0f} MB, {process.num_fds()} files")
    for process in world.service.processes():
        if process.pid not in known:
            yield f"a process left behind: {process.pid} {_command_line(process.pid)}"


def of_ports(world: World, inside: dict[str, Any]) -> Iterator[str]:
    """Every port that a process of ours listens on is the web server's or stands in a row."""
    wished = {row["port"]: row["pid"] for row in inside["rows"]}
    for process in world.processes("web"):
        wished[world.service.port] = process.pid
    found: dict[int, int] = {}
    for process in world.service.processes():
        with contextlib.suppress(psutil.Error):
            for one in process.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN:
                    found[one.laddr.port] = process.pid
    if found != wished:
        yield f"listening are {found}, and should be {wished}"
    for engine in world.processes("engines"):
        if port_of(engine) not in wished:
            yield f"an engine on port {port_of(engine)} that no row has"


def of_answers(world: World, models: list[dict[str, Any]]) -> Iterator[str]:
    for model in models:
        if not wanted_replicas(model):
            continue
        path, body = SIMPLE_QUESTION.get(model["modelName"], SIMPLE_QUESTION["chat"])
        answer = world.post(path, {"model": model["modelName"], **body})
        if answer.status_code != 200:
            yield f"{model['modelName']} does not answer: {answer.status_code} {answer.text[:300]}"


def of_books(inside: dict[str, Any]) -> Iterator[str]:
    yield from (f"ledger: {problem}" for problem in inside["ledger"])
    if inside["holds"]:
        yield f"{inside['holds']} holds were not given back"
    yield from (f"model_config.json: {problem}" for problem in inside["config problems"])


def of_logs(world: World) -> Iterator[str]:
    """No traceback anywhere: what was done to it is trouble that it knows."""
    for entry in world.service.log():
        if "exception" in entry:
            yield f"log: {entry.get('message')}: {entry['exception'][-1500:]}"
    for path in (world.service.home / "logs").glob("*.log"):
        if path.name != "llm-app.log" and "Traceback" in path.read_text(errors="replace"):
            yield f"a traceback in {path.name}"
    if "Traceback" in world.service.output:
        yield f"terminal: {world.service.output[-2000:]}"


def _command_line(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []
