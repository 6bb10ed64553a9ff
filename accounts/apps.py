from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = _("People and usage")

    def ready(self) -> None:
        from accounts import audit_log  # tables can be imported only now

        audit_log.register()
