"""Unfold's settings: names, colours, and the sidebar."""

from __future__ import annotations

from typing import Any

from django.templatetags.static import static
from django.urls import reverse, reverse_lazy
from django.utils.translation import gettext_lazy as _

OPERATORS = "llmplatform.lib.console.admin.is_operator"
ADMINISTRATORS = "llmplatform.lib.console.admin.is_administrator"


def _file(path: str) -> Any:
    """Looked up when a page is made: the hashed names are not known while settings are read."""
    return lambda _request: static(path)


def _item(title: Any, icon: str, link: str, permission: str = OPERATORS) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": reverse_lazy(link), "permission": permission}


NAVIGATION: list[dict[str, Any]] = [
    {"items": [_item(_("Overview"), "dashboard", "admin:index")]},
    {
        "title": _("Service"),
        "items": [
            {
                **_item(_("Models"), "deployed_code", "admin:models_app_modelconfig_changelist"),
                "active": "llmplatform.lib.console.admin.is_among_models",
            },
            _item(_("Add a model"), "add_circle", "admin:models_app_modelconfig_add"),
            _item(_("Replicas"), "memory", "admin:models_app_replica_changelist"),
            _item(_("Machines"), "dns", "admin:cluster_node_changelist"),
        ],
    },
    {
        "title": _("People"),
        "items": [
            _item(_("Users"), "group", "admin:accounts_user_changelist", ADMINISTRATORS),
            _item(_("Groups"), "groups", "admin:accounts_group_changelist", ADMINISTRATORS),
            _item(_("API keys"), "key", "admin:accounts_apikey_changelist", ADMINISTRATORS),
            _item(_("Invites"), "person_add", "admin:accounts_invite_changelist", ADMINISTRATORS),
            _item(_("Audit"), "policy", "admin:accounts_auditentry_changelist", ADMINISTRATORS),
        ],
    },
    {
        "title": _("Money"),
        "items": [
            _item(_("Balances"), "account_balance_wallet", "admin:accounts_wallet_changelist", ADMINISTRATORS),
            _item(_("Ledger"), "receipt_long", "admin:accounts_ledgerentry_changelist", ADMINISTRATORS),
            _item(_("Redeem codes"), "redeem", "admin:accounts_redeembatch_changelist", ADMINISTRATORS),
            _item(_("Prices and limits"), "sell", "admin:accounts_modelpolicy_changelist", ADMINISTRATORS),
        ],
    },
    {
        "title": _("Usage"),
        "items": [
            _item(_("Usage report"), "bar_chart", "console_usage_report"),
            _item(_("Requests"), "list_alt", "admin:accounts_usagerecord_changelist"),
        ],
    },
    {
        "title": _("Elsewhere"),
        "items": [
            _item(_("Chat"), "chat", "chat:home"),
            _item(_("API documentation"), "api", "docs"),
        ],
    },
]

# The blue of the service's other pages (#2f55d4 is step 600).
PRIMARY = {
    "50": "oklch(97% .014 266)",
    "100": "oklch(94% .032 266)",
    "200": "oklch(88.5% .062 266)",
    "300": "oklch(81% .1 266)",
    "400": "oklch(71% .145 266)",
    "500": "oklch(60% .185 266)",
    "600": "oklch(49.5% .197 266)",
    "700": "oklch(44% .18 266)",
    "800": "oklch(38% .15 266)",
    "900": "oklch(33% .118 266)",
    "950": "oklch(25% .085 266)",
}

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "LLM Platform",
    "SITE_HEADER": "LLM Platform",
    "SITE_URL": reverse_lazy("chat:home"),
    "SITE_ICON": _file("site/favicon.svg"),
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": _file("site/favicon.svg")}],
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_LANGUAGES": True,
    "LANGUAGES": {"action": reverse_lazy("language")},
    "SHOW_BACK_BUTTON": False,
    "STYLES": [_file("console/console.css"), _file("console/pages.css")],
    "SCRIPTS": [_file("console/theme.js"), _file("console/accessible.js")],
    "COLORS": {"primary": PRIMARY},
    "DASHBOARD_CALLBACK": "llmplatform.console.dashboard.dashboard",
    "ACCOUNT": {"navigation": [{"title": _("Change password"), "link": lambda _request: reverse("password")}]},
    "SIDEBAR": {"show_search": False, "show_all_applications": False, "navigation": NAVIGATION},
}
