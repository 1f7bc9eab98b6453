"""Settings for Django's ``runtests.py``; ``tests/django_suite.py`` says which database.

Two empty databases, as Django's own ``test_sqlite`` settings have, and a runner that writes down
what each test did. ``SUITE_ENGINE`` is the engine of the tests that ask for none, such as the
middleware's.
"""

import os
from urllib.parse import urlsplit


def _database(url: str, name: str) -> dict[str, object]:
    if not url:
        return {"ENGINE": "django.db.backends.sqlite3"}
    parts = urlsplit(url)
    backend = {"postgres": "postgresql", "mysql": "mysql"}[parts.scheme]
    return {
        "ENGINE": f"django.db.backends.{backend}",
        "NAME": name,
        "HOST": parts.hostname,
        "PORT": parts.port,
        "USER": parts.username,
        "PASSWORD": parts.password,
    }


_URL = os.environ.get("SUITE_DATABASE_URL", "")

if _URL.startswith("mysql:"):
    import pymysql

    # Django asks for a version of mysqlclient; PyMySQL answers to the same interface.
    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()

DATABASES = {
    "default": _database(_URL, "django_suite"),
    "other": _database(_URL, "django_suite_other"),
}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
SESSION_ENGINE = os.environ["SUITE_ENGINE"]
TEST_RUNNER = "suite_runner.RecordingRunner"
