"""Django settings. Every value an administrator may set comes from the environment or ``.env`` (see .env.example)."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.utils.translation import gettext_lazy as _

from llmplatform.lib import database_url, host_names, json_logging
from llmplatform.lib.configuration import Settings, home_dir, read_env_file
from llmplatform.lib.console.configuration import UNFOLD  # noqa: F401 - read by django-unfold

BASE_DIR = Path(__file__).resolve().parent.parent
HOME_DIR = home_dir()
ENV_FILE = HOME_DIR / ".env"
env = Settings(read_env_file(ENV_FILE))


def _home_path(name: str, default: str) -> Path:
    return HOME_DIR / Path(env.text(name, default)).expanduser()


# -- where things are ----------------------------------------------------------------------------------------------
SERVER_HOST = env.text("SERVER_HOST", "0.0.0.0")  # noqa: S104 - other machines are meant to call; login is always on
SERVER_PORT = env.integer("SERVER_PORT", 8080, 1, 65535)
LLAMA_CPP_PORT = env.integer("LLAMA_CPP_PORT", 8081, 1, 65535)
LLAMA_CPP_PATH = env.text("LLAMA_CPP_PATH")
MODELS_PATH = _home_path("MODELS_PATH", "./models")
MODEL_CONFIG_PATH = _home_path("MODEL_CONFIG_PATH", "./models/model_config.json")
LOG_DIR = _home_path("LOG_DIR", "./logs")
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
RUN_DIR = HOME_DIR / "run"
STARTER_MODEL = env.text("STARTER_MODEL", "smollm2-135m-instruct")

# -- secrets: `manage.py serve` writes them at the first start; other commands may run before that, with one for the moment --
JWT_SECRET = env.secret("JWT_SECRET")
SECRET_KEY = env.secret("SECRET_KEY") or secrets.token_urlsafe(48)
CLUSTER_TOKEN = env.secret("CLUSTER_TOKEN")

# -- accounts and money --------------------------------------------------------------------------------------------
REGISTRATION = env.choice("REGISTRATION", "open", ("open", "approval", "closed"))
TOKEN_PRICE = env.micro_credits("TOKEN_RATE", "0.001")  # micro-credits for one token
DEFAULT_TOKENS = env.integer("DEFAULT_TOKENS", 1000)
ADMIN_USERNAME = env.text("ADMIN_USERNAME", "admin")
ADMIN_PASSWORD = env.text("ADMIN_PASSWORD")

# -- waiting for a model ----------------------------------------------------------------------------------------------
QUEUE_LENGTH = env.integer("QUEUE_LENGTH", 200)  # requests that may wait for one model
QUEUE_WAIT_SECONDS = env.integer("QUEUE_WAIT_SECONDS", 600)  # longest wait for a free slot
MODEL_WAIT_SECONDS = env.integer("MODEL_WAIT_SECONDS", 30)  # longest wait for a model that is starting

# -- growing up ----------------------------------------------------------------------------------------------------
CLUSTER_ENGINE = env.choice("CLUSTER_ENGINE", "local", ("local", "ray"))
REDIS_URL = env.text("REDIS_URL")
METRICS_ALLOW = env.items_of("METRICS_ALLOW", "127.0.0.1,::1")
TLS_CERT = str(_home_path("TLS_CERT", "")) if env.text("TLS_CERT") else ""
TLS_KEY = str(_home_path("TLS_KEY", "")) if env.text("TLS_KEY") else ""

# -- Django --------------------------------------------------------------------------------------------------------
DEBUG = False
# Names this service answers to: a page elsewhere whose DNS is rebound to our address is refused (product.md, DNS rebinding).
ALLOWED_HOSTS = env.items_of("ALLOWED_HOSTS") or host_names.own_host_names()
CSRF_TRUSTED_ORIGINS = env.items_of("CSRF_TRUSTED_ORIGINS")
ASGI_APPLICATION = "llmplatform.asgi.application"
ROOT_URLCONF = "llmplatform.urls"
AUTH_USER_MODEL = "accounts.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = False

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_prometheus",
    "rest_framework",
    "rest_framework_simplejwt.token_blacklist",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "channels",
    "csp",
    "llmplatform",
    "accounts",
    "cluster",
    "models_app",
    "gateway",
    "chat",
]
# The supervisor serves no pages: without what only those need it is 45 MB smaller and starts a second sooner.
SUPERVISOR_APPS = {
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "llmplatform",
    "accounts",
    "cluster",
    "models_app",
}
if os.environ.get("LLM_PROCESS") == "supervisor":
    INSTALLED_APPS = [app for app in INSTALLED_APPS if app in SUPERVISOR_APPS]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "csp.middleware.CSPMiddleware",
    "llmplatform.lib.console.policy.console_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "accounts.middleware.PagesMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": database_url.parse(env.text("DATABASE_URL", "sqlite3://./llm.db"), HOME_DIR)}

CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": (
        {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
        if REDIS_URL
        else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    )
}

# -- passwords, sessions, tokens -----------------------------------------------------------------------------------
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
AUTHENTICATION_BACKENDS = ["accounts.backends.UsernameOrEmailBackend"]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "llmplatform.views.csrf_failure"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = bool(TLS_CERT)

SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(hours=1),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=14),
    "ROTATE_REFRESH_TOKENS": True,
    "BLACKLIST_AFTER_ROTATION": True,
    "ALGORITHM": "HS256",
    "SIGNING_KEY": JWT_SECRET or SECRET_KEY,
    "UPDATE_LAST_LOGIN": False,
    # Ends every token of a user whose password changes.
    "CHECK_REVOKE_TOKEN": True,
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.api.authentication.BearerAuthentication",
        "accounts.api.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["llmplatform.lib.api.parsers.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "llmplatform.lib.api.schema.Schema",
    "EXCEPTION_HANDLER": "llmplatform.lib.api.errors.exception_handler",
    "URL_FORMAT_OVERRIDE": None,  # ?format=csv is a parameter of some endpoints
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "LLM Platform",
    "DESCRIPTION": "A private, OpenAI-compatible LLM service on ordinary CPU servers.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "gateway.openapi.add_inference_paths",
        "llmplatform.lib.api.schema.add_error_answer",
    ],
}

# -- languages -----------------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
LANGUAGES = [("zh-hans", _("Simplified Chinese")), ("en", _("English"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = env.time_zone("TIME_ZONE", "UTC")

# -- static files: collected at start into run/, served with content-hashed names and brotli by ServeStatic in asgi.py -----
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "llmplatform.service.console_icons.Finder",
]
STATIC_ROOT = RUN_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "llmplatform.lib.static_storage.StaticStorage"},
}

# -- what browsers may load: strict for our pages; the console's Alpine needs eval, so /admin/ adds it (console middleware) --
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "manifest-src": ["'self'"],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
# Told only over TLS, and believed only where the browser trusts the certificate.
SECURE_HSTS_SECONDS = 30 * 86400 if TLS_CERT else 0
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024

# -- logs ----------------------------------------------------------------------------------------------------------
LOGGING = json_logging.configuration(LOG_DIR / "llm-app.log", LOG_LEVEL)

PROMETHEUS_EXPORT_MIGRATIONS = False
