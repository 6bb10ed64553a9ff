"""Words of the chat page that do not stand in a template: what its script says, and what to ask first."""

from __future__ import annotations

from typing import Any

from django.utils.formats import number_format
from django.utils.translation import gettext as _


def script_texts() -> dict[str, str]:
    """Texts for static/chat/*.js by name. ``{n}`` stands for a number the script knows."""
    return {
        "new_chat": _("New chat"),
        "today": _("Today"),
        "sending": _("Sending…"),
        "queued": _("Waiting for a free place: number {position}"),
        "queued_seconds": _("Waiting for a free place: number {position}, about {seconds} s"),
        "waiting": _("Waiting…"),
        "loading": _("Loading the model…"),
        "loading_seconds": _("Loading the model: about {seconds} s"),
        "loading_percent": _("Loading the model… {percent} %"),
        "prompt": _("Reading…"),
        "prompt_percent": _("Reading… {percent} %"),
        "stopping": _("Stopping…"),
        "stopped": _("Stopped"),
        "tokens": _("{n} tokens"),
        "speed": _("{n} tokens/s"),
        "first": _("first token after {n} s"),
        "copied": _("Copied"),
        "copy_code": _("Copy the code"),
        "reconnecting": _("Reconnecting…"),
        "logged_out": _("You are logged out. Copy your text if you need it, then reload the page to log in."),
        "offline": _("You are offline. Your text stays here."),
        "not_sent": _("Not sent, the connection is down. Your text is still here."),
        "busy": _("An answer is being written. Stop it, or wait for its end."),
        "no_model": _("No model is running yet."),
        "failed": _("That did not work."),
        "load_failed": _("Could not be loaded. Check the connection and try again."),
    }


def suggestions() -> list[dict[str, str]]:
    return [
        {
            "title": _("Explain"),
            "hint": _("in simple words"),
            "prompt": _("Explain in simple words how a rainbow comes about."),
        },
        {
            "title": _("Write a message"),
            "hint": _("to a colleague"),
            "prompt": _("Write a short, friendly message to a colleague who helped me today."),
        },
        {
            "title": _("Help with code"),
            "hint": _("with an example"),
            "prompt": _("Write a Python function that counts the words of a text, and show how to use it."),
        },
        {
            "title": _("Find ideas"),
            "hint": _("for the weekend"),
            "prompt": _("Give me five ideas for a rainy weekend at home."),
        },
    ]


def _tenths(value: float) -> str:
    return number_format(round(value, 1), 1)  # number_format alone cuts off


def answer_facts(stats: dict[str, Any] | None, model_name: str, state: str) -> str:
    """The line under an answer: how long, how fast, by which model. static/chat/answer.js writes the same line when one ends."""
    usage = (stats or {}).get("usage") or {}
    timings = (stats or {}).get("timings") or {}
    facts: list[str] = []
    if state == "stopped":
        facts.append(_("Stopped"))
    if tokens := usage.get("completion_tokens"):
        facts.append(_("{n} tokens").format(n=number_format(tokens, use_l10n=True, force_grouping=True)))
    if speed := timings.get("tokens_per_second"):
        facts.append(_("{n} tokens/s").format(n=_tenths(speed)))
    if (first := timings.get("first_token_ms")) is not None:
        facts.append(_("first token after {n} s").format(n=_tenths(first / 1000)))
    answered_by = (stats or {}).get("model") or model_name
    if answered_by and state in ("done", "stopped"):
        facts.append(answered_by)
    return " · ".join(facts)
