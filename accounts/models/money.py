"""What accounts have: wallets, the ledger, prices, codes. Written by ``accounts.quota`` and ``accounts.credits`` only."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from accounts.models.keys import ApiKey
from accounts.models.only_added import OnlyAdded
from accounts.models.people import Limits, Period, User


class Wallet(models.Model):
    """What an account can spend. ``available`` and ``held`` always equal the sums over its ledger entries."""

    user = models.OneToOneField(User, on_delete=models.PROTECT, related_name="wallet", verbose_name=_("user"))
    available = models.BigIntegerField(_("available"), default=0)
    held = models.BigIntegerField(_("held"), default=0)
    unlimited = models.BooleanField(_("unlimited"), default=False)
    # All that was ever charged, and how much of it is told to the lots so far: see CreditLot.
    spent = models.BigIntegerField(_("spent"), default=0)
    spent_at_lots = models.BigIntegerField(default=0)
    # No lot with something left ends before this; none: there is no such lot. So a hold sees without a query of its own whether
    # credit is over that no sweep has taken yet.
    lots_end = models.DateTimeField(null=True, editable=False)
    # Empty: the group's.
    allowance = models.BigIntegerField(_("allowance"), null=True, blank=True)
    allowance_period = models.CharField(_("allowance begins anew"), max_length=8, choices=Period, default=Period.MONTH)
    # When the next allowance is to be given; none: never.
    allowance_due = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("balance")
        verbose_name_plural = _("balances")
        indexes = [
            models.Index(
                fields=["allowance_due"], condition=Q(allowance_due__isnull=False), name="wallet_by_allowance_due"
            )
        ]
        constraints = [
            models.CheckConstraint(condition=Q(available__gte=0), name="wallet_available_not_negative"),
            models.CheckConstraint(condition=Q(held__gte=0), name="wallet_held_not_negative"),
            models.CheckConstraint(condition=Q(spent__gte=0), name="wallet_spent_not_negative"),
            models.CheckConstraint(
                condition=Q(allowance=None) | Q(allowance__gte=0), name="wallet_allowance_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user.get_username()}"


class LedgerEntry(OnlyAdded):
    """One change of a wallet, never altered or deleted. A request id has at most one entry of each kind.

    What is no request has an id of its own kind (``code-7``, ``allowance-3-month-2026-12-01``), so that it too happens once.
    """

    class Kind(models.TextChoices):
        GRANT = "grant", _("grant")
        TOPUP = "topup", _("top-up")
        REDEEM = "redeem", _("redeemed code")
        HOLD = "hold", _("hold")
        SETTLE = "settle", _("settlement")
        RELEASE = "release", _("release")
        ADJUST = "adjust", _("adjustment")
        EXPIRE = "expire", _("expiry")

    wallet = models.ForeignKey(
        Wallet, on_delete=models.PROTECT, related_name="entries", verbose_name=_("balance"), db_index=False
    )
    kind = models.CharField(_("kind"), max_length=16, choices=Kind)
    available_change = models.BigIntegerField(_("change of available"), default=0)
    held_change = models.BigIntegerField(_("change of held"), default=0)
    cost = models.BigIntegerField(
        _("cost"), default=0, help_text=_("what the request cost, for unlimited accounts too")
    )
    request_id = models.CharField(_("request"), max_length=64, blank=True, default="")
    model_name = models.CharField(_("model"), max_length=200, blank=True, default="")
    key = models.ForeignKey(
        ApiKey, null=True, on_delete=models.PROTECT, related_name="+", verbose_name=_("API key"), db_index=False
    )
    note = models.CharField(_("note"), max_length=200, blank=True, default="")
    created_at = models.DateTimeField(_("time"), auto_now_add=True, db_index=True)

    class Meta:
        verbose_name = _("ledger entry")
        verbose_name_plural = _("ledger")
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["wallet", "-created_at", "-id"], name="ledger_by_wallet_and_time"),
            # Of what is no request there is little, and a page shows it: without this it would read all the others to find it.
            # Three terms, not one with a list: SQLite sees that a query asks for the same only with these.
            models.Index(
                fields=["-id", "kind"],
                condition=~Q(kind="hold") & ~Q(kind="settle") & ~Q(kind="release"),
                name="ledger_given",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["request_id", "kind"],
                condition=~Q(request_id=""),
                name="ledger_once_per_request_and_kind",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.available_change:+d}"


class Hold(models.Model):
    """Money set aside for a request that is under way. The row goes when the request is settled or released.

    ``amount`` is taken from the wallet; 0 for an unlimited one whose key has a budget. ``budget_amount`` is taken from the
    budget of the key in the period that began at ``budget_started``.
    """

    request_id = models.CharField(max_length=64, unique=True)
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, related_name="holds")
    amount = models.BigIntegerField()
    key = models.ForeignKey(ApiKey, null=True, on_delete=models.PROTECT, related_name="holds", db_index=False)
    budget_amount = models.BigIntegerField(default=0)
    budget_started = models.DateTimeField(null=True)
    # Which process answers for the request: host:pid:start time. Holds of a process that is gone are released.
    owner = models.CharField(max_length=120)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.request_id} {self.amount}"


class CreditLot(models.Model):
    """Credit that expires. Spending draws on what expires soonest; ``unused`` is brought up to date only when one of the
    wallet's lots begins or ends, from what was spent since (``Wallet.spent``): a request writes nothing here."""

    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, related_name="lots", db_index=False)
    entry = models.OneToOneField(LedgerEntry, on_delete=models.PROTECT, related_name="lot")
    amount = models.BigIntegerField()
    unused = models.BigIntegerField()
    expires_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["expires_at"], condition=Q(unused__gt=0), name="lot_by_expiry"),
            models.Index(fields=["wallet", "expires_at"], condition=Q(unused__gt=0), name="lot_by_wallet"),
        ]
        constraints = [models.CheckConstraint(condition=Q(unused__gte=0), name="lot_unused_not_negative")]

    def __str__(self) -> str:
        return f"{self.unused} of {self.amount}"


class ModelPolicy(Limits):
    """What a model's tokens cost, and how much of it may be asked for. Without a row: TOKEN_RATE, no limits."""

    model_name = models.CharField(_("model"), max_length=200, unique=True)
    # Micro-credits for one token. Empty: TOKEN_RATE; a cached prompt token: like any other of the prompt.
    prompt_price = models.BigIntegerField(_("price of a prompt token"), null=True, blank=True)
    cached_price = models.BigIntegerField(_("price of a cached prompt token"), null=True, blank=True)
    completion_price = models.BigIntegerField(_("price of an answer token"), null=True, blank=True)

    class Meta:
        verbose_name = _("price and limits")
        verbose_name_plural = _("prices and limits")
        ordering = ["model_name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(**{name: None}) | Q(**{f"{name}__gte": 0}), name=f"policy_{name}_not_negative"
            )
            for name in ("prompt_price", "cached_price", "completion_price")
        ]

    def __str__(self) -> str:
        return self.model_name


class RedeemBatch(models.Model):
    """Codes that were made together and are worth the same."""

    name = models.CharField(_("name"), max_length=100)
    amount = models.BigIntegerField(_("amount"))
    count = models.PositiveIntegerField(_("number of codes"))
    expires_at = models.DateTimeField(_("codes expire"), null=True, blank=True)
    credit_days = models.PositiveIntegerField(
        _("days the credit lasts"), null=True, blank=True, help_text=_("empty: for ever")
    )
    revoked_at = models.DateTimeField(_("revoked"), null=True, editable=False)
    created_by = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+", editable=False, verbose_name=_("made by")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("batch of redeem codes")
        verbose_name_plural = _("redeem codes")
        ordering = ["-id"]
        constraints = [models.CheckConstraint(condition=Q(amount__gt=0), name="batch_amount_positive")]

    def __str__(self) -> str:
        return self.name


class RedeemCode(models.Model):
    """Worth the batch's amount, once. Only a keyed hash of it is kept."""

    batch = models.ForeignKey(
        RedeemBatch, on_delete=models.PROTECT, related_name="codes", verbose_name=_("batch"), db_index=False
    )
    hash = models.CharField(max_length=64, unique=True, editable=False)
    last4 = models.CharField(_("ends with"), max_length=4, editable=False)
    used_by = models.ForeignKey(
        User, null=True, on_delete=models.PROTECT, related_name="redeemed_codes", verbose_name=_("used by")
    )
    used_at = models.DateTimeField(_("used"), null=True)

    class Meta:
        verbose_name = _("redeem code")
        verbose_name_plural = _("redeem codes")
        # Counts how many of a batch are used without reading the codes.
        indexes = [models.Index(fields=["batch", "used_at"], name="code_by_batch_and_use")]

    def __str__(self) -> str:
        return f"…{self.last4}"
