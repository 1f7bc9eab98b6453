# ruff: noqa: A002, PYI021 - `format` is its name; the extension has its documentation here
import datetime
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, final, type_check_only

from typing_extensions import Self, disjoint_base

__all__ = [
    "AuthHashMatch",
    "CacheCodec",
    "CacheKeys",
    "CookieSigner",
    "DecodedSession",
    "Diagnosis",
    "PasswordResetTokenGenerator",
    "SessionCodec",
    "Signer",
    "Store",
    "StoredSession",
    "TimestampSigner",
    "UnsignedValue",
    "UnwrappedValue",
    "__version__",
    "check_database_key",
    "check_memcached_key",
    "database_expires",
    "django_redis_timeout",
    "dumps",
    "file_expiry",
    "file_name",
    "get_cookie_signer",
    "loads",
    "loads_safe",
    "memcached_exptime",
    "pickle_dumps",
    "redis_timeout",
    "session_auth_hash",
    "verify_session_auth_hash",
]

__version__: str

@final
class SessionCodec:
    """Turns session data into the signed text of a ``session_data`` column, and back.

    The same as ``SessionBase.encode`` and ``decode`` of Django, without a Django project:
    ``secret_key`` is ``SECRET_KEY`` and ``fallbacks`` is ``SECRET_KEY_FALLBACKS`` (4.1); an empty
    fallback key is skipped. ``compression`` is ``"fast"``, with texts at most 1.3 times as long as
    Django's, or ``"small"``, as short as Django's. A payload that inflates to more than
    ``max_size`` bytes is refused; Django has no such limit.

    ``format`` is the form that is written: ``"signed"`` (3.1 and later), ``"legacy"`` (1.3 to 3.0),
    ``"signed_sha1"`` (signed cookies of 1.4 to 3.0) or ``"antique"`` (1.0 to 1.2). It and today's
    are read; weaker forms, and another serializer than ``serializer``, only where ``accept`` names
    them. Pickles are read by ``django_session_rs.pickle.loads_safe``, and nothing in them is
    executed. ``legacy_salt`` is for a store class with a ``key_salt`` of its own.

    Raises ``ValueError`` for an empty secret key or a name that is not known.
    """

    def __new__(
        cls,
        secret_key: str | bytes,
        *,
        fallbacks: Sequence[str | bytes] = ...,
        salt: str = "django.contrib.sessions.SessionStore",
        serializer: Literal["json", "pickle"] = "json",
        accept: Sequence[
            Literal["antique", "legacy", "signed", "signed_sha1", "json", "pickle"]
        ] = ...,
        format: Literal["antique", "legacy", "signed", "signed_sha1"] = "signed",
        legacy_salt: str | None = None,
        pickle_protocol: int = 4,
        compression: Literal["fast", "small"] = "fast",
        max_size: int = 67108864,
    ) -> SessionCodec: ...
    @property
    def salt(self) -> str:
        """The salt: ``django.contrib.sessions.`` and the qualified name of the store's class."""

    @property
    def format(self) -> str:
        """The form that is written."""

    @property
    def serializer(self) -> str:
        """The serializer that writes."""

    def encode(self, data: Any, *, now: float | None = None) -> str:
        """Return ``payload:timestamp:signature``, with the JSON bytes that Django writes.

        ``now`` is Unix time, ``time.time()`` if left out.

        Raises what ``json.dumps`` or ``pickle.dumps`` raises for a value it cannot write.
        """

    def encode_bytes(self, payload: bytes, *, now: float | None = None) -> str:
        """As ``encode``, of bytes that a ``SESSION_SERIALIZER`` of the project's own wrote."""

    def decode(
        self,
        value: str,
        *,
        max_age: float | datetime.timedelta | None = None,
        now: float | None = None,
    ) -> dict[str, Any]:
        """Return the session, once the signature has been checked.

        Its age is limited by ``max_age`` only, as that of the ``signed_cookies`` engine is by the
        age of the cookie; forms before 3.1 do not say how old they are.

        Raises ``django.core.signing.BadSignature`` if no key signed this text, ``SignatureExpired``
        if it is too old, and ``DecodeError`` or ``PayloadTooLargeError`` if what was signed is not
        a session.
        """

    def decode_any(self, value: str) -> Any:
        """As ``decode``, but JSON that is not an object is returned as it is.

        Django's ``SessionStore.decode`` does so.
        """

    def decode_bytes(self, value: str) -> bytes:
        """As ``decode``, but return the serialized bytes."""

    def inspect(
        self,
        value: str,
        *,
        max_age: float | datetime.timedelta | None = None,
        now: float | None = None,
    ) -> DecodedSession:
        """As ``decode_any``, and tell which form it was, which key signed it, and when."""

    def diagnose(
        self,
        value: str | bytes,
        *,
        salts: Sequence[str] = ...,
        max_age: float | datetime.timedelta | None = None,
        now: float | None = None,
    ) -> Diagnosis | None:
        """Tell why ``decode`` fails on this; ``None`` if it does not.

        ``salts`` are tried beside those that Django has: whole ones, names of store classes, or
        names of signed cookies. It takes some twenty times as long as decoding.
        """

@final
class Diagnosis:
    """Why a text is no session: what ``SessionCodec.diagnose`` found."""

    @property
    def reason(self) -> str:
        """A word for programs: ``wrong_key``, ``wrong_salt``, ``truncated``, ``expired``, ...

        The command's page, docs/command.md, has them all.
        """

    @property
    def message(self) -> str:
        """A sentence that ends with what to do. It holds no part of the session, and no key."""

    @property
    def format(self) -> str | None:
        """The form that the text is or seems to be in, where that is known."""

    @property
    def salt(self) -> str | None:
        """The salt that fits, for ``wrong_salt``."""

@final
class DecodedSession:
    """What ``SessionCodec.inspect`` found."""

    @property
    def data(self) -> Any:
        """The session."""

    @property
    def format(self) -> Literal["signed", "signed_sha1", "legacy", "antique"]:
        """The form it was in."""

    @property
    def algorithm(self) -> Literal["md5", "sha1", "sha256"]:
        """The hash of its signature."""

    @property
    def serializer(self) -> Literal["json", "pickle"]:
        """The serializer that wrote it."""

    @property
    def fallback(self) -> int | None:
        """Index in ``fallbacks`` of the key that matched; ``None`` for the secret key itself."""

    @property
    def signed_at(self) -> int | None:
        """Unix time at which the text was signed, so usually when the session was last saved.

        Forms before 3.1 do not say.
        """

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
    """Turns what a cache backend keeps into a session, and back.

    ``"redis"`` is Django's own ``RedisCache`` and ``"django-redis"`` the other one, which alone has
    a ``serializer`` and a ``compressor``. ``pickle_protocol`` is 5 if left out, and 4 for
    django-redis. A ``"database"`` is read as Django before 6.1 reads it, or with ``strict_base64``
    as 6.1 does. A value that inflates to more than ``max_size`` bytes is refused; Django has no
    such limit.
    """

    def __new__(
        cls,
        backend: Literal["database", "django-redis", "file", "memcached", "redis"],
        *,
        serializer: Literal["json", "msgpack", "pickle"] = "pickle",
        compressor: Literal["gzip", "identity", "lz4", "lzma", "zlib", "zstd"] = "identity",
        pickle_protocol: int | None = None,
        strict_base64: bool = False,
        max_size: int = 67108864,
    ) -> CacheCodec: ...
    def decode(self, value: bytes | str, *, flags: int | None = None) -> dict[Any, Any]:
        """Return the session in a value: text for a database, else bytes.

        ``flags`` are memcached's; without them those of a pickle are assumed. A pickle is read as
        ``django_session_rs.pickle.loads_safe`` reads it: nothing is executed.

        Raises ``DecodeError`` or ``PayloadTooLargeError``.
        """

    def encode(self, data: dict[Any, Any], *, expiry: float | None = None) -> bytes:
        """Return what the backend keeps of a session.

        ``expiry`` is the Unix time after which the entry is no more, ``None`` for never; only a
        ``"file"`` holds it, see ``file_expiry``.

        Raises what the serializer raises for an object it cannot write: ``TypeError``,
        ``ValueError``, ``pickle.PicklingError``; and ``TypeError`` for what msgpack writes and then
        refuses to read.
        """

    def unwrap(self, value: bytes | str, *, flags: int | None = None) -> UnwrappedValue:
        """As ``decode``, but return the serialized session."""

    def wrap(self, payload: bytes, *, expiry: float | None = None) -> bytes:
        """As ``encode``, of a session that a serializer has written already."""

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

@type_check_only
class _Serializer(Protocol):
    """What turns objects into bytes and back, as ``signing.JSONSerializer`` does."""

    def dumps(self, obj: Any, /) -> bytes: ...
    def loads(self, data: bytes, /) -> Any: ...

@type_check_only
class _User(Protocol):
    """What of a user is in a token; a user of ``django.contrib.auth`` has it all."""

    @property
    def pk(self) -> Any: ...
    @property
    def password(self) -> str: ...
    @property
    def last_login(self) -> datetime.datetime | None: ...

@disjoint_base
class Signer:
    """Signs and checks text with a salt, as ``django.core.signing.Signer``.

    ``key`` and ``fallback_keys`` are ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``; without a key
    both are those of the Django settings, with one only what is given counts. ``salt`` is by
    default the one that Django's class of the same name has, and for a subclass its dotted name.
    ``algorithm`` is ``"sha256"`` or ``"sha1"``; signatures of ``accept_algorithms`` are accepted
    too, as Django 3.1 and 3.2 did with SHA-1. A payload that inflates to more than ``max_size``
    bytes is refused.

    Raises ``ValueError`` for an empty key or an unsafe separator, and
    ``django.utils.crypto.InvalidAlgorithm``, which is one, for another algorithm.
    """

    def __new__(
        cls,
        *,
        key: str | bytes | None = None,
        sep: str = ":",
        salt: str | None = None,
        algorithm: str | None = None,
        fallback_keys: Iterable[str | bytes] | None = None,
        accept_algorithms: Sequence[str] = ...,
        max_size: int = 67108864,
    ) -> Self: ...
    @property
    def salt(self) -> str:
        """The salt, without the word that Django adds."""

    @property
    def sep(self) -> str:
        """What stands between a value and its signature."""

    @property
    def algorithm(self) -> str:
        """The algorithm that signs."""

    def signature(self, value: Any) -> str:
        """Return the signature alone."""

    def sign(self, value: Any) -> str:
        """Return ``value:signature``; a value that is no text is signed as ``str`` shows it."""

    def unsign(self, signed_value: str) -> str:
        """Return what was signed.

        Raises ``django.core.signing.BadSignature`` if no key matches.
        """

    def inspect(self, signed_value: str) -> UnsignedValue:
        """As ``unsign``, and tell which key and which algorithm it was."""

    def sign_object(
        self, obj: Any, serializer: type[_Serializer] | None = None, compress: bool = False
    ) -> str:
        """Return an object as signed text that fits into a URL.

        Without a ``serializer`` it is JSON with the bytes that Django writes. ``compress`` makes it
        shorter where zlib can.
        """

    def unsign_object(self, signed_obj: str, serializer: type[_Serializer] | None = None) -> Any:
        """Return the object that ``sign_object`` was given.

        Raises ``BadSignature``, and ``DecodeError`` or ``PayloadTooLargeError`` if what was signed
        is no such object.
        """

class TimestampSigner(Signer):
    """Signs text together with the time, as ``django.core.signing.TimestampSigner``.

    The arguments are those of ``Signer``. ``now`` is Unix time, ``time.time()`` if left out;
    ``max_age`` is a number of seconds or a ``timedelta``.
    """

    def __new__(
        cls,
        *,
        key: str | bytes | None = None,
        sep: str = ":",
        salt: str | None = None,
        algorithm: str | None = None,
        fallback_keys: Iterable[str | bytes] | None = None,
        accept_algorithms: Sequence[str] = ...,
        max_size: int = 67108864,
    ) -> Self: ...
    def sign(self, value: Any, *, now: float | None = None) -> str:
        """Return ``value:timestamp:signature``."""

    def unsign(  # pyright: ignore - Django's own names for it differ so
        self,
        value: str,
        max_age: float | datetime.timedelta | None = None,
        *,
        now: float | None = None,
    ) -> str:
        """Return what was signed.

        Raises ``BadSignature`` if no key matches, ``SignatureExpired`` if it is older than
        ``max_age``, and ``DecodeError`` if it has no time stamp.
        """

    def inspect(
        self,
        signed_value: str,
        max_age: float | datetime.timedelta | None = None,
        *,
        now: float | None = None,
    ) -> UnsignedValue:
        """As ``unsign``, and tell when it was signed, with which key and algorithm."""

    def sign_object(
        self,
        obj: Any,
        serializer: type[_Serializer] | None = None,
        compress: bool = False,
        *,
        now: float | None = None,
    ) -> str:
        """As ``Signer.sign_object``, with the time."""

    def unsign_object(
        self,
        signed_obj: str,
        serializer: type[_Serializer] | None = None,
        max_age: float | datetime.timedelta | None = None,
        *,
        now: float | None = None,
    ) -> Any:
        """As ``Signer.unsign_object``; raises ``SignatureExpired`` beyond ``max_age``."""

@final
class Store:
    """A store of the Rust crate: each step for a thread that waits, and to be awaited.

    ``url`` is the address (``docs/settings.md``), ``settings`` what ``manage.py
    export_session_settings`` writes, keys included. Nothing is connected before it is needed.
    Threads and event loops can share it; a forked process cannot, and gets a ``RuntimeError``.
    Whoever stops waiting stops nothing: a step that has begun is carried out.

    ``cookie_age`` is in seconds; the expire date follows from it and the data. Raises
    ``StoreUnavailableError`` if the server cannot be asked, ``ImproperlyConfigured`` for an
    address or a setting that is of no use.
    """

    def __new__(cls, url: str, settings: str, *, merges: bool = True) -> Self:
        """Make a store.

        Without ``merges`` a session does not get a new key if others have saved it since it was
        loaded: ``SessionConflictError``. With it, what they have saved moves along.
        """

    def load(self, session_key: str) -> StoredSession | None:
        """Return the session, or ``None`` if there is none or it has expired.

        Raises ``BadSignature`` or ``DecodeError`` for one that cannot be read.
        """

    def aload(self, session_key: str) -> Awaitable[StoredSession | None]:
        """See ``load()``."""

    def load_latest(self, session_key: str) -> StoredSession | None:
        """Return the session as it is stored by now, which a cached copy may not be.

        ``None`` if there is none, it has expired or nobody can read it.
        """

    def aload_latest(self, session_key: str) -> Awaitable[StoredSession | None]:
        """See ``load_latest()``."""

    def as_stored(self, data: Any) -> Any:
        """Return data as it is once it was stored and loaded."""

    def exists(self, session_key: str) -> bool:
        """Tell whether the key is taken, by an expired session too."""

    def aexists(self, session_key: str) -> Awaitable[bool]:
        """See ``exists()``."""

    def create(self, session_key: str, data: Any, cookie_age: int) -> StoredSession:
        """Add a session; raises ``CreateError`` if the key is taken."""

    def acreate(self, session_key: str, data: Any, cookie_age: int) -> Awaitable[StoredSession]:
        """See ``create()``."""

    def save(
        self,
        session_key: str,
        data: Any,
        stored: StoredSession | None,
        touched: Sequence[str],
        cookie_age: int,
    ) -> StoredSession:
        """Replace a session that was loaded as ``stored``, or whatever is there.

        What others have saved since is merged; names in ``touched`` were set or removed, to
        whatever value. Raises ``UpdateError`` if it is gone, and
        ``SessionConflictError`` if ``SESSION_ON_CONFLICT`` forbids to merge.
        """

    def asave(
        self,
        session_key: str,
        data: Any,
        stored: StoredSession | None,
        touched: Sequence[str],
        cookie_age: int,
    ) -> Awaitable[StoredSession]:
        """See ``save()``."""

    def cycle_key(
        self,
        session_key: str,
        data: Any,
        stored: StoredSession | None,
        touched: Sequence[str],
        cookie_age: int,
    ) -> StoredSession:
        """Move a session to a new key; raises ``UpdateError`` if its user has logged out.

        Without ``merges``, ``SessionConflictError`` if others have saved it.
        """

    def acycle_key(
        self,
        session_key: str,
        data: Any,
        stored: StoredSession | None,
        touched: Sequence[str],
        cookie_age: int,
    ) -> Awaitable[StoredSession]:
        """See ``cycle_key()``."""

    def delete(self, session_key: str) -> None:
        """Remove a session; one that is not there is no error."""

    def adelete(self, session_key: str) -> Awaitable[None]:
        """See ``delete()``."""

    def delete_stored(self, session_key: str, stored: StoredSession) -> bool:
        """Remove a session if it still is what was loaded as ``stored``; tell whether it was."""

    def adelete_stored(self, session_key: str, stored: StoredSession) -> Awaitable[bool]:
        """See ``delete_stored()``."""

    def clear_expired(self) -> int:
        """Remove all expired sessions and return their number; 0 where they end by themselves."""

    def aclear_expired(self) -> Awaitable[int]:
        """See ``clear_expired()``."""

    def afind_row(self, statement: str, key: str) -> Awaitable[list[str | None] | None]:
        """Return the first row that a statement finds in the store's database, or ``None``.

        The columns have to be texts; ``key`` is the statement's one parameter. Raises
        ``StoreError`` if the store is no database.
        """

    def close(self) -> None:
        """End threads and connections; what is under way has a second."""

@final
class StoredSession:
    """A session as it was loaded or saved last."""

    @property
    def session_key(self) -> str:
        """The key under which it is."""

    @property
    def merged(self) -> bool:
        """Whether it differs from what was to be saved: others have changed it."""

    def data(self) -> Any:
        """Return what is in it, made anew each time."""

@final
class UnsignedValue:
    """What the ``inspect`` of a signer found."""

    @property
    def value(self) -> str:
        """The text that was signed."""

    @property
    def fallback(self) -> int | None:
        """Index in ``fallback_keys`` of the key that matched; ``None`` for the key itself."""

    @property
    def algorithm(self) -> str:
        """The algorithm of the signature."""

    @property
    def signed_at(self) -> int | None:
        """Unix time at which it was signed; ``None`` from a ``Signer``."""

    @property
    def salt_rule(self) -> str | None:
        """The rule of a ``CookieSigner``; ``None`` from the others."""

def dumps(
    obj: Any,
    key: str | bytes | None = None,
    salt: str = "django.core.signing",
    serializer: type[_Serializer] | None = None,
    compress: bool = False,
    *,
    now: float | None = None,
) -> str:
    """Return an object as signed and dated text, as ``django.core.signing.dumps``."""

def loads(
    s: str,
    key: str | bytes | None = None,
    salt: str = "django.core.signing",
    serializer: type[_Serializer] | None = None,
    max_age: float | datetime.timedelta | None = None,
    fallback_keys: Iterable[str | bytes] | None = None,
    *,
    accept_algorithms: Sequence[str] = ...,
    now: float | None = None,
) -> Any:
    """Return the object that ``dumps`` was given, as ``django.core.signing.loads``.

    Raises what ``TimestampSigner.unsign_object`` raises.
    """

def get_cookie_signer(
    salt: str = "django.core.signing.get_cookie_signer",
    *,
    key: str | bytes | None = None,
    fallback_keys: Iterable[str | bytes] | None = None,
) -> TimestampSigner:
    """Return the signer of ``django.core.signing.get_cookie_signer``.

    Its keys are those given, or those of the settings, behind ``django.http.cookies``.
    """

@final
class CookieSigner:
    """Signs and checks the values of one cookie.

    They are those of ``HttpResponse.set_signed_cookie`` and ``HttpRequest.get_signed_cookie``, with
    the same ``salt``. ``salt_rule`` is ``"v2"``, what Django writes since 5.2.15, 6.0.6 and 6.1, or
    ``"legacy"``, what it wrote before. ``accept_salt_rules=["legacy"]`` is what the setting
    ``SIGNED_COOKIE_LEGACY_SALT_FALLBACK`` allows: a value signed by that rule is good for every
    cookie whose name and salt make the same text. Keys and algorithms are as in ``Signer``.
    """

    def __new__(
        cls,
        name: str,
        salt: str = "",
        *,
        key: str | bytes | None = None,
        fallback_keys: Iterable[str | bytes] | None = None,
        salt_rule: Literal["v2", "legacy"] = "v2",
        accept_salt_rules: Sequence[Literal["v2", "legacy"]] = ...,
        algorithm: str | None = None,
        accept_algorithms: Sequence[str] = ...,
    ) -> CookieSigner: ...
    def sign(self, value: Any, *, now: float | None = None) -> str:
        """Return the value to set the cookie to."""

    def unsign(
        self,
        value: str,
        max_age: float | datetime.timedelta | None = None,
        *,
        now: float | None = None,
    ) -> str:
        """Return what was signed.

        Raises ``BadSignature``, ``SignatureExpired`` or ``DecodeError``.
        """

    def inspect(
        self,
        value: str,
        max_age: float | datetime.timedelta | None = None,
        *,
        now: float | None = None,
    ) -> UnsignedValue:
        """As ``unsign``, and tell when it was signed, with which key, algorithm and rule."""

@final
class PasswordResetTokenGenerator:
    """Makes and checks the tokens in password-reset links, as ``django.contrib.auth.tokens``.

    ``key`` and ``fallback_keys`` are as in ``Signer``. ``timeout`` is ``PASSWORD_RESET_TIMEOUT`` in
    seconds: that of the settings without a key, and 3 days with one. ``form`` is
    ``"seconds_and_email"``, what Django makes since 3.2, ``"seconds"`` for 3.1, or ``"days"`` for
    what went before; ``accept_forms`` are accepted too. A user is any object with ``pk``,
    ``password``, ``last_login`` and an e-mail address as Django's models have it.
    """

    def __new__(
        cls,
        *,
        key: str | bytes | None = None,
        fallback_keys: Iterable[str | bytes] | None = None,
        timeout: int | None = None,
        form: Literal["seconds_and_email", "seconds", "days"] = "seconds_and_email",
        accept_forms: Sequence[Literal["seconds_and_email", "seconds", "days"]] = ...,
        algorithm: str | None = None,
        accept_algorithms: Sequence[str] = ...,
    ) -> PasswordResetTokenGenerator: ...
    def make_token(self, user: _User, *, now: datetime.datetime | None = None) -> str:
        """Return a token for the user as it is now.

        ``now`` is local time in ``TIME_ZONE``, ``datetime.now()`` if left out.
        """

    def check_token(
        self, user: _User | None, token: str | None, *, now: datetime.datetime | None = None
    ) -> bool:
        """Return whether the token is one for the user as it is now, and not too old."""

def session_auth_hash(
    password: str, *, key: str | bytes | None = None, algorithm: str | None = None
) -> str:
    """Return what ``login`` stores as ``_auth_user_hash`` for a user with this password field.

    Django used ``algorithm="sha1"`` up to 3.0.
    """

def verify_session_auth_hash(
    stored: str | None,
    password: str,
    *,
    key: str | bytes | None = None,
    fallback_keys: Iterable[str | bytes] | None = None,
    algorithm: str | None = None,
    accept_algorithms: Sequence[str] = ...,
) -> AuthHashMatch | None:
    """Tell how ``_auth_user_hash`` was made for the password field that the user has now.

    ``None`` means not at all: the session is not a login any more. ``algorithm`` is the one that
    the site's Django stores, ``accept_algorithms`` are accepted too, as 3.1 and 3.2 did with SHA-1.
    """

@final
class AuthHashMatch:
    """What ``verify_session_auth_hash`` found."""

    @property
    def fallback(self) -> int | None:
        """Index in ``fallback_keys`` of the key that matched; ``None`` for the key itself."""

    @property
    def algorithm(self) -> str:
        """The algorithm of the hash."""

    @property
    def needs_upgrade(self) -> bool:
        """Whether Django would store another hash for the same login now."""

def loads_safe(
    data: bytes | bytearray | memoryview,
    *,
    encoding: str | None = None,
    max_size: int = 67108864,
    max_nodes: int = 1048576,
) -> Any:
    """Return the object of a pickle, without importing or calling anything that it names.

    What becomes what is told in ``django_session_rs.pickle``. A Python 2 string is ``str`` if it is
    ASCII and ``bytes`` if not; with an ``encoding`` it is decoded, and with ``"bytes"`` left alone,
    as by ``pickle.loads``. ``max_size`` are bytes of the pickle, ``max_nodes`` objects in it.

    Raises ``DecodeError`` if it is no pickle or refers to something outside itself,
    ``PayloadTooLargeError`` beyond a limit, and ``LookupError`` for an unknown encoding.
    """

def pickle_dumps(obj: Any, *, protocol: int = 4) -> bytes:
    """Return a pickle of an object, opaque ones included, in a protocol from 2 to 5.

    Raises what ``pickle.dumps`` raises.
    """

def _rewrite_pickle(data: bytes) -> bytes:
    """Return the pickle as it is written back, for tests."""

def _command(arguments: Sequence[str]) -> int: ...
