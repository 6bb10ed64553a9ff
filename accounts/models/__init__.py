"""People, what they have, and what they used.

Amounts are whole micro-credits (1 credit = 1,000,000). Models are named, not referenced, so that history outlives a model
and this app depends on no other.
"""

from __future__ import annotations

from accounts.models.audit import AuditEntry
from accounts.models.entering import RecoveryCode, SecondFactor, SingleSignOnIdentity
from accounts.models.keys import ApiKey, Priority, Scope
from accounts.models.money import (
    CreditLot,
    Hold,
    LedgerEntry,
    ModelPolicy,
    RedeemBatch,
    RedeemCode,
    Wallet,
)
from accounts.models.people import Group, Invite, Limits, Period, User
from accounts.models.usage import UsageHour, UsageRecord, new_request_id

__all__ = [
    "ApiKey",
    "AuditEntry",
    "CreditLot",
    "Group",
    "Hold",
    "Invite",
    "LedgerEntry",
    "Limits",
    "ModelPolicy",
    "Period",
    "Priority",
    "RecoveryCode",
    "RedeemBatch",
    "RedeemCode",
    "Scope",
    "SecondFactor",
    "SingleSignOnIdentity",
    "UsageHour",
    "UsageRecord",
    "User",
    "Wallet",
    "new_request_id",
]
