from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ModelsConfig(AppConfig):
    name = "models_app"
    verbose_name = _("Models")

    def ready(self) -> None:
        from models_app import figures  # tables can be imported only now

        figures.register()
