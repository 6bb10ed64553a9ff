"""Runs a client's script and tells what became of each of its functions: ``python run.py NAME ADDRESS KEY DOCUMENT``.

The client is connected by the code that the document shows for it; a function asks by name for what that code has made, and
for ``address``, ``key`` and the ``code`` itself. Nothing but the standard library is imported here: other environments run it
too. The last line printed is JSON: for each function an empty text, or how it failed.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
import traceback
from pathlib import Path
from typing import Any

ADDRESS, KEY = "http://localhost:8080", "sk-…"  # as the document has them
HERE = ("127.0.0.1", "::1", "localhost", None)


def block(document: Path, heading: str) -> tuple[str, str]:
    """The language and the text of the first piece of code below a heading."""
    section = document.read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.search(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, f"no code below {heading}"
    return found[1], found[2]


class Elsewhere:
    """Refuses whatever wants to reach another machine, and remembers it: some libraries try, and go on without."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            host = arguments[1][0]
        elif event == "socket.getaddrinfo":
            host = arguments[0]
        else:
            return
        if isinstance(host, bytes):
            host = host.decode()
        if host not in HERE:
            self.tried.append(f"{event} {host}")
            raise ConnectionRefusedError(f"this test reaches no other machine: {host}")


def main(name: str, address: str, key: str, document: Path) -> dict[str, str]:
    elsewhere = Elsewhere()
    sys.addaudithook(elsewhere)
    script = importlib.import_module(name)
    language, code = block(document, script.HEADING)
    code = code.replace(ADDRESS, address).replace(KEY, key)
    made: dict[str, Any] = {"address": address, "key": key, "code": code}
    if language == "python":
        exec(compile(code, str(document), "exec"), made)
    results = {title: _failure(function, made) for title, function in inspect.getmembers(script, inspect.isfunction)
               if function.__module__ == name and not title.startswith("_")}  # fmt: skip
    return results | {"no_other_machine": "\n".join(elsewhere.tried)}


def _failure(function: Any, made: dict[str, Any]) -> str:
    try:
        function(**{asked: made[asked] for asked in inspect.signature(function).parameters})
    except Exception:  # noqa: BLE001  # whatever it is, it is told, and the next function has its turn
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print("\n" + json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))))
