"""Where the llama-servers of a model write their logs."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from models_app.process import log_path

NUMBER = re.compile(r"-(\d+)\.log\Z")


def files_of(model: str) -> dict[int, Path]:
    """The logs there are, by replica number. The name is one the database knows, never a path somebody typed."""
    sample = log_path(model, 1)
    prefix = sample.name.removesuffix("-1.log")
    found: dict[int, Path] = {}
    for path in sample.parent.glob(f"{glob.escape(prefix)}-*.log"):
        # model "a" with "a-1.log" is not model "a-1" with "a-1-1.log"
        if (number := NUMBER.fullmatch(path.name.removeprefix(prefix))) is not None:
            found[int(number[1])] = path
    return dict(sorted(found.items()))


def expected(model: str, number: int | None) -> tuple[int, Path]:
    """The log that will be there once that replica starts."""
    wanted = 1 if number is None else number
    return wanted, log_path(model, wanted)
