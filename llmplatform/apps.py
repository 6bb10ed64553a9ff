from django.apps import AppConfig


class PlatformConfig(AppConfig):
    name = "llmplatform"
    verbose_name = "LLM Platform"
