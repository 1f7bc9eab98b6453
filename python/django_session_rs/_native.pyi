# ruff: noqa: PYI021 - the extension has its documentation here
from collections.abc import Callable, Sequence
from typing import Any, Literal, final

__all__ = [
    "CacheCodec",
    "CacheKeys",
    "DecodedSession",
    "SessionCodec",
    "UnwrappedValue",
    "__version__",
    "check_database_key",
    "check_memcached_key",
    "database_expires",
    "django_redis_timeout",
    "file_expiry",
    "file_name",
    "memcached_exptime",
    "redis_timeout",
]

__version__: str

@final
class SessionCodec:
    """Turns session data into the signed text of a ``session_data`` column, and back.

    The same as ``SessionBase.encode`` and ``decode`` of Django 4.0 and later, without a Django
    project: ``secret_key`` is ``SECRET_KEY`` and ``fallbacks`` is ``SECRET_KEY_FALLBACKS`` (4.1);
    an empty fallback key is skipped. ``compression`` is ``"fast"``, with texts at most 1.3 times as
    long as Django's, or ``"small"``, as short as Django's. A payload that inflates to more than
    ``max_size`` bytes is refused; Django has no such limit.

    Raises ``ValueError`` for an empty secret key or an unknown compression.
    """

    def __new__(
        cls,
        secret_key: str | bytes,
        *,
        fallbacks: Sequence[str | bytes] = ...,
        salt: str = "django.contrib.sessions.SessionStore",
        compression: Literal["fast", "small"] = "fast",
        max_size: int = 67108864,
    ) -> SessionCodec: ...
    @property
    def salt(self) -> str:
        """The salt: ``django.contrib.sessions.`` and the qualified name of the store's class."""

    def encode(self, data: Any, *, now: float | None = None) -> str:
        """Return ``payload:timestamp:signature``, with the JSON bytes that Django writes.

        ``now`` is Unix time, ``time.time()`` if left out.

        Raises what ``json.dumps`` raises for a value it cannot write: ``TypeError``,
        ``ValueError`` or ``RecursionError``.
        """

    def encode_bytes(self, payload: bytes, *, now: float | None = None) -> str:
        """As ``encode``, of bytes that a ``SESSION_SERIALIZER`` of the project's own wrote."""

    def decode(self, value: str) -> dict[str, Any]:
        """Return the session, once the signature has been checked. Its age is not limited.

        Raises ``django.core.signing.BadSignature`` if no key signed this text, and
        ``DecodeError`` or ``PayloadTooLargeError`` if what was signed is not a session.
        """

    def decode_any(self, value: str) -> Any:
        """As ``decode``, but JSON that is not an object is returned as it is.

        Django's ``SessionStore.decode`` does so.
        """

    def decode_bytes(self, value: str) -> bytes:
        """As ``decode``, but return the serialized bytes."""

    def inspect(self, value: str) -> DecodedSession:
        """As ``decode_any``, and tell which key signed the text, and when."""

@final
class DecodedSession:
    """What ``SessionCodec.inspect`` found."""

    @property
    def data(self) -> Any:
        """The session."""

    @property
    def fallback(self) -> int | None:
        """Index in ``fallbacks`` of the key that matched; ``None`` for the secret key itself."""

    @property
    def signed_at(self) -> int:
        """Unix time at which the text was signed, so usually when the session was last saved."""

    @property
    def compressed(self) -> bool:
        """Whether the payload was compressed."""

@final
class CacheKeys:
    """Makes the keys of one entry of ``CACHES`` for one session engine.

    ``key_function`` is called with the engine's key, ``key_prefix`` and ``version``, in this order.
    ``cache_key_prefix`` is for a site whose ``SessionStore`` has its own.
    """

    def __new__(
        cls,
        engine: Literal["cache", "cached_db"] = "cache",
        *,
        key_prefix: str = "",
        version: Any = None,
        key_function: Callable[[str, str, Any], str] | None = None,
        cache_key_prefix: str | None = None,
    ) -> CacheKeys: ...
    def cache_key(self, session_key: str) -> str:
        """Return what the engine asks the cache for."""

    def server_key(self, session_key: str) -> str:
        """Return what reaches the server (``BaseCache.make_key``)."""

@final
class CacheCodec:
    """Takes a session out of what a cache backend keeps, and back.

    ``"redis"`` is Django's own ``RedisCache`` and ``"django-redis"`` the other one, which alone has
    a ``serializer`` and a ``compressor``. A ``"database"`` is read as Django before 6.1 reads it,
    or with ``strict_base64`` as 6.1 does. A value that inflates to more than ``max_size`` bytes is
    refused; Django has no such limit.
    """

    def __new__(
        cls,
        backend: Literal["database", "django-redis", "file", "memcached", "redis"],
        *,
        serializer: Literal["json", "msgpack", "pickle"] = "pickle",
        compressor: Literal["gzip", "identity", "lz4", "lzma", "zlib", "zstd"] = "identity",
        strict_base64: bool = False,
        max_size: int = 67108864,
    ) -> CacheCodec: ...
    def unwrap(self, value: bytes | str, *, flags: int | None = None) -> UnwrappedValue:
        """Return the serialized session in a value: text for a database, else bytes.

        ``flags`` are memcached's; without them those of a pickle are assumed.

        Raises ``DecodeError`` or ``PayloadTooLargeError``.
        """

    def wrap(self, payload: bytes, *, expiry: float | None = None) -> bytes:
        """Wrap what a serializer wrote.

        ``expiry`` is the Unix time after which the entry is no more, ``None`` for never; only a
        ``"file"`` holds it, see ``file_expiry``.
        """

@final
class UnwrappedValue:
    """What ``CacheCodec.unwrap`` found."""

    @property
    def payload(self) -> bytes:
        """What the serializer wrote."""

    @property
    def serializer(self) -> str:
        """What wrote it: ``"json"``, ``"msgpack"`` or ``"pickle"``."""

    @property
    def compressed(self) -> bool:
        """Whether it was compressed."""

    @property
    def expiry(self) -> float | None:
        """Unix time after which a ``"file"`` is no more, ``None`` for never and all others."""

def check_memcached_key(server_key: str) -> None:
    """Raise ``django.core.cache.InvalidCacheKey`` if memcached does not take this key.

    It takes 250 bytes without spaces and control characters.
    """

def check_database_key(server_key: str) -> None:
    """Raise ``django.core.cache.InvalidCacheKey`` if a ``DatabaseCache`` cannot store this key.

    The column holds 255 characters. Django would drop the session without a word.
    """

def file_name(server_key: str) -> str:
    """Return the name of the file in which a ``FileBasedCache`` keeps this key."""

def redis_timeout(timeout: float) -> int:
    """Return the seconds that ``RedisCache`` sends as ``EX``; at 0 the entry is deleted."""

def django_redis_timeout(timeout: float) -> int:
    """Return the milliseconds that django-redis sends as ``PX``; at 0 the entry is deleted."""

def memcached_exptime(timeout: float, now: float) -> int:
    """Return the expiry that memcached gets: absolute beyond 30 days, -1 for at once."""

def file_expiry(timeout: float, now: float) -> float:
    """Return the absolute expiry that a ``FileBasedCache`` writes before the value."""

def database_expires(timeout: float, now: float) -> int:
    """Return the Unix time in the column ``expires`` of a ``DatabaseCache``."""
