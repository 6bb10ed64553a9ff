from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from llmplatform.lib import audit, model_names


class ModelsConfig(AppConfig):
    name = "models_app"
    verbose_name = _("Models")

    def ready(self) -> None:
        from models_app import figures, selectors  # tables can be imported only now

        figures.register()
        audit.register_type("model", self.get_model("ModelConfig"))
        model_names.register(selectors.names, selectors.aliases)
