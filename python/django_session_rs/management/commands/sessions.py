"""``manage.py sessions …``: the command ``django-session`` with the settings of the site."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections, router
from django.views.decorators.debug import sensitive_variables

from django_session_rs import store_url

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django.db.models import Model

__all__ = ["Command"]

#: What Django itself makes of the arguments, wherever they stand.
DJANGO_OPTIONS = ("--settings", "--pythonpath")

#: Where the engines are that an engine of a site may be derived from.
ENGINES = ("django.contrib.sessions.backends", "django_session_rs.backends")


class Command(BaseCommand):
    """Hands its arguments to ``django-session``, and the settings in variables and a file."""

    help = (
        "Look into the sessions of this site, clean, rotate and move them: `sessions --help` "
        "lists the subcommands. It is `django-session` with the settings of the site."
    )
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass everything on as it is, and end as the command ends."""
        try:
            code = self._run(_without_django_options(argv[2:]))
        except (CommandError, ImproperlyConfigured) as error:
            self.stderr.write(f"{type(error).__name__}: {error}")
            code = getattr(error, "returncode", 1)
        sys.exit(code)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whatever there is, for ``call_command``."""
        parser.add_argument("arguments", nargs="*")

    def handle(self, *args: str, **options: Any) -> None:
        """Run the command; raise ``CommandError`` with its exit code if it fails."""
        code = self._run([*args, *options["arguments"]])
        if code:
            raise CommandError(f"django-session ended with code {code}", returncode=code)

    @sensitive_variables()
    def _run(self, arguments: list[str]) -> int:
        environment = dict(os.environ)
        with tempfile.TemporaryDirectory(prefix="django-session-") as directory:
            file = Path(directory) / "settings.json"
            call_command("export_session_settings", output=str(file), verbosity=0)
            environment["DJANGO_SESSION_SETTINGS"] = str(file)
            environment["SECRET_KEY"] = _key(settings.SECRET_KEY)
            fallbacks = getattr(settings, "SECRET_KEY_FALLBACKS", [])
            environment["SECRET_KEY_FALLBACKS"] = json.dumps([_key(key) for key in fallbacks])
            # What the operator has said comes before what the site says.
            if "SESSION_STORE_URL" not in os.environ and (url := _store_url_for(arguments)):
                environment["SESSION_STORE_URL"] = url
            if "USERS_DATABASE_URL" not in os.environ and (url := _users_url()):
                environment["USERS_DATABASE_URL"] = url
            command = [sys.executable, "-m", "django_session_rs", *arguments]
            process = subprocess.Popen(command, env=environment)  # noqa: S603 - ours
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:
                    # It has got the signal, too, and comes to an end by itself.
                    continue


@sensitive_variables()
def _store_url_for(arguments: list[str]) -> str | None:
    try:
        return site_store_url()
    except (CommandError, ImproperlyConfigured):
        # What is wrong with the caches the doctor says better, from the settings alone.
        if arguments[:1] != ["doctor"]:
            raise
        return None


@sensitive_variables()
def _users_url() -> str | None:
    try:
        return users_url()
    except ImproperlyConfigured:
        # Few subcommands need users, and those say that they do.
        return None


def _without_django_options(arguments: list[str]) -> list[str]:
    """Leave out what the ``ManagementUtility`` has acted upon already."""
    left = []
    given = iter(arguments)
    for argument in given:
        if argument in DJANGO_OPTIONS:
            next(given, None)
        elif not argument.startswith(tuple(f"{option}=" for option in DJANGO_OPTIONS)):
            left.append(argument)
    return left


@sensitive_variables()
def _key(key: str | bytes) -> str:
    try:
        text = key.decode() if isinstance(key, bytes) else key
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise CommandError(
            "A key of this site is no text that an environment variable could hold. Write the "
            "settings with export_session_settings --include-secret, and give that file to "
            "django-session."
        ) from None
    return text


@sensitive_variables()
def site_store_url() -> str | None:
    """Return the address of the sessions of this site, by ``SESSION_ENGINE``."""
    engine = import_module(settings.SESSION_ENGINE).SessionStore
    name = _kind(engine)
    is_native = name == "native"
    if is_native:
        name = getattr(settings, "SESSION_STORE_URL", "db")
        if ":" in name:
            return str(name)
    if name == "file":
        path = getattr(settings, "SESSION_FILE_PATH", None) or tempfile.gettempdir()
        return f"file:{quote(os.fspath(path))}"
    if name in ("cache", "cached_db") and not is_native:
        _check_cache(engine, name)
    if name == "cache":
        return cache_table_url() or store_url.cache_url()
    if name == "moving":
        raise CommandError(
            "The sessions of this site are in two engines: set SESSION_STORE_URL in the "
            "environment to the address of one of them."
        )
    # An engine of the site's own may have sessions in a table, too.
    model = getattr(engine, "get_model_class", None)
    url = table_url(model()) if model else None
    if url is None or name != "cached_db":
        return url
    try:
        cache = store_url.cache_url()
    except ImproperlyConfigured as error:
        raise CommandError(
            "The cache of this site cannot be reached from outside, so copies of sessions in it "
            "would outlive what is changed in the table. Set SESSION_STORE_URL in the environment "
            f"to the address of the table if that is meant. ({error})"
        ) from error
    return f"{url}&{urlencode({'cache_url': cache}, quote_via=quote)}"


def _kind(engine: type[Any]) -> str | None:
    """Name the engine, Django's or of this package, that an engine is or is derived from."""
    for base in engine.__mro__:
        package, _, name = base.__module__.rpartition(".")
        if package in ENGINES and name != "base":
            return name
    return None


def _check_cache(engine: type[Any], name: str) -> None:
    """Refuse an engine of the site's own that has another cache, or other keys in it."""
    if engine.__module__.rpartition(".")[0] in ENGINES:
        return
    session = engine()
    has_own = getattr(session, "_cache", None) is not caches[settings.SESSION_CACHE_ALIAS]
    prefix = import_module(f"django.contrib.sessions.backends.{name}").KEY_PREFIX
    if has_own or getattr(session, "cache_key_prefix", prefix) != prefix:
        raise CommandError(
            "The engine of this site has a cache or a cache_key_prefix of its own, which its "
            "settings do not tell: set SESSION_STORE_URL in the environment to its address."
        )


@sensitive_variables()
def cache_table_url() -> str | None:
    """Return the address of the cache ``SESSION_CACHE_ALIAS``; ``None`` if it is no table."""
    alias = settings.SESSION_CACHE_ALIAS
    values = settings.CACHES.get(alias, {})
    if values.get("BACKEND") != store_url.DATABASE_CACHE:
        return None
    # What it asks the routers about.
    model = caches[alias].cache_model_class  # type: ignore[attr-defined]
    options = store_url.key_options(alias, values)
    store_url.check_time_zone(connections[router.db_for_write(model)])
    return _address(model, cache_table=model._meta.db_table, **options)


@sensitive_variables()
def table_url(model: type[Model]) -> str | None:
    """Return the address of the table of a session model, in SQLite too."""
    store_url.check_time_zone(connections[router.db_for_write(model)])
    return _address(model, table=model._meta.db_table)


@sensitive_variables()
def _address(model: type[Model], **options: str) -> str | None:
    connection = connections[router.db_for_write(model)]
    if connection.vendor == "sqlite":
        path = quote(os.fspath(connection.settings_dict["NAME"]))
        return f"sqlite:{path}?{urlencode(options, quote_via=quote)}"
    if connection.vendor not in store_url.SCHEMES:
        return None
    return store_url.connection_url(connection, **options)


@sensitive_variables()
def users_url() -> str | None:
    """Return the address of the database with the users."""
    if "django.contrib.auth" not in settings.INSTALLED_APPS:
        return None
    model = get_user_model()
    return _address(model, table=model._meta.db_table)
