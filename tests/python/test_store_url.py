"""The address that follows from a site's settings: nothing of them is left out in silence."""

from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_session_rs import store_url
from django_session_rs._native import Store

REDIS = "django.core.cache.backends.redis.RedisCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
PYLIBMC = "django.core.cache.backends.memcached.PyLibMCCache"
PYMEMCACHE = "django.core.cache.backends.memcached.PyMemcacheCache"


def of_database(vendor="postgresql", **values):
    settings = {"NAME": "site", "USER": "", "PASSWORD": "", "HOST": "", "PORT": "", **values}
    connection = SimpleNamespace(vendor=vendor, settings_dict=settings)
    return store_url.connection_url(connection, table="django_session")


def of_cache(**values):
    with override_settings(CACHES={"default": values}):
        return store_url.cache_url()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "postgres://localhost/site?table=django_session"),
        (
            {"HOST": "db.example", "PORT": 5433, "USER": "u", "PASSWORD": "p"},
            "postgres://u:p@db.example:5433/site?table=django_session",
        ),
        (
            {"HOST": "::1", "USER": "a@b", "PASSWORD": "p/:?#%é", "NAME": "a/b"},
            "postgres://a%40b:p%2F%3A%3F%23%25%C3%A9@[::1]/a%2Fb?table=django_session",
        ),
        (
            {"HOST": "/var/run/postgresql", "USER": "u"},
            "postgres://u@localhost/site?table=django_session&host=%2Fvar%2Frun%2Fpostgresql",
        ),
        (
            {"OPTIONS": {"sslmode": "verify-full", "options": "-c a=b", "isolation_level": 1}},
            "postgres://localhost/site?table=django_session&sslmode=verify-full&options=-c%20a%3Db",
        ),
        (
            {"OPTIONS": {"options": "-c a=b", "assume_role": "a \\ role"}},
            "postgres://localhost/site?table=django_session&options="
            + quote("-c a=b -c role=a\\ \\\\\\ role", safe=""),
        ),
        (
            {"vendor": "mysql", "HOST": "/tmp/mysql.sock", "OPTIONS": {"charset": "utf8mb4"}},
            "mysql://localhost/site?table=django_session&socket=%2Ftmp%2Fmysql.sock",
        ),
    ],
)
def test_the_address_of_a_database(values, expected):
    assert of_database(**values) == expected
    assert dict(parse_qsl(urlsplit(expected).query))["table"] == "django_session"


def test_a_database_whose_columns_hold_no_utc_is_refused():
    def check(vendor):
        connection = SimpleNamespace(vendor=vendor, timezone_name="America/New_York")
        store_url.check_time_zone(connection)

    with override_settings(USE_TZ=True):
        # A column of PostgreSQL is an instant, whatever zone the connection has.
        check("postgresql")
        for vendor in ("mysql", "sqlite"):
            with pytest.raises(ImproperlyConfigured, match="TIME_ZONE"):
                check(vendor)
    with override_settings(USE_TZ=False):
        # Naive dates are those of the site.
        check("mysql")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"BACKEND": REDIS, "LOCATION": "redis://h:1/2"}, "redis://h:1/2"),
        (
            {
                "BACKEND": REDIS,
                "LOCATION": ["redis://h:1", "redis://copy:1"],
                "KEY_PREFIX": "a b",
                "VERSION": 3,
            },
            "redis://h:1?prefix=a%20b&version=3",
        ),
        (
            {
                "BACKEND": REDIS,
                "LOCATION": "redis://h:1",
                "OPTIONS": {"username": "u", "password": "p@", "db": "5"},
            },
            "redis://u:p%40@h:1/5",
        ),
        (
            {
                "BACKEND": DJANGO_REDIS,
                "LOCATION": "rediss://:p@h:1/0",
                "OPTIONS": {
                    "CLIENT_CLASS": "django_redis.client.DefaultClient",
                    "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
                    "COMPRESSOR": "django_redis.compressors.zstd.ZStdCompressor",
                },
            },
            "rediss://:p@h:1/0?layout=django_redis&serializer=json&compressor=zstd",
        ),
        (
            {"BACKEND": PYMEMCACHE, "LOCATION": "a:11211;b:11211", "KEY_PREFIX": "x"},
            "memcached://a:11211,b:11211?prefix=x",
        ),
        ({"BACKEND": PYMEMCACHE, "LOCATION": ["a:1", "b:2"]}, "memcached://a:1,b:2"),
        (
            {
                "BACKEND": PYMEMCACHE,
                "LOCATION": "a:1",
                "OPTIONS": {"no_delay": True, "timeout": 2.5, "connect_timeout": None},
            },
            "memcached://a:1?timeout=2.5",
        ),
        (
            {
                "BACKEND": PYLIBMC,
                "LOCATION": ["a:1", "b:2"],
                "OPTIONS": {"binary": True, "behaviors": {"tcp_nodelay": True}},
            },
            "memcached://a:1,b:2?distribution=modula",
        ),
    ],
)
def test_the_address_of_a_cache(values, expected):
    assert of_cache(**values) == expected
    # It is one that a store takes.
    Store(expected, '{"SECRET_KEY": "a key"}').close()


def test_a_host_that_is_not_said_is_that_of_libpq(monkeypatch):
    monkeypatch.setenv("PGHOST", "db.example")
    assert of_database() == "postgres://db.example/site?table=django_session"
    monkeypatch.setenv("PGHOST", "/run/pg")
    assert "host=%2Frun%2Fpg" in of_database()
    monkeypatch.delenv("PGHOST")
    monkeypatch.setattr(Path, "exists", lambda path: path.name == ".s.PGSQL.5433")
    assert "host=%2Fvar%2Frun%2Fpostgresql" in of_database(PORT=5433)
    assert of_database(PORT=5434).startswith("postgres://localhost:5434/")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: of_database(OPTIONS={"passfile": "/secret"}), "'passfile' of DATABASES"),
        (lambda: of_database(OPTIONS={"service": "x"}), "'service' of DATABASES"),
        (lambda: of_cache(BACKEND=REDIS, KEY_FUNCTION="a.b"), "KEY_FUNCTION"),
        (lambda: of_cache(BACKEND=REDIS, OPTIONS={"pool_class": "a.b"}), "'pool_class'"),
        (lambda: of_cache(BACKEND=DJANGO_REDIS, OPTIONS={"SERIALIZER": "a.b"}), "'SERIALIZER'"),
        (lambda: of_cache(BACKEND="somebody.Else"), "has no store"),
        (lambda: of_database(HOST="a,b", PORT="1,2"), "several"),
        (lambda: of_cache(BACKEND=PYMEMCACHE, OPTIONS={"hasher": "a.b"}), "'hasher'"),
        (lambda: of_cache(BACKEND=PYLIBMC, OPTIONS={"behaviors": {"ketama": 1}}), "'behaviors'"),
        (lambda: of_cache(BACKEND=PYLIBMC, OPTIONS={"username": "u"}), "'username'"),
    ],
)
def test_what_has_no_counterpart_is_named_and_not_shown(call, words):
    with pytest.raises(ImproperlyConfigured, match=words) as caught:
        call()
    assert "secret" not in str(caught.value)
