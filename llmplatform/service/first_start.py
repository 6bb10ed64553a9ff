"""What must be there before the settings can be read: the folder's lock and ``.env`` with its secrets. Without Django."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from llmplatform.lib.configuration import ConfigurationError, read_env_file
from llmplatform.lib.early_messages import translate as _
from llmplatform.service.run_folder import replace_file

SECRETS = ("JWT_SECRET", "SECRET_KEY", "CLUSTER_TOKEN")


def ensure_secrets(path: Path, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Add the secrets that neither ``.env`` nor the environment holds, and close the file to other users.

    Everything else in the file stays as it is. Returns the names that were made.
    """
    known = {**read_env_file(path).values, **environ}
    missing = [name for name in SECRETS if not known.get(name, "").strip()]
    try:
        if missing:
            replace_file(path, _with_secrets(path, missing), 0o600)
        elif path.exists() and os.name == "posix" and path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise ConfigurationError(
            _("%(path)s cannot be written (%(reason)s). Give this user write access to it.")
            % {"path": path, "reason": error.strerror or error}
        ) from error
    return missing


def _with_secrets(path: Path, missing: list[str]) -> str:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text and not text.endswith("\n"):
        text += "\n"
    text += "\n" if text else ""
    text += "# " + _("Made at the first start. Keep them secret, and keep a copy with your backups.") + "\n"
    return text + "".join(f"{name}={secrets.token_urlsafe(32)}\n" for name in missing)
