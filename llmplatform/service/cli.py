"""``serve``, ``stop``, ``checkdeps`` and ``buildllama``: the commands that begin without Django."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from llmplatform.lib.configuration import ConfigurationError, home_dir
from llmplatform.lib.early_messages import terminal_language
from llmplatform.lib.early_messages import translate as _
from llmplatform.service import first_start, run_folder
from llmplatform.service.stop import stop
from llmplatform.service.terminal import complain


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="manage.py", allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help=_("run the service: web server, supervisor and models"))
    serve.add_argument("--background", action="store_true", help=_("return when the service is ready; it goes on"))
    serve.add_argument("--debug", action="store_true", help=_("write detailed logs, and show them in the terminal"))
    # Given by --background to the process it starts: everything is prepared, and the caller shows the result.
    serve.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)
    commands.add_parser("stop", help=_("stop the service that runs in this folder"))
    commands.add_parser("checkdeps", help=_("check this machine and say what to do"))
    build = commands.add_parser(
        "buildllama", help=_("build llama.cpp for this processor, and use it when it is faster")
    )
    blas = build.add_mutually_exclusive_group()
    blas.add_argument(
        "--openblas", dest="openblas", action="store_const", const="on", default="auto", help=_("with OpenBLAS")
    )
    blas.add_argument("--no-openblas", dest="openblas", action="store_const", const="off", help=_("without OpenBLAS"))
    build.add_argument("--force", action="store_true", help=_("use it even when it is slower"))
    return top


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    try:
        if options.command == "stop":
            return stop(home_dir())
        if options.command == "checkdeps":
            return _check()
        if options.command == "buildllama":
            return _build(options)
        return _serve(options)
    except (ConfigurationError, run_folder.AlreadyServing) as error:
        complain(str(error))
        return 1


def _check() -> int:
    # Imported here and below, not above: importing the settings reads .env, and a wrong one is an answer, not a crash.
    from llmplatform.service import preflight

    verdicts = preflight.all_checks()
    preflight.show(verdicts)
    return 1 if any(verdict.level == "problem" for verdict in verdicts) else 0


def _build(options: argparse.Namespace) -> int:
    os.umask(0o027)
    first_start.ensure_secrets(home_dir() / ".env")
    import django
    from django.utils import translation

    django.setup()
    from llmplatform.service.llama_build import run

    with translation.override(terminal_language()):
        return run.build(run.Options(options.openblas, options.force))


def _serve(options: argparse.Namespace) -> int:
    os.umask(0o027)  # conversations, logs and keys are not for everybody on this machine
    if options.debug:
        os.environ["LOG_LEVEL"] = "DEBUG"
        os.environ.setdefault("LLM_CONSOLE_LEVEL", "DEBUG")
    with run_folder.take_lock(home_dir()) as lock:
        made = first_start.ensure_secrets(home_dir() / ".env")
        from llmplatform.service import serve

        return serve.run(serve.Options(options.background, options.detached, options.debug, bool(made)), lock)
