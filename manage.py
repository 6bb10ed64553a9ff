#!/usr/bin/env python
"""Every command of the service; ``manage.py serve`` is the one that runs it."""

import os
import sys


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        return 1

    from llmplatform.lib.configuration import ConfigurationError

    try:
        execute_from_command_line(sys.argv)
    except ConfigurationError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
