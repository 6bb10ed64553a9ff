"""Console pages for people, what they have and what they used."""

from __future__ import annotations

from accounts.admin import audit, codes, groups, invites, keys, ledger, people, prices, usage, wallets

__all__ = ["audit", "codes", "groups", "invites", "keys", "ledger", "people", "prices", "usage", "wallets"]
