"""Why a replica does not run, as a code with parameters, and the sentence each reader sees in their language."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

GIB = 1024**3
TEXTS = {
    "file_missing": _(
        "The file %(file)s is not in %(folder)s. Put it there, or correct modelFile in model_config.json."
    ),
    "file_unreadable": _("The file %(file)s cannot be read: %(error)s."),
    "path_unsafe": _(
        "%(file)s lies outside of the models folder. Move it into models/, or point MODELS_PATH at its folder."
    ),
    "gguf_not_one": _("%(file)s is not a GGUF file. Download the model in GGUF format."),
    "gguf_version": _("%(file)s has GGUF version %(version)s; versions 2 and 3 are understood. Download a newer file."),
    "gguf_cut_short": _(
        "%(file)s is cut short: %(size)s of %(needed)s bytes. Download it again; the download did not finish."
    ),
    "gguf_damaged": _("%(file)s is damaged: %(what)s at byte %(at)s makes no sense. Download it again."),
    "gguf_part_missing": _("The part %(part)s of the model is missing. Put all parts of it into the same folder."),
    "not_enough_memory": _(
        "Not enough memory: %(needed)s GB are needed (%(weights)s GB model, %(kv)s GB for %(slots)s × %(context)s tokens of "
        "context), %(available)s GB are free. %(advice)s"
    ),
    "no_free_port": _("No port from %(first)s to %(last)s is free. Set LLAMA_CPP_PORT to the start of a free range."),
    "engine_missing": _(
        "The engine cannot be started: %(error)s. Install the requirements again, or set LLAMA_CPP_PATH to a llama-server."
    ),
    "exited": _("llama-server ended (%(how)s) before it was ready. Its log says: %(line)s"),
    "crashed": _("llama-server ended (%(how)s) while it was running. Its log says: %(line)s"),
    "killed": _("llama-server was killed (signal 9). When nobody did that, the system did because memory ran out."),
    "start_timeout": _("llama-server did not answer within %(seconds)s s of its start. Its log says: %(line)s"),
    "load_timeout": _("The model was not loaded within %(seconds)s s. Its log says: %(line)s"),
    "no_token": _("llama-server is up but generates nothing: %(error)s. Its log says: %(line)s"),
    "hung": _("llama-server did not answer for %(seconds)s s and was restarted. Its log says: %(line)s"),
    "log_folder": _("The folder %(folder)s cannot be written: %(error)s. Give this service the right to write there."),
    "database": _("The database could not be written; it is tried again. logs/llm-app.log says what is wrong."),
    "internal_error": _("Something went wrong in the supervisor; logs/llm-app.log says what."),
}
ADVICE_CONTEXT = _("Set contextLength to at most %(context)s, stop another model, or use a smaller one.")
ADVICE_SMALLER = _("Stop another model, or use a smaller one.")
NO_LOG = _("nothing")


def reason(code: str, **params: Any) -> dict[str, Any]:
    """What goes into ``Replica.reason``."""
    return {"code": code, "params": params}


def text(value: dict[str, Any] | None) -> str:
    """One sentence (with the decisive line of the log, where there is one) in the reader's language; "" for no reason."""
    if not value:
        return ""
    template = TEXTS.get(value.get("code", ""))
    if template is None:
        return str(value.get("code", ""))
    params = _shown(value.get("params") or {})
    try:
        return str(template) % params
    except (KeyError, TypeError, ValueError):  # a row written by another version
        return str(value["code"])


def log_tail(value: dict[str, Any] | None) -> list[str]:
    """The last lines of the llama-server's log that belong to a reason."""
    return list(((value or {}).get("params") or {}).get("log") or [])


def _shown(params: dict[str, Any]) -> dict[str, Any]:
    shown = {"line": str(NO_LOG), **params}
    shown["line"] = shown["line"] or str(NO_LOG)
    for key in ("needed", "weights", "kv", "available"):
        if "fitting_context" in params:
            shown[key] = f"{params[key] / GIB:.2f}"
    if "fitting_context" in params:
        fitting = params["fitting_context"]
        shown["advice"] = str(ADVICE_CONTEXT) % {"context": fitting} if fitting else str(ADVICE_SMALLER)
    if isinstance(params.get("exit"), int):
        shown["how"] = how_ended(params["exit"])
    return shown


def how_ended(code: int) -> str:
    if code < 0:
        return gettext("signal %(number)d") % {"number": -code}
    return gettext("exit code %(number)d") % {"number": code}
