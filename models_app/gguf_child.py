"""Reads one GGUF file in a process of its own: ``python -I -S models_app/gguf_child.py FILE [SIZE…]`` prints one line of JSON.

``{"facts": …}``, ``{"code": …, "params": …}`` of ``models_app.reasons``, or ``{"unreadable": …}``. Whatever a file does to the
reader, it does it here, within bounds on memory and time that the system keeps, and without our secrets.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models_app.gguf import GgufError, read_facts

MEMORY = 192 * 1024 * 1024  # bytes of address space, of which Python takes about 30 MiB
CPU_SECONDS = 10


def limit() -> None:
    """The system ends this process when it takes more. Windows knows no such limits: there its parent's clock is all."""
    try:
        import resource
    except ImportError:
        return
    bounds = {"RLIMIT_AS": MEMORY, "RLIMIT_CPU": CPU_SECONDS, "RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0}
    for name, most in bounds.items():
        if hasattr(resource, name):
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            try:
                resource.setrlimit(kind, (most, most))
            except (OSError, ValueError):  # macOS has the name RLIMIT_AS and refuses it
                continue


def answer(path: Path, sizes: list[int]) -> dict[str, Any]:
    """``sizes``: as ``read_facts`` has them."""
    try:
        return {"facts": asdict(read_facts(path, sizes))}
    except GgufError as error:
        return {"code": error.code, "params": error.params}
    except OSError as error:
        return {"unreadable": error.strerror or str(error)}
    except MemoryError:
        return {"code": "gguf_check_memory", "params": {}}


if __name__ == "__main__":
    limit()
    sys.stdout.write(json.dumps(answer(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]])) + "\n")
