#!/usr/bin/env python
"""Every command of the service; ``manage.py serve`` is the one that runs it."""

import os
import sys

# These begin without Django: serve stays small in memory, and they work before .env and the database exist.
LIGHT_COMMANDS = {"serve", "stop", "checkdeps", "buildllama"}


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")
    try:
        from llmplatform.lib.configuration import ConfigurationError
        from llmplatform.service import cli
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed: run ./start-llm-service.sh", file=sys.stderr)  # noqa: T201
        return 1

    try:
        if sys.argv[1:2] and sys.argv[1] in LIGHT_COMMANDS:
            return cli.main(sys.argv[1:])
        from django.core.management import execute_from_command_line

        try:
            execute_from_command_line(sys.argv)
        except BrokenPipeError:  # `… | head` has read enough; Python would complain once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
