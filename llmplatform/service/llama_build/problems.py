"""BuildFailed ends a build. Its message is for the administrator: what is wrong and what to do."""

from __future__ import annotations


class BuildFailed(Exception):
    """``log`` is what a tool said; its end is shown."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log
