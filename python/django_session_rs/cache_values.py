"""What the ``cache`` and ``cached_db`` engines keep in Django's caches and in django-redis.

:class:`CacheKeys` says under which key a session is kept, :class:`CacheCodec` what the bytes there
mean, and the functions what each backend makes of a timeout. Nothing here talks to a server, and
nothing a cache holds is ever executed. :func:`keys_of` and :func:`codec_of` take an entry of
``CACHES``::

    >>> from django_session_rs.cache_values import keys_of
    >>> cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "KEY_PREFIX": "shop"}
    >>> keys_of(cache).server_key("0123456789abcdef")
    'shop:1:django.contrib.sessions.cache0123456789abcdef'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from django.core.cache.backends.base import get_key_func

from django_session_rs._native import (
    CacheCodec,
    CacheKeys,
    UnwrappedValue,
    check_database_key,
    check_memcached_key,
    database_expires,
    django_redis_timeout,
    file_expiry,
    file_name,
    memcached_exptime,
    redis_timeout,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CacheCodec",
    "CacheKeys",
    "UnwrappedValue",
    "check_database_key",
    "check_memcached_key",
    "codec_of",
    "database_expires",
    "django_redis_timeout",
    "file_expiry",
    "file_name",
    "keys_of",
    "memcached_exptime",
    "redis_timeout",
]


_Name = TypeVar("_Name", bound=str)

_BACKENDS: dict[str, Literal["database", "django-redis", "file", "memcached", "redis"]] = {
    "django.core.cache.backends.db.DatabaseCache": "database",
    "django.core.cache.backends.filebased.FileBasedCache": "file",
    "django.core.cache.backends.memcached.PyLibMCCache": "memcached",
    "django.core.cache.backends.memcached.PyMemcacheCache": "memcached",
    "django.core.cache.backends.redis.RedisCache": "redis",
    "django_redis.cache.RedisCache": "django-redis",
}
_SERIALIZERS: dict[str, Literal["json", "msgpack", "pickle"]] = {
    "django_redis.serializers.json.JSONSerializer": "json",
    "django_redis.serializers.msgpack.MSGPackSerializer": "msgpack",
    "django_redis.serializers.pickle.PickleSerializer": "pickle",
}
_COMPRESSORS: dict[str, Literal["gzip", "identity", "lz4", "lzma", "zlib", "zstd"]] = {
    "django_redis.compressors.gzip.GzipCompressor": "gzip",
    "django_redis.compressors.identity.IdentityCompressor": "identity",
    "django_redis.compressors.lz4.Lz4Compressor": "lz4",
    "django_redis.compressors.lzma.LzmaCompressor": "lzma",
    "django_redis.compressors.zlib.ZlibCompressor": "zlib",
    "django_redis.compressors.zstd.ZStdCompressor": "zstd",
}


def keys_of(cache: Mapping[str, Any], engine: Literal["cache", "cached_db"] = "cache") -> CacheKeys:
    """Return the keys that ``engine`` uses in this entry of ``CACHES``.

    ``KEY_PREFIX``, ``VERSION`` and ``KEY_FUNCTION`` count; the latter is imported if it is a path.
    """
    key_function = cache.get("KEY_FUNCTION")
    return CacheKeys(
        engine,
        key_prefix=cache.get("KEY_PREFIX", ""),
        version=cache.get("VERSION", 1),
        key_function=None if key_function is None else get_key_func(key_function),
    )


def codec_of(cache: Mapping[str, Any], *, max_size: int = 64 << 20) -> CacheCodec:
    """Return the codec for the values in this entry of ``CACHES``.

    Raises ``ValueError`` for a backend, a serializer or a compressor that is not known here.
    """
    backend = _known(_BACKENDS, cache["BACKEND"])
    options = cache.get("OPTIONS") or {}
    protocol = int(options["PICKLE_VERSION"]) if "PICKLE_VERSION" in options else None
    if protocol is not None:
        # Below zero is the highest. Where 0 or 1 is asked for, 2 can be read as well.
        protocol = 5 if protocol < 0 else max(protocol, 2)
    if backend == "redis" and options.get("serializer") is not None:
        raise ValueError("the site has a serializer of its own")
    if backend != "django-redis":
        return CacheCodec(backend, max_size=max_size)
    serializer = "django_redis.serializers.pickle.PickleSerializer"
    compressor = "django_redis.compressors.identity.IdentityCompressor"
    return CacheCodec(
        backend,
        serializer=_known(_SERIALIZERS, options.get("SERIALIZER", serializer)),
        compressor=_known(_COMPRESSORS, options.get("COMPRESSOR", compressor)),
        pickle_protocol=protocol,
        max_size=max_size,
    )


def _known(names: dict[str, _Name], path: str) -> _Name:
    try:
        return names[path]
    except KeyError:
        raise ValueError(f"{path} is not known") from None
