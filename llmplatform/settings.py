"""Django settings. Every value an administrator may set comes from the environment or ``.env`` (see .env.example)."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.utils.translation import gettext_lazy as _

from llmplatform.lib import database_url, host_names, json_logging, mail_url, proxies, public_url
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
ENGINE_MEMORY_BOUND = env.integer("ENGINE_MEMORY_BOUND", 2, 0, 100)  # times the planned memory; 0: none
MODELS_PATH = _home_path("MODELS_PATH", "./models")
MODEL_CONFIG_PATH = _home_path("MODEL_CONFIG_PATH", "./models/model_config.json")
LOG_DIR = _home_path("LOG_DIR", "./logs")
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
RUN_DIR = HOME_DIR / "run"
STARTER_MODEL = env.text("STARTER_MODEL", "smollm2-135m-instruct")

# -- getting models --------------------------------------------------------------------------------------------------
MODEL_HUB = env.choice("MODEL_HUB", "auto", ("auto", "huggingface", "modelscope"))
MODEL_HOSTS = env.items_of("MODEL_HOSTS")  # further hosts that models may be fetched from
HF_ENDPOINT = env.web_address("HF_ENDPOINT", "https://huggingface.co")
MODELSCOPE_ENDPOINT = env.web_address("MODELSCOPE_ENDPOINT", "https://modelscope.cn")
HF_TOKEN = env.text("HF_TOKEN")
MODELSCOPE_API_TOKEN = env.text("MODELSCOPE_API_TOKEN")

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

# -- second factor and single sign-on --------------------------------------------------------------------------------
SECOND_FACTOR = env.choice("SECOND_FACTOR", "optional", ("off", "optional", "operators", "everyone"))
OIDC_ISSUER = env.text("OIDC_ISSUER")  # empty: no single sign-on
OIDC_CLIENT_ID = env.text("OIDC_CLIENT_ID")
OIDC_CLIENT_SECRET = env.text("OIDC_CLIENT_SECRET")
OIDC_NAME = env.text("OIDC_NAME", "SSO")
OIDC_SCOPES = env.text("OIDC_SCOPES", "openid profile email")
OIDC_USERNAME_CLAIM = env.text("OIDC_USERNAME_CLAIM", "preferred_username")
OIDC_REGISTRATION = env.choice("OIDC_REGISTRATION", REGISTRATION, ("open", "approval", "closed"))
OIDC_GROUPS_CLAIM = env.text("OIDC_GROUPS_CLAIM")
OIDC_OPERATORS = env.items_of("OIDC_OPERATORS")
OIDC_ADMINS = env.items_of("OIDC_ADMINS")
OIDC_SECOND_FACTOR = env.flag("OIDC_SECOND_FACTOR", False)  # the provider asks for one itself

# Days for which the record of each request is kept; 0: for ever. Sums by the hour and the ledger are always kept.
USAGE_RETENTION_DAYS = env.integer("USAGE_RETENTION_DAYS", 0, 0, 36500)

# Which replica gets a request: docs/routing.md
ROUTING = env.choice("ROUTING", "cost", ("cost", "least_busy", "round_robin", "hash"))

# -- waiting for a model ----------------------------------------------------------------------------------------------
QUEUE_LENGTH = env.integer("QUEUE_LENGTH", 200)  # requests that may wait for one model
QUEUE_BYTES = env.integer("QUEUE_BYTES", 64 * 2**20)  # and the sum of their bodies' sizes
QUEUE_WAIT_SECONDS = env.integer("QUEUE_WAIT_SECONDS", 600)  # longest wait for a free slot
ON_DEMAND_TTL = env.integer("ON_DEMAND_TTL", 600)  # seconds without requests after which a model on demand is unloaded
MODEL_WAIT_SECONDS = env.integer("MODEL_WAIT_SECONDS", 30)  # longest wait for a model that is starting

# -- how long an engine may take ---------------------------------------------------------------------------------------
CONNECT_SECONDS = env.integer("CONNECT_SECONDS", 5, 1)
FIRST_BYTE_SECONDS = env.integer(
    "FIRST_BYTE_SECONDS", 3600, 1
)  # a long prompt on a slow processor is read for many minutes
SILENCE_SECONDS = env.integer("SILENCE_SECONDS", 600, 1)  # in the middle of an answer
ANSWER_SECONDS = env.integer("ANSWER_SECONDS", 4 * 3600, 1)  # from the slot to the end of the answer

# -- growing up ----------------------------------------------------------------------------------------------------
CLUSTER_ENGINE = env.choice("CLUSTER_ENGINE", "local", ("local", "ray"))
REDIS_URL = env.text("REDIS_URL")
METRICS_ALLOW = env.items_of("METRICS_ALLOW", "127.0.0.1,::1")
TLS_CERT = str(_home_path("TLS_CERT", "")) if env.text("TLS_CERT") else ""
TLS_KEY = str(_home_path("TLS_KEY", "")) if env.text("TLS_KEY") else ""

# -- how people reach the service ------------------------------------------------------------------------------------
# In which a client sends 64 KB, or the rest of its request, or takes as much of its answer; and in which it asks again.
CLIENT_TIMEOUT_SECONDS = env.integer("CLIENT_TIMEOUT_SECONDS", 60, 1, 3600)
PUBLIC_URL = public_url.parse(env.text("PUBLIC_URL"))
TRUSTED_PROXIES = proxies.parse_networks("TRUSTED_PROXIES", env.items_of("TRUSTED_PROXIES"))
HTTPS = bool(TLS_CERT) or PUBLIC_URL.startswith("https://")

# -- mail: only for passwords that were forgotten ---------------------------------------------------------------------
EMAIL_URL = env.text("EMAIL_URL")
_mail = mail_url.parse(EMAIL_URL)
EMAIL_HOST, EMAIL_PORT = _mail.host, _mail.port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail.user, _mail.password
EMAIL_USE_SSL, EMAIL_USE_TLS = _mail.tls_at_once, _mail.starttls
EMAIL_TIMEOUT = 15
DEFAULT_FROM_EMAIL = MAIL_FROM = env.text("MAIL_FROM") or (_mail.user if "@" in _mail.user else "")

# -- Django --------------------------------------------------------------------------------------------------------
DEBUG = False
# Names this service answers to: a page elsewhere whose DNS is rebound to our address is refused (product.md, DNS rebinding).
ALLOWED_HOSTS = env.items_of("ALLOWED_HOSTS") or host_names.own_host_names()
CSRF_TRUSTED_ORIGINS = env.items_of("CSRF_TRUSTED_ORIGINS")
CORS_ALLOWED_ORIGINS = env.items_of("CORS_ALLOWED_ORIGINS")  # whose pages may call the inference path
if PUBLIC_URL:
    ALLOWED_HOSTS.append(public_url.host_of(PUBLIC_URL))
    CSRF_TRUSTED_ORIGINS.append(PUBLIC_URL)
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
    "axes",
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
    "django.contrib.sessions",
    "axes",
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
    "accounts.middleware.audit_actor",
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

# Counters of each process. The usual 300 entries would let whoever has many addresses push the others out.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }
}

# -- passwords, sessions, tokens -----------------------------------------------------------------------------------
PASSWORD_HASHERS = [
    "accounts.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
AUTHENTICATION_BACKENDS = ["accounts.backends.UsernameOrEmailBackend"]
# django-axes counts wrong passwords; accounts.lockout asks it, for every way to log in.
AXES_HANDLER = "accounts.lockout.Handler"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_CLIENT_IP_CALLABLE = "accounts.lockout.address_of"
AXES_DISABLE_ACCESS_LOG = True  # logins are in the audit
AXES_ENABLE_ADMIN = AXES_VERBOSE = False
# Its middleware and backend are for logins through django.contrib.auth.authenticate().
SILENCED_SYSTEM_CHECKS = ["axes.W002", "axes.W003"]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "llmplatform.views.csrf_failure"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = HTTPS
PASSWORD_RESET_TIMEOUT = 2 * 3600

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
    "DEFAULT_METADATA_CLASS": None,  # what there is stands in the description: OPTIONS is a method like others
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
    "SERVE_AUTHENTICATION": [],  # for anyone: also for who sends a key of few scopes, or an old token
    "ENUM_NAME_OVERRIDES": {
        "UserRole": ["user", "operator", "admin"],
        "Period": ["day", "week", "month"],
        "ModelState": "models_app.states.State",
    },
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
FORMAT_MODULE_PATH = "llmplatform.formats"
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
SECURE_HSTS_SECONDS = 30 * 86400 if HTTPS else 0
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024

# -- logs ----------------------------------------------------------------------------------------------------------
LOGGING = json_logging.configuration(LOG_DIR / "llm-app.log", LOG_LEVEL)

PROMETHEUS_EXPORT_MIGRATIONS = False

# What was read above from the environment and .env; changes are told to the audit log at the next start.
READ_SETTINGS = env.read
