"""The application does not serve with the secrets that stand in its source."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmplatform.lib.configuration import PROJECT_DIR

SECRETS = {"JWT_SECRET": "j" * 40, "SECRET_KEY": "s" * 40}


@pytest.mark.parametrize("missing", [["JWT_SECRET"], ["SECRET_KEY"], []])
def test_it_is_made_only_with_secrets(tmp_path: Path, missing: list[str]) -> None:
    given = {name: value for name, value in SECRETS.items() if name not in missing}
    environ = {name: value for name, value in os.environ.items() if name not in SECRETS}
    done = subprocess.run(
        [sys.executable, "-c", "import llmplatform.asgi"],
        cwd=PROJECT_DIR,
        env={**environ, **given, "LLM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == (not missing), done.stderr
    assert ("holds no secrets yet" in done.stderr) == bool(missing)
