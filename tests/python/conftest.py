"""Django settings, and the databases that the engine is tested on.

SQLite is always there. ``TEST_POSTGRES_URL`` and ``TEST_MYSQL_URL`` name a PostgreSQL and a MySQL
or MariaDB server (``make test-python`` starts both); what is missing is said at the end of the run,
and with ``CI=true`` it is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import unquote, urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tally

DIRECTORY = tempfile.TemporaryDirectory(prefix="django-session-tests-")
SERVERS = {
    "postgres": ("TEST_POSTGRES_URL", "django.db.backends.postgresql", "postgres"),
    "mysql": ("TEST_MYSQL_URL", "django.db.backends.mysql", "mysql"),
}
SECRET_KEY = "a secret key for the tests, which is as long as Django wants it"


def sqlite(name: str) -> dict:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(Path(DIRECTORY.name) / f"{name}.sqlite3"),
        "OPTIONS": {"timeout": 5},
    }


def server(kind: str) -> dict | None:
    variable, engine, maintenance = SERVERS[kind]
    if not os.environ.get(variable):
        return None
    url = urlsplit(os.environ[variable])
    host = url.hostname or ""
    return {
        "ENGINE": engine,
        "NAME": f"test_django_session_{secrets.token_hex(4)}",
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": host,
        "PORT": str(url.port or ""),
        "MAINTENANCE": url.path.strip("/") or maintenance,
    }


def configure() -> None:
    from django.conf import settings

    if os.environ.get("TEST_MYSQL_URL"):
        import pymysql

        # Django looks for mysqlclient; PyMySQL stands in for it. 6.1 checks the version.
        pymysql.version_info = (2, 2, 8, "final", 0)
        pymysql.__version__ = "2.2.8"
        pymysql.install_as_MySQLdb()
    databases = {"default": sqlite("default"), "other": sqlite("other")}
    for kind in SERVERS:
        if found := server(kind):
            databases[kind] = found
    settings.configure(
        SECRET_KEY=SECRET_KEY,
        DATABASES=databases,
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django_session_rs",
            "custom_session",
        ],
        SESSION_ENGINE="django_session_rs.backends.db",
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        USE_TZ=True,
        TIME_ZONE="UTC",
        LOGGING_CONFIG=None,
    )
    import django

    django.setup()


configure()


def missing() -> list[str]:
    return [variable for variable, *_ in SERVERS.values() if not os.environ.get(variable)]


def pytest_configure(config):
    if missing() and os.environ.get("CI") == "true":
        raise pytest.UsageError(f"CI tests every database, but {missing()} is not set")


def pytest_terminal_summary(terminalreporter):
    for variable in missing():
        terminalreporter.section("NOT TESTED", sep="!", red=True)
        terminalreporter.line(f"{variable} is not set: nothing ran on that database.")


def pytest_collection_modifyitems(config, items):
    """For ``make vectors``, run only what asks about recorded sessions."""
    if not os.environ.get(tally.VARIABLE):
        return
    asking = [item for item in items if tally.record_of(item) or item.get_closest_marker("vectors")]
    config.hook.pytest_deselected(items=[item for item in items if item not in asking])
    items[:] = asking


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    record = tally.record_of(item)
    if record and report.failed:
        tally.note(record, "failed")
    elif record and report.when == "call" and report.passed:
        tally.note(record, "passed")
    return report


def pytest_sessionfinish():
    tally.write()


@pytest.fixture(autouse=True)
def directory_of_each_test():
    """Have the file engines, which look it up once in a process, forget their directory."""
    from django_session_rs.backends.file import SessionStore

    def forget():
        for store_class in SessionStore.__mro__:
            if "_storage_path" in vars(store_class):
                del store_class._storage_path

    forget()
    yield
    forget()


@contextlib.contextmanager
def existing_database(alias: str):
    """A database of this run's own on a server; nothing else there is touched."""
    from django.conf import settings
    from django.db import connections

    options = settings.DATABASES[alias]
    if "sqlite3" in options["ENGINE"]:
        yield
        return
    name = connections[alias].ops.quote_name(options["NAME"])
    admin = connections[alias].copy()
    admin.settings_dict = {**admin.settings_dict, "NAME": options["MAINTENANCE"]}
    with admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    try:
        yield
    finally:
        connections[alias].close()
        with admin.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name}")
        admin.close()


@pytest.fixture(scope="session")
def databases():
    """Aliases of all databases, each with its tables."""
    from django.core.management import call_command
    from django.db import connections

    with contextlib.ExitStack() as stack:
        aliases = list(connections)
        for alias in aliases:
            stack.enter_context(existing_database(alias))
            call_command("migrate", database=alias, run_syncdb=True, verbosity=0)
        yield aliases
        connections.close_all()


def empty_tables() -> None:
    from django.apps import apps

    for model in apps.get_models():
        model._base_manager.all().delete()


@pytest.fixture(params=["default", *SERVERS])
def database(request, databases):
    """One database after the other in the place of the default one, empty."""
    from django.db import connections

    alias = request.param
    if alias not in databases:
        pytest.skip(f"{SERVERS[alias][0]} is not set")
    own = connections["default"]
    connections["default"] = connections[alias]
    forget_in_the_thread()
    try:
        empty_tables()
        yield connections["default"]
    finally:
        connections["default"] = own


@pytest.fixture
def sqlite_database(databases):
    """Only SQLite, empty."""
    from django.db import connections

    empty_tables()
    return connections["default"]


class Clock:
    """A clock for Django and for the signatures, which stands still."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def datetime(self):
        from datetime import datetime, timedelta, timezone

        from django.conf import settings

        # Not `fromtimestamp`, which rounds the fraction through a float.
        whole = int(self.now // 1)
        micro = round((self.now - whole) * 1_000_000)
        zone = timezone.utc if settings.USE_TZ else None
        base = datetime.fromtimestamp(whole, tz=zone)
        return base + timedelta(microseconds=micro)


@contextlib.contextmanager
def frozen(now: float):
    clock = Clock(now)
    with (
        mock.patch("time.time", clock.time),
        mock.patch("django.utils.timezone.now", clock.datetime),
    ):
        yield clock


def wanted(variable: str) -> str:
    """The address of a server; where CI has none that is an error."""
    url = os.environ.get(variable, "")
    if not url:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{variable} is not set")
        pytest.skip(f"{variable} is not set")
    return url


def forget_in_the_thread() -> None:
    """Have the thread that event loops ask Django in make its connection anew."""
    from asgiref.sync import sync_to_async
    from django.db import connections

    def forget() -> None:
        connections["default"].close()
        del connections["default"]

    asyncio.run(sync_to_async(forget)())


@contextlib.contextmanager
def database_of(alias: str) -> Iterator[None]:
    """A database in the place of the default one, in all threads."""
    from django.db import connections

    from django_session_rs.backends import native

    own = connections["default"]
    options = connections.databases["default"]
    connections["default"] = connections[alias]
    connections.databases["default"] = connections.databases[alias]
    native._close()
    try:
        empty_tables()
        yield
    finally:
        native._close()
        connections["default"] = own
        connections.databases["default"] = options
        forget_in_the_thread()


@pytest.fixture(params=["postgres", "mysql"])
def table(request, databases):
    """The table of one server after the other."""
    if request.param not in databases:
        pytest.skip(f"{request.param} is not there")
    with database_of(request.param):
        yield request.param
