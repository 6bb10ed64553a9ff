from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from llmplatform.lib import audit


class ClusterConfig(AppConfig):
    name = "cluster"
    verbose_name = _("Machines")

    def ready(self) -> None:
        from cluster import checks  # noqa: F401 - registers itself; settings are ready only now

        audit.register_type("node", self.get_model("Node"))
