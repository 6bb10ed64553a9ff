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
    "gguf_big_endian": _(
        "%(file)s was made for big-endian machines, which the engine cannot read here. Download the usual (little-endian) file."
    ),
    "gguf_twice": _("%(file)s is damaged: %(name)s is in it twice (byte %(at)s). Download it again."),
    "gguf_old_type": _(
        "%(file)s holds numbers in a format that is no longer supported (type %(type)s). Download a newer file."
    ),
    "gguf_tensor_place": _(
        "%(file)s is damaged: the tensor %(tensor)s begins at byte %(at)s, where none may begin. Download it again."
    ),
    "gguf_tensor_overlap": _(
        "%(file)s is damaged: the tensor %(tensor)s at byte %(at)s lies on another one. Download it again."
    ),
    "gguf_part_name": _(
        "%(file)s is one of %(count)s parts, but its name does not end as theirs. Give all parts the names they came with."
    ),
    "gguf_not_first_part": _("%(file)s is not the first part of its model. Set modelFile to %(part)s."),
    "gguf_part_strange": _("The part %(part)s does not belong to this model. Download all parts of it again."),
    "gguf_check_time": _(
        "%(file)s was not read within %(seconds)s s, so it was rejected. Is its disk slow, or the file broken?"
    ),
    "gguf_check_memory": _("%(file)s takes too much memory to read, so it was rejected. Download it again."),
    "gguf_check_ended": _("%(file)s was rejected: reading it made the check end (%(how)s). Download it again."),
    "gguf_wrong_kind": _("%(file)s is %(kind)s; in this place %(wanted)s is needed."),
    "gguf_part_missing": _("The part %(part)s of the model is missing. Put all parts of it into the same folder."),
    "not_enough_memory": _(
        "Not enough memory: %(needed)s GB are needed (%(weights)s GB model, %(kv)s GB for %(slots)s × %(context)s tokens of "
        "context), %(available)s GB are free, of which %(reserve)s GB are kept for everything else. %(advice)s"
    ),
    "made_room": _(
        "Memory ran out (%(available)s GB free, at least %(least)s GB should be), and nobody used this replica: it made room, "
        "and starts again when there is enough. Use a smaller model or context, or fewer replicas."
    ),
    "no_free_port": _("No port from %(first)s to %(last)s is free. Set LLAMA_CPP_PORT to the start of a free range."),
    "engine_missing": _(
        "The engine cannot be started: %(error)s. Install the requirements again, or set LLAMA_CPP_PATH to a llama-server."
    ),
    "exited": _("llama-server ended (%(how)s) before it was ready. Its log says: %(line)s"),
    "crashed": _("llama-server ended (%(how)s) while it was running. Its log says: %(line)s"),
    "over_bound": _(
        "llama-server wanted more memory than the %(bound)s GB it may ask for (planned: %(planned)s GB of its own), and ended. "
        "Use a smaller context or fewer slots; where the plan is wrong, raise ENGINE_MEMORY_BOUND. Its log says: %(line)s"
    ),
    "cores_missing": _(
        "The setting cores names %(cores)s, but this service may use %(there)s here. Correct cores, or empty it."
    ),
    "killed": _("llama-server was killed (signal 9). When nobody did that, the system did because memory ran out."),
    "start_timeout": _("llama-server did not answer within %(seconds)s s of its start. Its log says: %(line)s"),
    "load_timeout": _("The model was not loaded within %(seconds)s s. Its log says: %(line)s"),
    "no_token": _("llama-server is up but generates nothing: %(error)s. Its log says: %(line)s"),
    "stuck": _(
        "llama-server answered but did not work on its %(requests)s requests any more, and was restarted. Its log says: %(line)s"
    ),
    "hung": _("llama-server did not answer for %(seconds)s s and was restarted. Its log says: %(line)s"),
    "log_folder": _("The folder %(folder)s cannot be written: %(error)s. Give this service the right to write there."),
    "run_folder": _("The folder %(folder)s cannot be written: %(error)s. Give this service the right to write there."),
    "database": _("The database could not be written; it is tried again. logs/llm-app.log says what is wrong."),
    "tuning_stopped": _("It was stopped."),
    "tuning_killed": _("The process that measured was killed. Nothing was changed; start it again."),
    "tuning_model_gone": _("The model was removed meanwhile."),
    "internal_error": _("Something went wrong in the supervisor; logs/llm-app.log says what."),
}
# What a file can be, for gguf_wrong_kind.
KINDS = {
    "chat": _("a language model"),
    "embedding": _("an embedding model"),
    "rerank": _("a reranking model"),
    "model": _("a model"),
    "projector": _("a vision projector"),
    "adapter": _("a LoRA adapter"),
    "other": _("something else than a model"),
}
# What can be damaged, for gguf_damaged; ``models_app.gguf_reader`` names them.
PLACES = {
    "alignment": _("the alignment"),
    "length of an array": _("the length of a list"),
    "name of a key": _("the name of a key"),
    "name of a tensor": _("the name of a tensor"),
    "number of keys": _("the number of keys"),
    "number of strings": _("the number of words"),
    "number of tensors": _("the number of tensors"),
    "shape of a tensor": _("the shape of a tensor"),
    "string": _("the length of a text"),
    "type of a tensor": _("the type of a tensor"),
    "type of a value": _("the type of a value"),
    "type of an array": _("the type of a list"),
}
# Settings as model_config.json names them.
ADVICE = {"context_length": "contextLength", "slots": "slots", "cache_type": "cacheType"}
ADVICE_FITS = _("It would fit with %(settings)s. Or stop another model, or use a smaller one.")
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
    of_memory = {"nearest", "least", "bound"} & params.keys()
    for key in ("needed", "weights", "kv", "available", "reserve", "least", "bound", "planned"):
        if of_memory and key in params:
            shown[key] = f"{params[key] / GIB:.2f}"
    if "nearest" in params:
        shown["advice"] = advice(params["nearest"])
    for key in ("kind", "wanted"):
        if params.get(key) in KINDS:
            shown[key] = str(KINDS[params[key]])
    if params.get("what") in PLACES:
        shown["what"] = str(PLACES[params["what"]])
    if "exit" in params:
        shown["how"] = how_ended(params["exit"])
    return shown


def advice(nearest: dict[str, Any]) -> str:
    """What to change so that it fits; of ``memory.Change.as_dict``."""
    if not nearest:
        return str(ADVICE_SMALLER)
    settings = ", ".join(f"{ADVICE[name]} {value}" for name, value in nearest.items() if name in ADVICE)
    return str(ADVICE_FITS) % {"settings": settings}


def how_ended(code: int | None) -> str:
    if code is None:  # of an engine that was taken over
        return gettext("nobody saw how")
    if code < 0:
        return gettext("signal %(number)d") % {"number": -code}
    return gettext("exit code %(number)d") % {"number": code}
