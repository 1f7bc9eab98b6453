"""Django's caches on the servers of this run, each with keys of its own."""

import os
import secrets
from urllib.parse import urlsplit

import pytest

PICKLED = "django.core.cache.backends."
SERVERS = {
    "redis": "TEST_REDIS_URL",
    "django_redis": "TEST_REDIS_URL",
    "django_redis_json": "TEST_REDIS_URL",
    "pymemcache": "TEST_MEMCACHED_URL",
    "pylibmc": "TEST_MEMCACHED_URL",
}
#: Whose server compares before it sets.
COMPARING = ("locmem", *SERVERS, "database")
#: Every kind of cache, those without such a server last.
KINDS = (*COMPARING, "files", "unknown")


def cache_settings(kind, directory=None):
    """The entry of CACHES, or a skipped test if there is no such server or client."""
    settings = {
        "locmem": {"BACKEND": PICKLED + "locmem.LocMemCache", "LOCATION": secrets.token_hex(4)},
        "database": {"BACKEND": PICKLED + "db.DatabaseCache", "LOCATION": "cache table"},
        "files": {"BACKEND": PICKLED + "filebased.FileBasedCache", "LOCATION": str(directory)},
        "unknown": {"BACKEND": "cache_backends.OwnCache", "LOCATION": secrets.token_hex(4)},
    }.get(kind)
    if settings is not None:
        return settings
    address = os.environ.get(SERVERS[kind])
    if not address:
        pytest.skip(f"{SERVERS[kind]} is not set")
    prefix = {"KEY_PREFIX": secrets.token_hex(4)}
    if kind == "redis":
        return prefix | {"BACKEND": PICKLED + "redis.RedisCache", "LOCATION": address}
    if kind.startswith("django_redis"):
        options = {}
        if kind == "django_redis_json":
            options = {
                "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
                "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor",
            }
        backend = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": address}
        return prefix | backend | {"OPTIONS": options}
    if kind == "pylibmc":
        pytest.importorskip("pylibmc")
    name = {"pymemcache": "PyMemcacheCache", "pylibmc": "PyLibMCCache"}[kind]
    location = urlsplit(address).netloc
    return prefix | {"BACKEND": PICKLED + "memcached." + name, "LOCATION": location}


def __getattr__(name):
    # Made when Django asks for it, which is when it has settings.
    if name != "OwnCache":
        raise AttributeError(name)
    from django.core.cache.backends.locmem import LocMemCache

    class OwnCache(LocMemCache):
        """A cache of the project's own: nothing is known of how it works."""

        def get(self, key, default=None, version=None):
            return super().get(key, default, version)

    globals()[name] = OwnCache
    return OwnCache
