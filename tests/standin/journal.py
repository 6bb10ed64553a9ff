"""What the stand-in really read and delivered, in a file that outlives it: the independent truth about what requests cost.

Requests are told apart by a mark that whoever asks writes into the prompt: ``[mark:NAME]``. Requests without one are left
out. Each line is written before what it tells happens, so that a process killed at any moment has delivered no more than stands
here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid

MARK = re.compile(r"\[mark:([\w.-]+)\]")


class Attempt:
    """One request as this process saw it. ``prompt`` tokens were read, ``answer`` tokens delivered; ``made`` counts tokens of
    an answer that is delivered as a whole and never was."""

    def __init__(self, descriptor: int, mark: str) -> None:
        self.descriptor, self.mark, self.id = descriptor, mark, uuid.uuid4().hex

    def note(self, **facts: object) -> None:
        line = json.dumps({"mark": self.mark, "attempt": self.id, **facts}, separators=(",", ":")) + "\n"
        os.write(self.descriptor, line.encode())


class Silent(Attempt):
    def __init__(self) -> None:
        super().__init__(-1, "")

    def note(self, **facts: object) -> None:
        pass


class Journal:
    def __init__(self) -> None:
        self._path, self._descriptor = "", -1

    def attempt(self, path: str | None, body: bytes) -> Attempt:
        found = MARK.search(body.decode("utf-8", "replace")) if path else None
        if found is None or path is None:
            return Silent()
        if path != self._path:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._path = path
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return Attempt(self._descriptor, found[1])
