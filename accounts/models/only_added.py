"""Tables whose rows are only ever added: the ledger and the audit log. The code of this service cannot change or delete one.

Whoever can write to the database itself can: docs/security.md.
"""

from __future__ import annotations

from typing import Any

from django.db import models


class Rows(models.QuerySet[Any]):
    """Refuses what would change or take away a row, of many as of one."""

    def update(self, **_fields: Any) -> int:
        raise TypeError(f"{self.model.__name__}: rows are never changed")

    def bulk_update(self, *_args: Any, **_kwargs: Any) -> int:
        raise TypeError(f"{self.model.__name__}: rows are never changed")

    def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if kwargs.get("update_conflicts") or kwargs.get("unique_fields"):
            raise TypeError(f"{self.model.__name__}: rows are never changed")
        return super().bulk_create(objs, *args, **kwargs)

    def delete(self) -> tuple[int, dict[str, int]]:
        raise TypeError(f"{self.model.__name__}: rows are never deleted")

    def _raw_delete(self, using: str | None) -> int:
        raise TypeError(f"{self.model.__name__}: rows are never deleted")


class OnlyAdded(models.Model):
    objects = Rows.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None:
            raise TypeError(f"{type(self).__name__}: a row is never changed")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TypeError(f"{type(self).__name__}: a row is never deleted")
