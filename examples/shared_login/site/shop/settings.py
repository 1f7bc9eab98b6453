"""Settings of the demo shop.

An ordinary Django project but for one line, ``SESSION_ENGINE``. What differs from one run to the
next (secret key, database file, ports) comes from the environment; ``run.py`` sets it.
"""

import os
from pathlib import Path

SITE_DIR = Path(__file__).resolve().parent.parent
DEMO_DIR = SITE_DIR.parent

SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = True  # `runserver` hands out static files only then; the demo listens on loopback alone
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_session_rs",
    "shop",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "shop.urls"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "shop.context.servers",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHARED_LOGIN_DB", DEMO_DIR / "demo.sqlite3"),
        "OPTIONS": {
            # Two processes write this file: readers do not wait for a writer (WAL), and a writer
            # takes its turn at BEGIN instead of failing half way (IMMEDIATE).
            "init_command": "PRAGMA journal_mode=WAL;",
            "timeout": 10,
            "transaction_mode": "IMMEDIATE",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Cookies belong to a host and ignore its port, so one cookie reaches both servers.
SESSION_ENGINE = "django_session_rs.backends.db"
SESSION_COOKIE_PATH = "/"
SESSION_COOKIE_SAMESITE = "Lax"

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "index"
LOGOUT_REDIRECT_URL = "index"

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"

# The other server: same host name as the page that links to it, another port.
RUST_PORT = int(os.environ.get("SHARED_LOGIN_RUST_PORT", "8001"))
CATALOGUE = DEMO_DIR / "catalogue.json"
