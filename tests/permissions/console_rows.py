"""The console: path, the least role that reads it (GET), the least role that sends to it (POST).

Rows that the service alone writes can be added, changed and deleted by nobody. A dialog that only asks (GET) and one that
acts (POST) have the same row.
"""

from __future__ import annotations

from tests.permissions import ADMIN, ANYONE, NOBODY, OPERATOR

OBJECT = "<path:object_id>/"


def table(name: str, least: str, *, add: str = NOBODY, change: str = NOBODY, delete: str = NOBODY) -> list[Row]:
    """The pages Django gives every table."""
    start = f"admin/{name}/"
    return [
        (start, least, least),
        (f"{start}add/", add, add),
        (f"{start}{OBJECT}", OPERATOR, OPERATOR),  # leads to the row's page, which looks for itself
        (f"{start}{OBJECT}change/", least, change),
        (f"{start}{OBJECT}delete/", delete, delete),
        (f"{start}{OBJECT}history/", least, least),
    ]


def actions(name: str, least: str, *names: str) -> list[Row]:
    return [(f"admin/{name}/{OBJECT}{action}/", least, least) for action in names]


Row = tuple[str, str, str]
BALANCE = ("top_up", "correct", "unlimited_or_not")

CONSOLE_ROWS: list[Row] = [
    ("admin/", OPERATOR, OPERATOR),
    ("admin/live/", OPERATOR, OPERATOR),
    ("admin/usage/", OPERATOR, OPERATOR),
    ("admin/search/", OPERATOR, OPERATOR),
    ("admin/autocomplete/", NOBODY, NOBODY),  # no page of ours uses it
    ("admin/jsi18n/", OPERATOR, NOBODY),
    ("admin/login/", ANYONE, ANYONE),  # refuses users who are logged in, instead of sending them round in circles
    ("admin/logout/", NOBODY, ANYONE),
    ("admin/password_change/", ANYONE, ANYONE),  # leads to the page of one's own password
    ("admin/password_change/done/", OPERATOR, NOBODY),
    ("admin/r/<path:content_type_id>/<path:object_id>/", OPERATOR, OPERATOR),
    ("admin/^(?P<app_label>accounts|cluster|models_app)/$", OPERATOR, OPERATOR),
    ("admin/(?P<url>.*)$", OPERATOR, OPERATOR),  # what is not there
    # -- people
    *table("accounts/user", ADMIN, add=ADMIN, change=ADMIN),
    *actions(
        "accounts/user",
        ADMIN,
        *BALANCE,
        "set_allowance",
        "approve",
        "refuse",
        "block",
        "unblock",
        "reset_second_factor",
    ),
    ("admin/accounts/user/<id>/password/", ADMIN, ADMIN),
    ("admin/accounts/user/credits/", ADMIN, ADMIN),
    ("admin/accounts/user/credits/list.csv", ADMIN, ADMIN),
    *table("accounts/group", ADMIN, add=ADMIN, change=ADMIN, delete=ADMIN),
    *actions("accounts/group", ADMIN, *BALANCE),
    *table("accounts/invite", ADMIN, add=ADMIN),
    *actions("accounts/invite", ADMIN, "revoke"),
    *table("accounts/apikey", ADMIN, add=ADMIN),
    *actions("accounts/apikey", ADMIN, "change_rules", "revoke", "rotate"),
    # -- money
    *table("accounts/wallet", ADMIN),
    *actions("accounts/wallet", ADMIN, *BALANCE, "set_allowance"),
    *table("accounts/ledgerentry", ADMIN),
    ("admin/accounts/ledgerentry/ledger.csv", ADMIN, ADMIN),
    *table("accounts/redeembatch", ADMIN, add=ADMIN),
    *actions("accounts/redeembatch", ADMIN, "revoke"),
    ("admin/accounts/redeembatch/<int:pk>/codes.csv", NOBODY, ADMIN),
    *table("accounts/redeemcode", ADMIN),
    *table("accounts/modelpolicy", ADMIN, change=ADMIN),  # leads to where it is set
    ("admin/accounts/modelpolicy/set/", ADMIN, ADMIN),
    # -- what happened
    *table("accounts/usagerecord", OPERATOR),
    *table("accounts/auditentry", ADMIN),
    ("admin/accounts/auditentry/csv/", ADMIN, ADMIN),
    # -- the service
    *table("models_app/modelconfig", OPERATOR, add=OPERATOR, change=OPERATOR, delete=OPERATOR),
    *actions("models_app/modelconfig", OPERATOR, "start", "stop", "restart", "go_back", "tune", "stop_tuning"),
    ("admin/models_app/modelconfig/live/", OPERATOR, OPERATOR),
    ("admin/models_app/modelconfig/<int:pk>/live/", OPERATOR, OPERATOR),
    ("admin/models_app/modelconfig/add/live/", OPERATOR, OPERATOR),
    ("admin/models_app/modelconfig/add/fits/", OPERATOR, OPERATOR),
    ("admin/models_app/modelconfig/add/settings/", OPERATOR, OPERATOR),
    ("admin/models_app/modelconfig/add/start/", OPERATOR, OPERATOR),
    ("admin/models_app/modelconfig/add/start/live/", OPERATOR, OPERATOR),
    ("admin/models_app/modelconfig/next/", NOBODY, OPERATOR),
    ("admin/models_app/modelconfig/config/", OPERATOR, OPERATOR),
    ("admin/models_app/modelconfig/config/export/", OPERATOR, OPERATOR),
    *table("models_app/replica", OPERATOR),
    *table("cluster/node", OPERATOR),
    *actions("cluster/node", OPERATOR, "drain", "resume"),
]
