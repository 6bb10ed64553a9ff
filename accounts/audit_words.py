"""The audit log in words: actions, kinds of objects, who acted, fields and their values."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import Wallet
from llmplatform.lib import audit
from llmplatform.lib.console import formats

Text = str | Promise


ACTIONS: dict[str, Text] = {
    "user.login": gettext_lazy("logged in"),
    "user.login_failed": gettext_lazy("login failed"),
    "user.password": gettext_lazy("password changed"),
    "user.password_refused": gettext_lazy("password change refused"),
    "user.password_reset": gettext_lazy("password reset by link"),
    "user.reset_link": gettext_lazy("link for a new password made"),
    "user.second_factor_on": gettext_lazy("second factor turned on"),
    "user.second_factor_off": gettext_lazy("second factor removed"),
    "user.recovery_codes": gettext_lazy("new recovery codes made"),
    "user.recovery_code_used": gettext_lazy("recovery code used"),
    "user.sso_connect": gettext_lazy("connected to single sign-on"),
    "user.sso_disconnect": gettext_lazy("disconnected from single sign-on"),
    "user.proof_refused": gettext_lazy("change of the ways in refused"),
    "user.register": gettext_lazy("registered"),
    "user.create": gettext_lazy("user added"),
    "user.update": gettext_lazy("user changed"),
    "user.approve": gettext_lazy("user approved"),
    "user.refuse": gettext_lazy("user refused"),
    "user.block": gettext_lazy("user blocked"),
    "user.unblock": gettext_lazy("user unblocked"),
    "user.role": gettext_lazy("role changed"),
    "group.create": gettext_lazy("group added"),
    "group.update": gettext_lazy("group changed"),
    "group.delete": gettext_lazy("group deleted"),
    "invite.create": gettext_lazy("invite made"),
    "invite.revoke": gettext_lazy("invite revoked"),
    "key.create": gettext_lazy("key made"),
    "key.update": gettext_lazy("key changed"),
    "key.rotate": gettext_lazy("key rotated"),
    "key.revoke": gettext_lazy("key revoked"),
    "balance.grant": gettext_lazy("credit granted"),
    "balance.topup": gettext_lazy("balance topped up"),
    "balance.adjust": gettext_lazy("balance corrected"),
    "balance.unlimited": gettext_lazy("limit of the balance changed"),
    "balance.allowance": gettext_lazy("allowance changed"),
    "balance.redeem": gettext_lazy("code redeemed"),
    "price.create": gettext_lazy("price set"),
    "price.update": gettext_lazy("price changed"),
    "price.delete": gettext_lazy("price deleted"),
    "code.create": gettext_lazy("codes made"),
    "code.revoke": gettext_lazy("codes revoked"),
    "model.create": gettext_lazy("model added"),
    "model.update": gettext_lazy("model changed"),
    "model.delete": gettext_lazy("model deleted"),
    "model.import": gettext_lazy("model taken from model_config.json"),
    "model.sync": gettext_lazy("model changed in model_config.json"),
    "model.start": gettext_lazy("model started"),
    "model.stop": gettext_lazy("model stopped"),
    "model.restart": gettext_lazy("model restarted"),
    "model.go_back": gettext_lazy("model taken back to its last version"),
    "download.create": gettext_lazy("download of a model asked for"),
    "download.cancel": gettext_lazy("download of a model cancelled"),
    "download.retry": gettext_lazy("download of a model tried again"),
    "download.name": gettext_lazy("model of a download named"),
    "download.upload": gettext_lazy("upload of a model begun"),
    "model.tune": gettext_lazy("tuning of a model started"),
    "model.tune_stop": gettext_lazy("tuning of a model stopped"),
    "node.join": gettext_lazy("machine joined"),
    "node.drain": gettext_lazy("machine drained"),
    "node.resume": gettext_lazy("machine resumed"),
    "node.remove": gettext_lazy("machine removed"),
    "settings.update": gettext_lazy("settings changed"),
}
TYPES: dict[str, Text] = {
    "user": gettext_lazy("user"),
    "group": gettext_lazy("group"),
    "invite": gettext_lazy("invite"),
    "key": gettext_lazy("API key"),
    "price": gettext_lazy("price and limits"),
    "code": gettext_lazy("batch of redeem codes"),
    "model": gettext_lazy("model"),
    "download": gettext_lazy("download"),
    "node": gettext_lazy("machine"),
    "settings": gettext_lazy("settings"),
}
REASONS: dict[str, Text] = {
    "credentials": gettext_lazy("wrong name or password"),
    "inactive": gettext_lazy("account not active"),
    "throttled": gettext_lazy("too many attempts"),
    "second_factor": gettext_lazy("wrong code of the second factor"),
    "single_sign_on": gettext_lazy("single sign-on proved nothing"),
}
ROLES: dict[str, Text] = {
    "admin": gettext_lazy("administrator"),
    "operator": gettext_lazy("operator"),
    "user": gettext_lazy("user"),
}
# Of what is no column of a table.
FIELDS: dict[str, Text] = {
    "role": gettext_lazy("role"),
    "amount": gettext_lazy("amount"),
    "replaced by": gettext_lazy("replaced by"),
    "note": gettext_lazy("note"),
    "invite": gettext_lazy("invite"),
    "reason": gettext_lazy("reason"),
    "attempts": gettext_lazy("attempts within the hour"),
    "others": gettext_lazy("more failed logins, not listed"),
    "password": gettext_lazy("password"),
    "second_factor": gettext_lazy("second factor"),
    "totp_secret": gettext_lazy("secret of the app"),
    "recovery_codes_left": gettext_lazy("recovery codes left"),
    "provider": gettext_lazy("single sign-on provider"),
    "codes_left": gettext_lazy("codes left"),
}
CREDITS = frozenset({"amount", "available", "budget", "allowance", "starting_balance"})
PRICES = frozenset({"prompt_price", "cached_price", "completion_price"})


class Change(NamedTuple):
    """``before`` is empty when there was nothing, as in all that is new."""

    field: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.field}: {self.before} → {self.after}" if self.before else f"{self.field}: {self.after}"


def action_text(action: str) -> str:
    return str(ACTIONS.get(action, action))


def type_text(target_type: str) -> str:
    return str(TYPES.get(target_type, target_type))


def actor_text(name: str) -> str:
    """Who it was: people by their name, programs by what they are."""
    kind, colon, rest = name.partition(":")
    match kind if colon else "":
        case "command":
            return _("command line (%(name)s)") % {"name": rest}
        case "service":
            return _("the service (%(name)s)") % {"name": rest}
        case "machine":
            return _("a machine (%(name)s)") % {"name": rest}
    return name or _("not logged in")


def changes(target_type: str, stored: dict[str, Any]) -> Iterator[Change]:
    """What a new object has of nothing comes last: a list shows the first few."""
    for name, change in sorted(stored.items(), key=lambda item: _is_nothing_new(item[1])):
        label = _field_label(target_type, name)
        if isinstance(change, list) and len(change) == 2:
            before, after = change
            shown = "" if before is None else _value_text(target_type, name, before)
            yield Change(label, shown, _value_text(target_type, name, after))
        else:
            yield Change(label, "", _("changed (secret)"))


def _is_nothing_new(change: Any) -> bool:
    return isinstance(change, list) and len(change) == 2 and change[0] is None and not change[1]


def _column(target_type: str, name: str) -> models.Field[Any, Any] | None:
    tables = [Wallet] if target_type == "user" else []  # a balance is one of the things that a user has
    for table in filter(None, [audit.model_of(target_type), *tables]):
        with contextlib.suppress(FieldDoesNotExist):
            found = table._meta.get_field(name)
            return found if isinstance(found, models.Field) else None
    return None


def _field_label(target_type: str, name: str) -> str:
    column = _column(target_type, name)
    return str(FIELDS.get(name) or (column.verbose_name if column else name))


def _value_text(target_type: str, name: str, value: Any) -> str:
    match value:
        case None | "" | []:
            return formats.NOTHING
        case bool():
            return _("yes") if value else _("no")
        case int() if name in CREDITS:
            return formats.credits(value)
        case int() if name in PRICES:
            return _("%(credits)s credits") % {"credits": formats.credits(value)}
        case int() if name == "port":
            return str(value)
        case int() | float():
            return formats.number(value, 0 if isinstance(value, int) else 2)
        case list():
            return ", ".join(
                inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False) for inner in value
            )
        case str() if name == "reason":
            return str(REASONS.get(value, value))
        case str() if name == "role" and value in ROLES:
            return str(ROLES[value])
        case str():
            return _time_text(value) or _choice_text(target_type, name, value)
    return json.dumps(value, ensure_ascii=False)


def _time_text(value: str) -> str:
    """Times are stored as ISO text; anything else gives nothing."""
    try:
        moment = datetime.fromisoformat(value) if "T" in value else None
    except ValueError:
        return ""
    return timezone.localtime(moment).strftime("%Y-%m-%d %H:%M") if moment and moment.tzinfo else ""


def _choice_text(target_type: str, name: str, value: str) -> str:
    column = _column(target_type, name)
    return str(dict(column.flatchoices).get(value, value)) if column else value
