"""Who may call what: a table of every route, and the callers it is tried with.

``routes`` finds the routes, ``rest_rows``, ``page_rows`` and ``console_rows`` say who may call each, ``world`` makes the callers
and the things they ask for. ``test_matrix.py`` and ``test_inference.py`` put them together.
"""

from __future__ import annotations

ANYONE, USER, OPERATOR, ADMIN = ROLES = ("anyone", "user", "operator", "admin")
NOBODY = "nobody"
MACHINE = "machine"  # holds CLUSTER_TOKEN, no person
OPERATOR_OR_MACHINE = "operator or machine"
NO_KEY = ""  # in the place of a scope: no key may do it
