"""The address of the store in which a site keeps its sessions, out of its own settings.

``SESSION_STORE_URL`` is such an address (``docs/settings.md`` has the grammar), or one of the
words ``"db"`` (the default), ``"cache"`` and ``"cached_db"``: then it follows from ``DATABASES``
and ``CACHES``, as for Django's engines of these names. Whatever of those settings has no
counterpart in an address is an ``ImproperlyConfigured``, unless it makes no difference to
statements that stand for themselves (``PASSED_OVER``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.views.decorators.debug import sensitive_variables

from django_session_rs.backends.session_table import STOCK_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django.contrib.sessions.base_session import AbstractBaseSession
    from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["store_url"]

#: Options of the drivers that mean nothing to another connection, or nothing that is stored.
PASSED_OVER = {
    "postgresql": {"isolation_level", "pool", "server_side_binding"},
    "mysql": {"autocommit", "charset", "init_command", "isolation_level", "use_unicode"},
}
#: Options of the drivers, and what they are called in an address.
OPTIONS = {
    "postgresql": {
        "application_name": "application_name",
        "assume_role": "options",
        "options": "options",
        "sslcert": "sslcert",
        "sslkey": "sslkey",
        "sslmode": "sslmode",
        "sslrootcert": "sslrootcert",
    },
    "mysql": {"unix_socket": "socket"},
}
SCHEMES = {"postgresql": "postgres", "mysql": "mysql"}
PYMEMCACHE = "django.core.cache.backends.memcached.PyMemcacheCache"
PYLIBMC = "django.core.cache.backends.memcached.PyLibMCCache"
REDIS = "django.core.cache.backends.redis.RedisCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
DATABASE_CACHE = "django.core.cache.backends.db.DatabaseCache"


@sensitive_variables()
def store_url(get_model: Callable[[], type[AbstractBaseSession]]) -> str | None:
    """Return the address for sessions; ``None`` if Django has to ask the database.

    ``get_model`` says in which table. Django asks SQLite, of which there must be one library in a
    process, and databases that no store knows. The address holds passwords.
    """
    wanted = getattr(settings, "SESSION_STORE_URL", "db")
    if wanted == "db":
        return database_url(get_model())
    if wanted == "cache":
        return cache_url()
    if wanted == "cached_db":
        url = database_url(get_model())
        if url is None:
            return None
        return f"{url}&{urlencode({'cache_url': cache_url()}, quote_via=quote)}"
    if not isinstance(wanted, str) or ":" not in wanted:
        raise ImproperlyConfigured(
            "SESSION_STORE_URL must be 'db', 'cache', 'cached_db' or the address of a store."
        )
    if wanted.startswith("signed_cookies:"):
        raise ImproperlyConfigured(
            "SESSION_STORE_URL must not be 'signed_cookies:': the key of such a session is the "
            "session. Use 'django_session_rs.backends.signed_cookies'."
        )
    if wanted.startswith("sqlite:") or _moves_sqlite(wanted):
        raise ImproperlyConfigured(
            "SESSION_STORE_URL must not lead to SQLite: two libraries in one process lose what "
            "they commit. Set it to 'db', and Django's connection is used."
        )
    return wanted


@sensitive_variables()
def _moves_sqlite(url: str) -> bool:
    """Whether one of the two stores of a move is in SQLite."""
    scheme, _, query = url.partition(":?")
    inner = parse_qs(query) if scheme == "moving" else {}
    return any(one.startswith("sqlite:") for ones in inner.values() for one in ones)


@sensitive_variables()
def database_url(model: type[AbstractBaseSession]) -> str | None:
    """Return the address of the table of a model."""
    connection = connections[router.db_for_write(model)]
    if connection.vendor not in SCHEMES:
        return None
    if {field.column: type(field) for field in model._meta.concrete_fields} != STOCK_FIELDS:
        raise ImproperlyConfigured(
            "The native engine writes the three columns of Django's own session model; use "
            "'django_session_rs.backends.db' for a model with others, or with fields of its own."
        )
    check_time_zone(connection)
    return connection_url(connection, table=model._meta.db_table)


def check_time_zone(connection: BaseDatabaseWrapper) -> None:
    """Refuse a database whose columns hold no UTC, of which an address cannot tell."""
    if settings.USE_TZ and connection.vendor != "postgresql" and connection.timezone_name != "UTC":
        raise ImproperlyConfigured(
            "DATABASES has a TIME_ZONE for the table of sessions, so that expire_date is no UTC "
            "there; only the engines on Django's own connections, such as "
            "'django_session_rs.backends.db', know such a table."
        )


@sensitive_variables()
def connection_url(connection: BaseDatabaseWrapper, **options: str) -> str:
    """Return the address of a table behind one of Django's connections, with these options."""
    vendor = connection.vendor
    values: Mapping[str, Any] = connection.settings_dict
    host = str(values["HOST"] or "")
    if not host:
        host = _host_of_libpq(values["PORT"]) if vendor == "postgresql" else "localhost"
    if "," in host:
        raise ImproperlyConfigured(
            "The native engine asks one server, and HOST in DATABASES names several; set "
            "SESSION_STORE_URL to an address."
        )
    if host.startswith("/"):
        options["socket" if vendor == "mysql" else "host"] = host
        host = "localhost"
    for name, value in (values.get("OPTIONS") or {}).items():
        if name in OPTIONS[vendor]:
            key = OPTIONS[vendor][name]
            text = _role(value) if name == "assume_role" else str(value)
            # The one thing that two of them say is what a server is told first.
            options[key] = f"{options[key]} {text}" if key in options else text
        elif name not in PASSED_OVER[vendor]:
            raise ImproperlyConfigured(
                f"The option {name!r} of DATABASES has no counterpart for the native engine; set "
                "SESSION_STORE_URL to an address."
            )
    port = f":{values['PORT']}" if values["PORT"] else ""
    address = f"{SCHEMES[vendor]}://{login(values['USER'], values['PASSWORD'])}"
    name = quote(str(values["NAME"]), safe="")
    return f"{address}{bracketed(host)}{port}/{name}?{urlencode(options, quote_via=quote)}"


def _host_of_libpq(port: object) -> str:
    """Return where PostgreSQL's own library looks for a server whose host is not said."""
    if host := os.environ.get("PGHOST"):
        return host
    name = f".s.PGSQL.{port or os.environ.get('PGPORT') or 5432}"
    directories = ("/var/run/postgresql", "/tmp")  # noqa: S108 - where sockets are
    found = (directory for directory in directories if Path(directory, name).exists())
    return next(found, "localhost")


def _role(name: object) -> str:
    """Return what makes a connection to PostgreSQL that of a role."""
    if not name:
        return ""
    escaped = str(name).replace("\\", "\\\\").replace(" ", "\\ ")
    return f"-c role={escaped}"


@sensitive_variables()
def login(user: object, password: object) -> str:
    """Return user and password as they stand in an address."""
    if not user and not password:
        return ""
    secret = f":{quote(str(password), safe='')}" if password else ""
    return f"{quote(str(user or ''), safe='')}{secret}@"


def bracketed(host: str) -> str:
    """Return a host as it stands in an address; one of IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


@sensitive_variables()
def cache_url() -> str:
    """Return the address of the cache ``SESSION_CACHE_ALIAS``."""
    alias = settings.SESSION_CACHE_ALIAS
    values: dict[str, Any] = settings.CACHES.get(alias, {})
    backend = values.get("BACKEND", "")
    options = key_options(alias, values)
    if backend in (PYMEMCACHE, PYLIBMC):
        address = f"memcached://{','.join(locations(values, separators=';,'))}"
        options |= memcached_options(backend, values.get("OPTIONS") or {})
    elif backend in (REDIS, DJANGO_REDIS):
        # The first one is written to; the others are copies of it.
        address = locations(values, separators=";,")[0]
        address, options = redis_options(address, backend, values.get("OPTIONS") or {}, options)
    else:
        raise ImproperlyConfigured(
            f"The native engine has no store for the backend of CACHES[{alias!r}]; use "
            "'django_session_rs.backends.cache', or set SESSION_STORE_URL to an address."
        )
    if not options:
        return address
    return f"{address}{'&' if '?' in address else '?'}{urlencode(options, quote_via=quote)}"


def key_options(alias: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Return what the keys of a cache are made with."""
    if values.get("KEY_FUNCTION"):
        raise ImproperlyConfigured(
            f"CACHES[{alias!r}] has a KEY_FUNCTION, which the native engine cannot call; use "
            "'django_session_rs.backends.cache'."
        )
    options = {}
    if values.get("KEY_PREFIX"):
        options["prefix"] = str(values["KEY_PREFIX"])
    if values.get("VERSION", 1) != 1:
        options["version"] = str(values["VERSION"])
    return options


@sensitive_variables()
def locations(values: Mapping[str, Any], *, separators: str) -> list[str]:
    """Return the servers of a cache, as Django splits ``LOCATION``."""
    location = values.get("LOCATION", "")
    if isinstance(location, str):
        for separator in separators[1:]:
            location = location.replace(separator, separators[0])
        found = location.split(separators[0])
    else:
        found = [str(one) for one in location]
    return [one.strip() for one in found if one.strip()] or [""]


#: Options of a client of memcached that are about its connections and calls alone.
CALLS = {
    PYMEMCACHE: {
        "allow_unicode_keys",
        "default_noreply",
        "ignore_exc",
        "max_pool_size",
        "no_delay",
        "pool_idle_timeout",
        "use_pooling",
    },
    PYLIBMC: {"binary"},
}
BEHAVIORS = {"connect_timeout", "no_block", "receive_timeout", "send_timeout", "tcp_nodelay"}


def memcached_options(backend: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Return what a client of memcached says of its servers in ``OPTIONS``."""
    # Which of several servers has a key.
    found = {"distribution": "modula"} if backend == PYLIBMC else {}
    for name, value in given.items():
        if name in CALLS[backend] or (name == "behaviors" and set(value) <= BEHAVIORS):
            continue
        if backend == PYMEMCACHE and name in ("connect_timeout", "timeout"):
            found |= {} if value is None else {name: str(value)}
            continue
        raise ImproperlyConfigured(
            f"The option {name!r} of the cache has no counterpart for the native engine; set "
            "SESSION_STORE_URL to an address."
        )
    return found


#: Of django-redis, by the last word of the class or module.
SERIALIZERS = {
    "django_redis.serializers.json.JSONSerializer": "json",
    "django_redis.serializers.msgpack.MSGPackSerializer": "msgpack",
    "django_redis.serializers.pickle.PickleSerializer": "pickle",
}
COMPRESSORS = {
    "django_redis.compressors.gzip.GzipCompressor": "gzip",
    "django_redis.compressors.identity.IdentityCompressor": "identity",
    "django_redis.compressors.lz4.Lz4Compressor": "lz4",
    "django_redis.compressors.lzma.LzmaCompressor": "lzma",
    "django_redis.compressors.zlib.ZlibCompressor": "zlib",
    "django_redis.compressors.zstd.ZStdCompressor": "zstd",
}
DEFAULT_CLIENT = "django_redis.client.DefaultClient"


@sensitive_variables()
def redis_options(
    address: str, backend: str, given: Mapping[str, Any], options: dict[str, str]
) -> tuple[str, dict[str, str]]:
    """Return address and options of a Redis server, with what ``OPTIONS`` says of it."""
    found = dict(options)
    if backend == DJANGO_REDIS:
        found["layout"] = "django_redis"
    for name, value in given.items():
        key = name.lower()
        if key in ("password", "username", "db"):
            address = with_login(address, **{key: value})
        elif backend == DJANGO_REDIS and name == "SERIALIZER" and value in SERIALIZERS:
            found["serializer"] = SERIALIZERS[value]
        elif backend == DJANGO_REDIS and name == "COMPRESSOR" and value in COMPRESSORS:
            found["compressor"] = COMPRESSORS[value]
        elif (backend == DJANGO_REDIS and name == "CLIENT_CLASS" and value == DEFAULT_CLIENT) or (
            name in ("pool_class", "parser_class", "CONNECTION_POOL_KWARGS") and not value
        ):
            continue
        else:
            raise ImproperlyConfigured(
                f"The option {name!r} of the cache has no counterpart for the native engine; set "
                "SESSION_STORE_URL to an address."
            )
    return address, found


@sensitive_variables()
def with_login(
    address: str, *, username: object = None, password: object = None, db: object = None
) -> str:
    """Return an address with these parts instead of its own."""
    parts = urlsplit(address)
    user = parts.username or "" if username is None else quote(str(username), safe="")
    secret = parts.password or "" if password is None else quote(str(password), safe="")
    userinfo = f"{user}{':' if secret else ''}{secret}@" if user or secret else ""
    host = parts.netloc.rpartition("@")[2]
    path = parts.path if db is None else f"/{db}"
    return parts._replace(netloc=f"{userinfo}{host}", path=path).geturl()
