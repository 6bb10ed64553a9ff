from django.apps import AppConfig

from llmplatform.service.checks import register_checks


class PlatformConfig(AppConfig):
    name = "llmplatform"
    verbose_name = "LLM Platform"

    def ready(self) -> None:
        register_checks()
