"""How each event of a schedule is done."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from tests.chaos.schedule import Event
from tests.chaos.world import CHANGES, CHAT_FILE, ENTRIES, EXTRA, World, copy_in_place, port_of

KILL, TERM = signal.SIGKILL, signal.SIGTERM
FROZEN = 3.0  # seconds at most
NAMES = [entry["modelName"] for entry in ENTRIES]


def do(world: World, event: Event) -> None:
    world.note(f"-- {event}")
    DEEDS[event.what](world, event)


def _one(found: list[Any], event: Event) -> list[Any]:
    return [found[int(event.pick * len(found))]] if found else []


# -- processes -------------------------------------------------------------------------------------------------------------
def to_an_engine(number: signal.Signals) -> Callable[[World, Event], None]:
    return lambda world, event: world.send(number, _one(world.processes("engines"), event))


def to_supervisor(number: signal.Signals) -> Callable[[World, Event], None]:
    return lambda world, event: world.send(number, world.processes("startmodels"))


def to_web(number: signal.Signals) -> Callable[[World, Event], None]:
    def deed(world: World, event: Event) -> None:
        with world.web_ends() as web:
            world.send(number, web)

    return deed


def freeze(command: str) -> Callable[[World, Event], None]:
    def deed(world: World, event: Event) -> None:
        found = world.processes(command)
        world.freeze(_one(found, event) if command == "engines" else found, 0.3 + event.chance * FROZEN)

    return deed


def end_serve(number: signal.Signals) -> Callable[[World, Event], None]:
    def deed(world: World, event: Event) -> None:
        process = world.service.process
        assert process is not None
        with world.web_ends():
            process.send_signal(number)
            world.note(f"{number.name} to serve, pid {process.pid}")
            code = process.wait(30)
        if number is TERM and code not in (0, -TERM):  # it had not got so far as to take signals
            world.findings.append(f"serve was asked to end at {world.now:.2f} s and did with {code}")
        world.begin_serve()

    return deed


def kill_all(world: World, event: Event) -> None:
    with world.web_ends():
        world.send(KILL, world.service.processes())
    assert world.service.process is not None
    world.service.process.wait(30)
    world.begin_serve()


def kill_all_but_engines(world: World, event: Event) -> None:
    with world.web_ends():
        engines = {process.pid for process in world.processes("engines")}
        world.send(KILL, [process for process in world.service.processes() if process.pid not in engines])
    assert world.service.process is not None
    world.service.process.wait(30)
    world.begin_serve()


# -- wishes ----------------------------------------------------------------------------------------------------------------
def change_by_api(world: World, event: Event) -> None:
    name, change = NAMES[int(event.pick * len(NAMES))], CHANGES[int(event.chance * len(CHANGES))]
    _by_api(world, name, change)


def _by_api(world: World, name: str, change: dict[str, Any]) -> bool:
    answer = world.ask("PATCH", f"/api/v1/models/{name}", change)
    for key, value in change.items():
        if answer is None:
            world.fact(name, key).suspect(value)
        elif answer.status_code == 200:
            world.fact(name, key).confirm(value)
    if answer is not None and answer.status_code != 200:
        world.findings.append(f"{name} was not changed: {answer.status_code} {answer.text[:300]}")
    return answer is not None


def change_by_file(world: World, event: Event) -> None:
    name, change = NAMES[int(event.pick * len(NAMES))], CHANGES[int(event.chance * len(CHANGES))]
    _by_file(world, name, change)


def _by_file(world: World, name: str, change: dict[str, Any]) -> bool:
    def edit(entries: list[dict[str, Any]]) -> None:
        [entry] = [entry for entry in entries if entry["modelName"] == name]
        # What is there already is no change, although the database may say otherwise since a process was killed.
        changed.update({key: value for key, value in change.items() if entry.get(key) != value})
        entry.update(change)

    changed: dict[str, Any] = {}
    done = world.edit_config(edit)
    for key, value in change.items():
        if done and key in changed:
            world.fact(name, key).confirm(value)
        else:
            world.fact(name, key).suspect(value)
    return done


def switch(by: Callable[[World, str, dict[str, Any]], bool]) -> Callable[[World, Event], None]:
    def deed(world: World, event: Event) -> None:
        name, on = NAMES[int(event.pick * len(NAMES))], event.chance > 0.4
        world.switching(name, on)
        if by(world, name, {"active": on}) and on and world.fact(name, "active").values == [True]:
            world.switched_on(name)

    return deed


def restart(world: World, event: Event) -> None:
    """One that is switched off is started by it."""
    name = NAMES[int(event.pick * len(NAMES))]
    answer, active = world.ask("POST", f"/api/v1/models/{name}/restart"), world.fact(name, "active")
    if answer is None:
        active.suspect(True)
    elif answer.status_code < 300 and active.values is not None:
        active.confirm(True)
        world.switched_on(name)


def go_back(world: World, event: Event) -> None:
    """Its settings are whatever the service says then."""
    name = NAMES[int(event.pick * len(NAMES))]
    answer = world.ask("POST", f"/api/v1/models/{name}/go-back")
    known = [key for model, key in world.wanted if model == name and key not in {"active", "replicas", "modelName"}]
    for key in known:
        if answer is None or answer.status_code < 300:
            world.fact(name, key).forget()


def add_or_remove(world: World, event: Event) -> None:
    there = world.fact("extra", "there").values
    wish, by_file = there != [True], event.chance > 0.5
    world.switching("extra", wish)
    if by_file:
        _extra_by_file(world, wish)
    else:
        _extra_by_api(world, wish)
    if world.fact("extra", "there").values == [True]:
        world.switched_on("extra")


def _extra_by_api(world: World, wish: bool) -> None:
    if wish:
        answer = world.ask("POST", "/api/v1/models", {**EXTRA, "active": True})
        if answer is not None and answer.status_code in {400, 409}:  # it is there, and may be switched off
            answer = world.ask("POST", "/api/v1/models/extra/start")
    else:
        answer = world.ask("DELETE", "/api/v1/models/extra")
    if answer is not None and (answer.status_code < 300 or answer.status_code == 404):
        world.fact("extra", "there").confirm(wish)
    else:
        world.fact("extra", "there").suspect(wish)


def _extra_by_file(world: World, wish: bool) -> None:
    def edit(entries: list[dict[str, Any]]) -> None:
        entries[:] = [entry for entry in entries if entry["modelName"] != "extra"] + ([EXTRA] if wish else [])

    world.edit_config(edit)
    # Switched on or off elsewhere meanwhile, the file's entry may be no change.
    world.fact("extra", "there").suspect(wish)


# -- files and ports -------------------------------------------------------------------------------------------------------
def delete_file(world: World, event: Event) -> None:
    name = _one([CHAT_FILE, *world.files], event)[0]
    (world.models / name).unlink(missing_ok=True)
    world.note(f"{name} is deleted")
    world.later(1 + 4 * event.chance, lambda: world.restore(name))


def break_file(world: World, event: Event) -> None:
    """Something else takes its place."""
    name = _one([CHAT_FILE, *world.files], event)[0]
    scratch = world.models / ".broken"
    scratch.write_bytes(b"GGUF and then nothing of use" * 1000)
    os.replace(scratch, world.models / name)
    world.note(f"{name} is replaced by nonsense")
    world.later(1 + 4 * event.chance, lambda: world.restore(name))


def cut_file(world: World, event: Event) -> None:
    """In place, under the engine that has mapped it."""
    name = _one(list(world.files), event)[0]
    if (world.models / name).exists():
        copy_in_place(world.models / name, world.files[name][: int(len(world.files[name]) * event.chance)])
        world.note(f"{name} is cut in place")
        world.later(1 + 4 * event.chance, lambda: world.restore(name))


def take_port(world: World, event: Event) -> None:
    world.stranger(None, 1 + 4 * event.chance)


def take_port_of_a_killed_engine(world: World, event: Event) -> None:
    for engine in _one(world.processes("engines"), event):
        port = port_of(engine)
        world.send(KILL, [engine])
        begin = world.now
        while not world.stranger(port, 1 + 4 * event.chance) and world.now < begin + 1:  # it is free in a moment
            time.sleep(0.005)


DEEDS: dict[str, Callable[[World, Event], None]] = {
    "kill engine": to_an_engine(KILL),
    "term engine": to_an_engine(TERM),
    "freeze engine": freeze("engines"),
    "kill web": to_web(KILL),
    "term web": to_web(TERM),
    "freeze web": freeze("web"),
    "kill supervisor": to_supervisor(KILL),
    "term supervisor": to_supervisor(TERM),
    "freeze supervisor": freeze("startmodels"),
    "kill serve": end_serve(KILL),
    "term serve": end_serve(TERM),
    "kill all": kill_all,
    "kill all but engines": kill_all_but_engines,
    "change by API": change_by_api,
    "change by file": change_by_file,
    "switch by API": switch(_by_api),
    "switch by file": switch(_by_file),
    "restart by API": restart,
    "go back by API": go_back,
    "add or remove": add_or_remove,
    "delete file": delete_file,
    "break file": break_file,
    "cut file": cut_file,
    "take a port": take_port,
    "take the port of a killed engine": take_port_of_a_killed_engine,
}
