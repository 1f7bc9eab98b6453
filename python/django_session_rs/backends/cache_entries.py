# ruff: noqa: ARG002, SLF001 - an interface; values are compared where Django's backends keep them
"""What the engines do with one of Django's caches: read an entry, replace it if it is unchanged.

Keys, values and timeouts are those of the cache, byte for byte; only the way to the server is
shorter. Django's caches have no operation that compares before it sets, so there is an adapter for
each backend whose server has one: Django's own for Redis, memcached, local memory and the database,
and django-redis. Any other cache is read and then set, with a moment in between.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import pickle
import time
import zlib
from contextlib import contextmanager
from datetime import datetime
from datetime import timezone as datetime_timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from django import db
from django.conf import settings
from django.core.cache.backends.base import InvalidCacheKey
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import PyLibMCCache, PyMemcacheCache
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from django.db import connections, router

from django_session_rs.exceptions import CorruptSessionError, StoreError, StoreUnavailableError
from django_session_rs.merge import same_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.core.cache.backends.base import BaseCache

__all__ = ["Entries", "Entry", "Written", "entries_of"]


class Entry(NamedTuple):
    """An entry of a cache, as it was read or written."""

    #: The value, which is the reader's own.
    value: Any
    #: The value as ``Entries.loads`` reads it once more.
    snapshot: Any
    #: Which state of the entry it is; ``None`` if the server did not say.
    revision: Any


class Written(enum.Enum):
    """What came of a write that depends on what is there."""

    #: There is an entry, and it is not the one that was expected.
    CHANGED = "changed"
    #: It is done.
    DONE = "done"
    #: There is no entry.
    MISSING = "missing"


# What reading a pickle, a compressed value or JSON raises if it is none.
UNREADABLE = (
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zlib.error,
)


@contextmanager
def answering(*keys: str) -> Iterator[None]:
    """Raise whatever a client raises as a ``StoreUnavailableError``, whose cause it is.

    If its text names one of the keys, which some clients do, the cause is its class only.
    """
    try:
        yield
    except (InvalidCacheKey, StoreError):
        raise
    except Exception as error:  # noqa: BLE001 - clients have errors of their own
        raise StoreUnavailableError(reason_of(error)) from without_keys(error, *keys)


def class_of(error: BaseException) -> str:
    """Return the name of an error's class, to be told where its text may hold what is secret."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"


def without_keys(error: Exception, *keys: str) -> Exception:
    """Return an error that may be shown: this one, or its class if its text has one of the keys."""
    return StoreError(class_of(error)) if _names(error, keys) else error


def _names(error: BaseException | None, keys: Sequence[str]) -> bool:
    """Whether an error, or one that led to it, has one of these keys in its text."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = f"{error} {error!r}"
        if any(key and key in text for key in keys):
            return True
        error = error.__cause__ or error.__context__
    return False


BUSY = frozenset({"BusyLoadingError", "MaxConnectionsError", "TryAgainError", "ClusterDownError"})
REFUSED = frozenset({"AuthenticationError", "AuthorizationError", "NoPermissionError"})
UNREACHABLE = frozenset(
    {
        "ConnectionError",
        "ConnectionInterrupted",
        "HostLookupError",
        "MasterNotFoundError",
        "MemcacheUnexpectedCloseError",
        "NoServers",
        "ReadError",
        "ServerDead",
        "ServerDown",
        "SlaveNotFoundError",
        "SocketCreateError",
        "UnixSocketError",
        "UnknownReadFailure",
        "WriteError",
    }
)
TIMED_OUT = frozenset({"TimeoutError", "Timeout"})


def reason_of(error: BaseException) -> str:
    """Return the reason of an outage, by the classes of a client's error.

    Clients are known by the names of their classes: which of them is installed is not known here.
    """
    names = [kind.__name__ for kind in type(error).__mro__]
    for reason, known in [
        ("busy", BUSY),
        ("refused", REFUSED),
        ("timed_out", TIMED_OUT),
        ("unreachable", UNREACHABLE),
    ]:
        if known.intersection(names):
            return reason
    if isinstance(error, (OSError, db.InterfaceError, db.OperationalError)):
        return "unreachable"
    # pymemcache has no class of its own for it.
    return "unreachable" if type(error).__name__ == "MemcacheError" else "refused"


class Entries:
    """The entries of a cache that cannot compare: each is read and then set.

    A write of somebody else in the moment between the two is overwritten. Timeouts are whole
    seconds from now on, as ``get_expiry_age()`` has them; one that is not positive is over.
    """

    #: Whether another thread should wait for the answers.
    blocks = True
    #: Whether an entry is compared and replaced in one step.
    compares = False

    def __init__(self, cache: BaseCache) -> None:
        self.cache: Any = cache

    def dumps(self, value: Any) -> Any:
        """Return a value in a form that ``loads`` reads, as often as it is asked."""
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def loads(self, snapshot: Any) -> Any:
        """Return the value of ``dumps``, as it would come out of the cache."""
        return pickle.loads(snapshot)  # noqa: S301 - of `dumps`, or what Django itself would load

    def get(self, key: str, *, latest: bool = False) -> Entry | None:
        """Return the entry under a key; not that of a replica if the latest is wanted.

        Raises ``CorruptSessionError`` if there is one that cannot be read.
        """
        value = self._get(key)
        if value is None:
            return None
        snapshot = self.dumps(value)
        return Entry(value, snapshot, snapshot)

    def has_key(self, key: str) -> bool:
        """Tell whether there is an entry."""
        with answering(key):
            return bool(self.cache.has_key(key))

    def add(self, key: str, value: Any, timeout: int) -> Entry | None:
        """Add an entry where there is none; ``None`` if there is one."""
        snapshot = self.dumps(value)
        with answering(key):
            added = self.cache.add(key, value, timeout)
        return Entry(value, snapshot, snapshot) if added else None

    def replace(
        self, key: str, value: Any, timeout: int, revision: Any = None
    ) -> tuple[Written, Entry]:
        """Replace an entry: any, or the one of this revision."""
        snapshot = self.dumps(value)
        entry = Entry(value, snapshot, snapshot)
        found = self._compare(key, revision)
        if found is Written.DONE:
            with answering(key):
                self.cache.set(key, value, timeout)
        return found, entry

    def delete(self, key: str, revision: Any = None) -> Written:
        """Remove an entry: any, or the one of this revision."""
        if revision is not None:
            found = self._compare(key, revision)
            if found is not Written.DONE:
                return found
        with answering(key):
            return Written.DONE if self.cache.delete(key) else Written.MISSING

    def rotate(
        self, key: str, new_key: str, value: Any, timeout: int, revision: Any = None
    ) -> tuple[Written, Entry] | None:
        """Remove an entry and add one under a key that nobody has, in one step.

        ``None`` if that takes two steps here.
        """
        return None

    def _get(self, key: str) -> Any:
        with answering(key):
            try:
                return self.cache.get(key)
            except InvalidCacheKey:
                raise
            except UNREADABLE as error:
                raise CorruptSessionError(class_of(error)) from None

    def _compare(self, key: str, revision: Any) -> Written:
        try:
            value = self._get(key)
        except CorruptSessionError:
            return Written.DONE if revision is None else Written.CHANGED
        if value is None:
            return Written.MISSING
        if revision is None or same_value(value, self.loads(revision)):
            return Written.DONE
        if self.dumps(value) == revision:
            # Objects that know no equality but their own.
            return Written.DONE
        return Written.CHANGED


# Redis.


class Script:
    """A script that a Redis server runs, in one round trip once it knows it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: Any, keys: Sequence[str], *arguments: Any) -> Any:
        """Run it."""
        try:
            return client.evalsha(self.digest, len(keys), *keys, *arguments)
        except Exception as error:
            if type(error).__name__ != "NoScriptError":
                raise
        return client.eval(self.text, len(keys), *keys, *arguments)


# The value, its timeout, and what is there, if that matters. They answer 0 if there is no entry, 1
# if it is another one, 2 if it is done, 3 if the new key is taken.

REPLACE = Script(
    """\
local stored = redis.call('GET', KEYS[1])
if not stored then return 0 end
if stored ~= ARGV[3] then return 1 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 2
"""
)
ROTATE = Script(
    """\
local stored = redis.call('GET', KEYS[1])
if not stored then return 0 end
if ARGV[3] and stored ~= ARGV[3] then return 1 end
if not redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2], 'NX') then return 3 end
redis.call('DEL', KEYS[1])
return 2
"""
)
DELETE = Script(
    """\
local stored = redis.call('GET', KEYS[1])
if not stored then return 0 end
if stored ~= ARGV[1] then return 1 end
redis.call('DEL', KEYS[1])
return 2
"""
)
ANSWERS = {0: Written.MISSING, 1: Written.CHANGED, 2: Written.DONE}
TAKEN = 3


class RedisEntries(Entries):
    """The entries of Django's ``RedisCache``."""

    compares = True

    def dumps(self, value: Any) -> Any:
        """Return the bytes that the server keeps."""
        return self.cache._cache._serializer.dumps(value)

    def loads(self, snapshot: Any) -> Any:
        """Return the value of such bytes."""
        try:
            return self.cache._cache._serializer.loads(snapshot)
        except UNREADABLE as error:
            raise CorruptSessionError(class_of(error)) from None

    def client(self, key: str, *, write: bool) -> Any:
        """Return the client of redis-py."""
        return self.cache._cache.get_client(key, write=write)

    def server_key(self, key: str) -> str:
        """Return the key that the server has."""
        return str(self.cache.make_and_validate_key(key))

    def get(self, key: str, *, latest: bool = False) -> Entry | None:
        """See ``Entries.get()``; what is read may be a replica's."""
        with answering(key):
            key = self.server_key(key)
            stored = self.client(key, write=latest).get(key)
        return None if stored is None else Entry(self.loads(stored), stored, stored)

    def has_key(self, key: str) -> bool:
        """See ``Entries.has_key()``."""
        with answering(key):
            key = self.server_key(key)
            return bool(self.client(key, write=False).exists(key))

    def add(self, key: str, value: Any, timeout: int) -> Entry | None:
        """See ``Entries.add()``."""
        stored = self.dumps(value)
        with answering(key):
            key = self.server_key(key)
            client = self.client(key, write=True)
            if timeout <= 0:
                # It would be gone at once.
                added = not client.exists(key)
            else:
                added = client.set(key, stored, px=_milliseconds(timeout), nx=True)
        return Entry(value, stored, stored) if added else None

    def replace(
        self, key: str, value: Any, timeout: int, revision: Any = None
    ) -> tuple[Written, Entry]:
        """See ``Entries.replace()``."""
        stored = self.dumps(value)
        entry = Entry(value, stored, stored)
        if timeout <= 0:
            return self.delete(key, revision), entry
        lifetime = _milliseconds(timeout)
        with answering(key):
            key = self.server_key(key)
            client = self.client(key, write=True)
            if revision is None:
                done = client.set(key, stored, px=lifetime, xx=True)
                return Written.DONE if done else Written.MISSING, entry
            return ANSWERS[REPLACE.run(client, [key], stored, lifetime, revision)], entry

    def delete(self, key: str, revision: Any = None) -> Written:
        """See ``Entries.delete()``."""
        with answering(key):
            key = self.server_key(key)
            client = self.client(key, write=True)
            if revision is None:
                return Written.DONE if client.delete(key) else Written.MISSING
            return ANSWERS[DELETE.run(client, [key], revision)]

    def rotate(
        self, key: str, new_key: str, value: Any, timeout: int, revision: Any = None
    ) -> tuple[Written, Entry] | None:
        """See ``Entries.rotate()``."""
        if timeout <= 0:
            return None
        stored = self.dumps(value)
        condition = () if revision is None else (revision,)
        with answering(key, new_key):
            keys = [self.server_key(key), self.server_key(new_key)]
            client = self.client(keys[0], write=True)
            try:
                answer = ROTATE.run(client, keys, stored, _milliseconds(timeout), *condition)
            except Exception as error:
                # In a cluster the two may be on different servers.
                if "CROSSSLOT" in str(error) or "must map to the same key slot" in str(error):
                    return None
                raise
        if answer == TAKEN:
            return None
        return ANSWERS[answer], Entry(value, stored, stored)


class DjangoRedisEntries(RedisEntries):
    """The entries of django-redis."""

    def dumps(self, value: Any) -> Any:
        """Return the bytes that the server keeps."""
        return self.cache.client.encode(value)

    def loads(self, snapshot: Any) -> Any:
        """Return the value of such bytes."""
        try:
            return self.cache.client.decode(snapshot)
        except Exception as error:  # noqa: BLE001 - serializers have errors of their own
            raise CorruptSessionError(class_of(error)) from None

    def client(self, key: str, *, write: bool) -> Any:
        """Return the client of redis-py."""
        return self.cache.client.get_client(write=write)

    def server_key(self, key: str) -> str:
        """Return the key that the server has."""
        return str(self.cache.client.make_key(key))


def _milliseconds(timeout: float) -> int:
    return int(timeout * 1000)


# Memcached.


class MemcachedEntries(Entries):
    """The entries of ``PyMemcacheCache``.

    The server names a state when it is read, not when it is written.
    """

    compares = True

    def client(self, key: str) -> Any:
        """Return the client of the server that has this key.

        The one for all servers says for some time after a failure that there is no entry.
        """
        client = self.cache._cache._get_client(key)
        if client is None:
            raise StoreUnavailableError("unreachable")
        return client

    def server_key(self, key: str) -> str:
        """Return the key that the server has."""
        return str(self.cache.make_and_validate_key(key))

    def get(self, key: str, *, latest: bool = False) -> Entry | None:
        """See ``Entries.get()``."""
        with answering(key):
            key = self.server_key(key)
            try:
                value, revision = self._gets(key)
            except UNREADABLE as error:
                raise CorruptSessionError(class_of(error)) from None
        return None if value is None else Entry(value, self.dumps(value), revision)

    def has_key(self, key: str) -> bool:
        """See ``Entries.has_key()``."""
        try:
            return self.get(key) is not None
        except CorruptSessionError:
            return True

    def add(self, key: str, value: Any, timeout: int) -> Entry | None:
        """See ``Entries.add()``."""
        entry = Entry(value, self.dumps(value), None)
        with answering(key):
            key = self.server_key(key)
            return entry if self._add(key, value, self._lifetime(timeout)) else None

    def replace(
        self, key: str, value: Any, timeout: int, revision: Any = None
    ) -> tuple[Written, Entry]:
        """See ``Entries.replace()``."""
        entry = Entry(value, self.dumps(value), None)
        with answering(key):
            key, lifetime = self.server_key(key), self._lifetime(timeout)
            if revision is None:
                done = self._replace(key, value, lifetime)
                return Written.DONE if done else Written.MISSING, entry
            return self._cas(key, value, lifetime, revision), entry

    def delete(self, key: str, revision: Any = None) -> Written:
        """See ``Entries.delete()``."""
        with answering(key):
            key = self.server_key(key)
            if revision is None:
                return Written.DONE if self._delete(key) else Written.MISSING
            # There is no such operation, but there is one that replaces it by what is over.
            return self._cas(key, "", -1, revision)

    def _lifetime(self, timeout: int) -> int:
        return int(self.cache.get_backend_timeout(timeout)) if timeout > 0 else -1

    def _gets(self, key: str) -> tuple[Any, Any]:
        value, revision = self.client(key).gets(key)
        return value, revision

    def _add(self, key: str, value: Any, lifetime: int) -> bool:
        return bool(self.client(key).add(key, value, expire=lifetime, noreply=False))

    def _replace(self, key: str, value: Any, lifetime: int) -> bool:
        return bool(self.client(key).replace(key, value, expire=lifetime, noreply=False))

    def _delete(self, key: str) -> bool:
        return bool(self.client(key).delete(key, noreply=False))

    def _cas(self, key: str, value: Any, lifetime: int, revision: Any) -> Written:
        done = self.client(key).cas(key, value, revision, expire=lifetime, noreply=False)
        if done is None:
            return Written.MISSING
        return Written.DONE if done else Written.CHANGED


# How often an entry that is there may be missed.
GETS_TRIES = 10


class LibmemcachedEntries(MemcachedEntries):
    """The entries of ``PyLibMCCache``."""

    def client(self, key: str) -> Any:
        """Return the client for all servers."""
        client = self.cache._cache
        if not client.behaviors.get("cas"):
            client.behaviors["cas"] = True
        return client

    def _gets(self, key: str) -> tuple[Any, Any]:
        client = self.client(key)
        for _ in range(GETS_TRIES):
            value, revision = client.gets(key)
            # To `gets`, a failure is an entry that is not there. `get` tells.
            if value is not None or client.get(key) is None:
                return value, revision
        raise StoreUnavailableError("unreachable")

    def _add(self, key: str, value: Any, lifetime: int) -> bool:
        return bool(self.client(key).add(key, value, time=lifetime))

    def _replace(self, key: str, value: Any, lifetime: int) -> bool:
        try:
            return bool(self.client(key).replace(key, value, time=lifetime))
        except self.cache._lib.NotFound:
            return False

    def _delete(self, key: str) -> bool:
        return bool(self.client(key).delete(key))

    def _cas(self, key: str, value: Any, lifetime: int, revision: Any) -> Written:
        try:
            done = self.client(key).cas(key, value, revision, time=lifetime)
        except self.cache._lib.NotFound:
            return Written.MISSING
        return Written.DONE if done else Written.CHANGED


# Local memory.


class LocalEntries(Entries):
    """The entries of ``LocMemCache``."""

    blocks = False
    compares = True

    def dumps(self, value: Any) -> Any:
        """Return the bytes that are kept."""
        return pickle.dumps(value, self.cache.pickle_protocol)

    def loads(self, snapshot: Any) -> Any:
        """Return the value of such bytes."""
        try:
            return pickle.loads(snapshot)  # noqa: S301 - as Django
        except UNREADABLE as error:
            raise CorruptSessionError(class_of(error)) from None

    def get(self, key: str, *, latest: bool = False) -> Entry | None:
        """See ``Entries.get()``."""
        cache, key = self.cache, self.cache.make_and_validate_key(key)
        with cache._lock:
            stored = self._stored(key)
            if stored is not None:
                cache._cache.move_to_end(key, last=False)
        return None if stored is None else Entry(self.loads(stored), stored, stored)

    def add(self, key: str, value: Any, timeout: int) -> Entry | None:
        """See ``Entries.add()``."""
        stored = self.dumps(value)
        cache, key = self.cache, self.cache.make_and_validate_key(key)
        with cache._lock:
            if self._stored(key) is not None:
                return None
            cache._set(key, stored, timeout)
        return Entry(value, stored, stored)

    def replace(
        self, key: str, value: Any, timeout: int, revision: Any = None
    ) -> tuple[Written, Entry]:
        """See ``Entries.replace()``."""
        stored = self.dumps(value)
        cache, key = self.cache, self.cache.make_and_validate_key(key)
        with cache._lock:
            found = self._compare_stored(key, revision)
            if found is Written.DONE:
                cache._set(key, stored, timeout)
        return found, Entry(value, stored, stored)

    def delete(self, key: str, revision: Any = None) -> Written:
        """See ``Entries.delete()``."""
        cache, key = self.cache, self.cache.make_and_validate_key(key)
        with cache._lock:
            found = self._compare_stored(key, revision)
            if found is Written.DONE:
                cache._delete(key)
        return found

    def rotate(
        self, key: str, new_key: str, value: Any, timeout: int, revision: Any = None
    ) -> tuple[Written, Entry] | None:
        """See ``Entries.rotate()``."""
        stored = self.dumps(value)
        cache, key = self.cache, self.cache.make_and_validate_key(key)
        new_key = cache.make_and_validate_key(new_key)
        with cache._lock:
            found = self._compare_stored(key, revision)
            if found is Written.DONE:
                if self._stored(new_key) is not None:
                    return None
                cache._delete(key)
                cache._set(new_key, stored, timeout)
        return found, Entry(value, stored, stored)

    def _stored(self, key: str) -> Any:
        if self.cache._has_expired(key):
            self.cache._delete(key)
            return None
        return self.cache._cache[key]

    def _compare_stored(self, key: str, revision: Any) -> Written:
        stored = self._stored(key)
        if stored is None:
            return Written.MISSING
        return Written.DONE if revision is None or revision == stored else Written.CHANGED


# The database.


class DatabaseEntries(Entries):
    """The entries of ``DatabaseCache``."""

    compares = True

    def dumps(self, value: Any) -> Any:
        """Return the text that the table has."""
        pickled = pickle.dumps(value, self.cache.pickle_protocol)
        return base64.b64encode(pickled).decode("latin1")

    def loads(self, snapshot: Any) -> Any:
        """Return the value of such a text."""
        try:
            return pickle.loads(base64.b64decode(snapshot.encode()))  # noqa: S301 - as Django
        except UNREADABLE as error:
            raise CorruptSessionError(class_of(error)) from None

    def get(self, key: str, *, latest: bool = False) -> Entry | None:
        """See ``Entries.get()``; what is read may be a replica's."""
        with answering(key):
            key = self.cache.make_and_validate_key(key)
            sql = "SELECT {value} FROM {table} WHERE {cache_key} = %s AND {expires} >= %s"
            with self._cursor(sql, [key, self._time()], write=latest) as cursor:
                row = cursor.fetchone()
        return None if row is None else Entry(self.loads(row[0]), row[0], row[0])

    def add(self, key: str, value: Any, timeout: int) -> Entry | None:
        """See ``Entries.add()``; Django's own, which makes room in a full table."""
        stored = self.dumps(value)
        with answering(key):
            added = self.cache.add(key, value, timeout)
        return Entry(value, stored, stored) if added else None

    def replace(
        self, key: str, value: Any, timeout: int, revision: Any = None
    ) -> tuple[Written, Entry]:
        """See ``Entries.replace()``."""
        stored = self.dumps(value)
        sql = "UPDATE {table} SET {value} = %s, {expires} = %s WHERE {cache_key} = %s"
        with answering(key):
            values = [stored, self._end(timeout), self.cache.make_and_validate_key(key)]
            found = self._change(key, sql, values, revision)
        return found, Entry(value, stored, stored)

    def delete(self, key: str, revision: Any = None) -> Written:
        """See ``Entries.delete()``."""
        sql = "DELETE FROM {table} WHERE {cache_key} = %s"
        with answering(key):
            return self._change(key, sql, [self.cache.make_and_validate_key(key)], revision)

    def rotate(
        self, key: str, new_key: str, value: Any, timeout: int, revision: Any = None
    ) -> tuple[Written, Entry] | None:
        """See ``Entries.rotate()``."""
        stored = self.dumps(value)
        sql = (
            "UPDATE {table} SET {cache_key} = %s, {value} = %s, {expires} = %s "
            "WHERE {cache_key} = %s"
        )
        with answering(key, new_key):
            old, new = map(self.cache.make_and_validate_key, (key, new_key))
            values = [new, stored, self._end(timeout), old]
            return self._change(key, sql, values, revision), Entry(value, stored, stored)

    def _change(self, key: str, sql: str, values: list[Any], revision: Any) -> Written:
        """Run a statement on an entry: any that has not expired, or the one of this revision."""
        sql += " AND {expires} >= %s"
        values = [*values, self._time()]
        if revision is not None:
            sql += " AND {same}"
            values.append(revision)
        with self._cursor(sql, values, write=True) as cursor:
            if cursor.rowcount:
                return Written.DONE
        if revision is None:
            return Written.MISSING
        try:
            there = self.get(key, latest=True) is not None
        except CorruptSessionError:
            there = True
        return Written.CHANGED if there else Written.MISSING

    @contextmanager
    def _cursor(self, sql: str, values: Sequence[Any], *, write: bool) -> Iterator[Any]:
        route = router.db_for_write if write else router.db_for_read
        connection = connections[route(self.cache.cache_model_class)]
        quote = connection.ops.quote_name
        names = {name: quote(name) for name in ("cache_key", "value", "expires")}
        same = SAME_TEXT[connection.vendor].format(**names)
        with connection.cursor() as cursor:
            cursor.execute(sql.format(table=quote(self.cache._table), same=same, **names), values)
            yield cursor

    def _end(self, timeout: int) -> Any:
        # An age that is not positive is over at once, so it ends in the second before.
        return self._time(timeout if timeout > 0 else timeout - 1)

    def _time(self, timeout: int = 0) -> Any:
        """Return a point in time as Django's cache stores it: in whole seconds."""
        zone = datetime_timezone.utc if settings.USE_TZ else None
        seconds = time.time() + timeout
        expires = datetime.fromtimestamp(seconds, tz=zone).replace(microsecond=0)
        connection = connections[router.db_for_write(self.cache.cache_model_class)]
        return connection.ops.adapt_datetimefield_value(expires)


# Byte by byte, whatever the collation of the column.
SAME_TEXT = {
    "mysql": "CAST({value} AS BINARY) = CAST(%s AS BINARY)",
    "postgresql": '{value} COLLATE "C" = %s',
    "sqlite": "{value} COLLATE BINARY = %s",
}


# Which of them it is.

STOCK: Sequence[tuple[type[Any], Sequence[str], type[Entries]]] = (
    (RedisCache, ("add", "delete", "get", "has_key", "set"), RedisEntries),
    (PyMemcacheCache, ("add", "delete", "get", "set"), MemcachedEntries),
    (PyLibMCCache, ("add", "delete", "get", "set"), LibmemcachedEntries),
    (LocMemCache, ("add", "delete", "get", "set", "_set", "_has_expired"), LocalEntries),
    (DatabaseCache, ("add", "delete", "get", "get_many", "set", "_base_set"), DatabaseEntries),
)


def entries_of(cache: BaseCache) -> Entries:
    """Return what reads and writes the entries of a cache.

    A subclass that reads or writes in a way of its own is taken as it is.
    """
    for kind, names, adapter in STOCK:
        if isinstance(cache, kind) and _is_stock(type(cache), kind, names):
            return adapter(cache) if _has_stock_server(cache) else Entries(cache)
    return DjangoRedisEntries(cache) if _is_django_redis(cache) else Entries(cache)


def _is_stock(kind: type[Any], base: type[Any], names: Sequence[str]) -> bool:
    return all(getattr(kind, name) is getattr(base, name) for name in names)


def _has_stock_server(cache: Any) -> bool:
    if isinstance(cache, RedisCache):
        kind: type[Any] = type(cache._cache)
        names = ("add", "delete", "get", "has_key", "set")
        if RedisCacheClient not in kind.__mro__:
            return False
        return _is_stock(kind, RedisCacheClient, names)
    if isinstance(cache, DatabaseCache):
        return connections[router.db_for_write(cache.cache_model_class)].vendor in SAME_TEXT
    return True


def _is_django_redis(cache: Any) -> bool:
    # Not imported, since it need not be installed. The others of its clients spread keys over
    # servers, or wrap values.
    if not any(kind.__module__ == "django_redis.cache" for kind in type(cache).__mro__):
        return False
    kind = type(cache.client)
    return kind.__module__ in {"django_redis.client.default", "django_redis.client.sentinel"}
