"""Starting the system's Chromium the same way everywhere: no download, no traffic of its own."""

from __future__ import annotations

import shutil
from typing import Any

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def launch(playwright: Any) -> Any:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise RuntimeError("Chromium is missing: apt install chromium")
    return playwright.chromium.launch(executable_path=path, args=FLAGS)
