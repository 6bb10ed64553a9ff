"""Why a download does not go on: a code with parameters, and the sentence each reader sees in their language.

Problem             it failed, and asking again at once would not help
└── Passing         it may go better in a moment; ``wait`` says when, if the server said so
"""

from __future__ import annotations

from typing import Any

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext_lazy as _

from models_app import reasons

TEXTS = {
    "url_not_understood": _("“%(url)s” is not an address that can be fetched."),
    "url_not_https": _("%(host)s may be asked by https only. MODEL_HOSTS can allow more."),
    "url_with_user": _("An address with a user name or password in it is not fetched. Tokens stand in .env."),
    "host_not_allowed": _("Models are not fetched from %(host)s. To allow it, add it to MODEL_HOSTS in .env."),
    "host_unknown": _("The name %(host)s is not known. Is this machine connected to the network?"),
    "address_private": _("%(host)s leads to %(address)s, an address that is not public. It is not asked."),
    "too_many_redirects": _("%(host)s leads from one address to the next without end."),
    "unreachable": _("%(host)s could not be reached: %(error)s."),
    "no_hub": _("No model hub could be reached. Check the network, HF_ENDPOINT and MODEL_HUB."),
    "stalled": _("%(host)s sent nothing for %(seconds)s s."),
    "cut": _("%(host)s ended the connection after %(have)s of %(size)s bytes."),
    "server_error": _("%(host)s answered with the error %(status)s."),
    "busy": _("%(host)s has too much to do (%(status)s)."),
    "gated": _(
        "%(what)s does not exist, or needs permission (%(status)s). Accept its licence on the hub, "
        "and put your token as %(setting)s into .env."
    ),
    "not_found": _("%(what)s does not exist on %(host)s."),
    "refused": _("%(host)s refused (%(status)s)."),
    "bad_answer": _("%(host)s did not answer as a model hub does."),
    "not_a_model": _("%(host)s sent a web page or another file, and no GGUF model."),
    "wrong_length": _("%(host)s wanted to send %(offered)s bytes, and the file should have %(size)s."),
    "wrong_hash": _("%(file)s is not the file it should be (wrong SHA-256). It was deleted."),
    "disk_full": _(
        "Not enough room on the disk: %(needed)s are needed, and %(free)s are free. Make room and try again."
    ),
    "folder": _("The models folder cannot be written: %(error)s."),
    "rejected": _("%(file)s was rejected and deleted: %(why)s"),
    "file_exists": _("There is already another file %(file)s in the models folder. Move it away first."),
    "no_such_file": _("%(repository)s has no GGUF file “%(wanted)s”. There are: %(choices)s"),
    "which_file": _("%(repository)s has several files; say which: %(choices)s"),
    "no_gguf": _("%(repository)s has no GGUF file. Look for a repository whose name ends in GGUF."),
    "part_missing": _("%(repository)s does not have all parts of %(file)s."),
    "upload_gone": _("What was uploaded is not there any more. Upload it again."),
    "name_taken": _("The file is there. A model entry was not made: there is already a model “%(name)s”."),
    "name_refused": _("The file is there. A model entry was not made: %(error)s"),
    "shared": _("Another download brings this very file."),
    "again": _("%(why)s It is tried again in %(seconds)s s."),
    "internal_error": _("Something went wrong; logs/llm-app.log says what."),
}
SIZES = ("needed", "free")


class Problem(Exception):
    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(code, params)
        self.code, self.params = code, params

    @property
    def reason(self) -> dict[str, Any]:
        """What goes into ``Download.reason``."""
        return {"code": self.code, "params": self.params}


class Passing(Problem):
    wait: float | None = None

    def in_a_moment(self, seconds: float) -> dict[str, Any]:
        return {"code": "again", "params": {"reason": self.reason, "seconds": max(1, round(seconds))}}


def text(reason: dict[str, Any] | None) -> str:
    """One sentence in the reader's language; "" for no reason."""
    if not reason:
        return ""
    code, params = str(reason.get("code", "")), dict(reason.get("params") or {})
    template = TEXTS.get(code)
    if template is None:
        return code
    if "reason" in params:  # of a problem within this one
        params["why"] = text(params["reason"])
    if "gguf" in params:
        params["why"] = reasons.text(params["gguf"])
    shown = {name: filesizeformat(value) if name in SIZES else value for name, value in params.items()}
    try:
        return str(template) % shown
    except (KeyError, TypeError, ValueError):  # a row written by another version
        return code
