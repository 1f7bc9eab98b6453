"""The native engine: the stores of the Rust crate, with connections of their own.

``SESSION_STORE_URL`` says where sessions are (:mod:`django_session_rs.store_url`); at first it is
the table in Django's own database. What is asked of a store runs without the interpreter's lock,
and the asynchronous methods wait for it without a thread. Requests that change one session at the
same time both keep what they changed (``SESSION_ON_CONFLICT``).

The connections are not Django's: ``ATOMIC_REQUESTS``, the transaction of a ``TestCase``, query
logging and execute wrappers are none of theirs. A session that a view saves is stored even if its
transaction is rolled back. With SQLite everything goes over Django's connection, as in
:mod:`django_session_rs.backends.db`, whose class this one extends.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.core.signals import setting_changed
from django.core.signing import BadSignature
from django.db import connections, router
from django.utils.asyncio import async_unsafe
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables

from django_session_rs._native import Store
from django_session_rs.backends import db
from django_session_rs.backends.conflicts import (
    MAX_SAVE_TRIES,
    SessionEndedError,
    bring_in,
    keeping_key,
    notes_outage,
    noting_outage,
    on_conflict,
    turn,
)
from django_session_rs.exceptions import (
    DecodeError,
    PayloadTooLargeError,
    SessionConflictError,
)
from django_session_rs.management.commands.export_session_settings import exported_store
from django_session_rs.store_url import connection_url, store_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django_session_rs._native import StoredSession

__all__ = ["SessionStore"]

_Found = TypeVar("_Found")


class SessionStore(db.SessionStore):
    """A session in a store of the Rust crate.

    Subclass it as Django's: ``key_salt``, ``serializer``, ``get_session_cookie_age`` and
    ``get_model_class`` keep their meaning, as long as the model has Django's three columns. The
    expire date follows from the data; ``get_expiry_date`` is not asked.
    """

    # What is in the store, as far as this object knows.
    _stored: StoredSession | None = None

    # Reading.

    @notes_outage
    def load(self) -> Any:
        """Return the stored session; ``{}`` and no key any more if there is none or it expired.

        Raises ``StoreUnavailableError`` if the store cannot be asked.
        """
        store = _store(type(self), self._rule)
        if store is None:
            return super().load()
        key = self.session_key
        if key is None:
            return {}
        try:
            return self._opened(_here(store.load, key))
        except (BadSignature, DecodeError) as error:
            return self._unread(error)

    async def aload(self) -> Any:
        """See ``load()``; nothing is waited for in a thread."""
        with noting_outage(self):
            store = _store(type(self), self._rule)
            if store is None:
                return await super().aload()
            key = self.session_key
            if key is None:
                return {}
            try:
                return self._opened(await store.aload(key))
            except (BadSignature, DecodeError) as error:
                return self._unread(error)

    @notes_outage
    def exists(self, session_key: str | None) -> bool:
        """Tell whether the store has a session of this key, expired or not."""
        store = _store(type(self), self._rule)
        if store is None:
            return super().exists(session_key)
        return bool(session_key) and _here(store.exists, session_key)

    async def aexists(self, session_key: str | None) -> bool:
        """See ``exists()``."""
        with noting_outage(self):
            store = _store(type(self), self._rule)
            if store is None:
                return await super().aexists(session_key)
            return bool(session_key) and await store.aexists(str(session_key))

    def _opened(self, stored: StoredSession | None) -> Any:
        if stored is None:
            self._session_key = None
            return {}
        data = stored.data()
        # Somebody may load a session that is loaded already, only to look at it.
        if "_session_cache" not in self.__dict__:
            self._forget()
            self._stored = stored
        return data

    def _unread(self, error: BadSignature | DecodeError) -> Any:
        """Return what a session is taken for that cannot be read; raise if it might be one."""
        if isinstance(error, BadSignature):
            logger = logging.getLogger("django.security.SuspiciousSession")
            logger.warning("Session data corrupted")
        elif isinstance(error, PayloadTooLargeError) or error.reason == "serializer":
            # Another limit, or another setting, reads it: the next save must not overwrite it.
            raise error
        return {}

    # Writing.

    @notes_outage
    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Store the session.

        Raises ``CreateError`` if ``must_create`` and the key is taken, ``UpdateError`` if not
        ``must_create`` and the session is gone, ``SessionConflictError`` where changes are not
        merged, ``StoreUnavailableError`` if the store cannot be asked.
        """
        store = _store(type(self), self._rule)
        if store is None:
            super().save(must_create)
            return
        if self.session_key is None:
            self.create()
            return
        data = self._get_session(no_load=must_create)
        key, age = self._get_or_create_session_key(), int(self.get_session_cookie_age())
        if must_create:
            stored = _here(store.create, key, data, age)
        else:
            stored = self._taken(store, store.save, key, data, age)
        self._written(data, stored)

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
        """See ``save()``."""
        with noting_outage(self):
            store = _store(type(self), self._rule)
            if store is None:
                await super().asave(must_create)
                return
            if self.session_key is None:
                await self.acreate()
                return
            data = await self._aget_session(no_load=must_create)
            key, age = self._get_or_create_session_key(), int(self.get_session_cookie_age())
            if must_create:
                stored = await store.acreate(key, data, age)
            else:
                stored = await self._ataken(store, store.asave, key, data, age)
            self._written(data, stored)

    async def acreate(self) -> None:
        """See ``create()``."""
        with noting_outage(self):
            if _store(type(self), self._rule) is None:
                await super().acreate()
                return
            with keeping_key(self):
                while True:
                    self._session_key = await self._aget_new_session_key()
                    try:
                        await self.asave(must_create=True)
                    except CreateError:
                        continue
                    self.modified = True
                    return

    @notes_outage
    def cycle_key(self) -> None:
        """Move the session to a new key, in one step where the store can.

        What others save under the old key in the meantime moves along. Raises an ``UpdateError`` if
        the session of a user was deleted meanwhile: somebody has logged out, and there is no
        session under the new key either.
        """
        store = _store(type(self), self._rule)
        if store is None:
            super().cycle_key()
            return
        data, key = self._get_session(), self.session_key
        if key is None:
            self.create()
            return
        age = int(self.get_session_cookie_age())
        try:
            self._moved(data, self._taken(store, store.cycle_key, key, data, age))
        except UpdateError as error:
            self._end()
            raise SessionEndedError from error

    async def acycle_key(self) -> None:
        """See ``cycle_key()``."""
        with noting_outage(self):
            store = _store(type(self), self._rule)
            if store is None:
                await super().acycle_key()
                return
            data, key = await self._aget_session(), self.session_key
            if key is None:
                await self.acreate()
                return
            age = int(self.get_session_cookie_age())
            try:
                self._moved(data, await self._ataken(store, store.acycle_key, key, data, age))
            except UpdateError as error:
                self._end()
                raise SessionEndedError from error

    @notes_outage
    def delete(self, session_key: str | None = None) -> None:
        """Delete the session of this key, or this one; a missing one is fine."""
        store = _store(type(self), self._rule)
        if store is None:
            super().delete(session_key)
            return
        key = self.session_key if session_key is None else session_key
        if key is not None:
            _here(store.delete, key)

    async def adelete(self, session_key: str | None = None) -> None:
        """See ``delete()``."""
        with noting_outage(self):
            store = _store(type(self), self._rule)
            if store is None:
                await super().adelete(session_key)
                return
            key = self.session_key if session_key is None else session_key
            if key is not None:
                await store.adelete(key)

    @notes_outage
    def delete_loaded(self) -> bool:
        """Delete the session if it still is what was loaded or saved last; tell whether it was."""
        store = _store(type(self), self._rule)
        if store is None:
            return super().delete_loaded()
        key, stored = self.session_key, self._stored
        return key is not None and stored is not None and _here(store.delete_stored, key, stored)

    async def adelete_loaded(self) -> bool:
        """See ``delete_loaded()``."""
        with noting_outage(self):
            store = _store(type(self), self._rule)
            if store is None:
                return await super().adelete_loaded()
            key, stored = self.session_key, self._stored
            if key is None or stored is None:
                return False
            return await store.adelete_stored(key, stored)

    @classmethod
    def clear_expired(cls) -> None:
        """Delete all sessions that have expired; caches do that by themselves."""
        store = _store(cls)
        if store is None:
            super().clear_expired()
        else:
            _here(store.clear_expired)

    @classmethod
    async def aclear_expired(cls) -> None:
        """See ``clear_expired()``."""
        store = _store(cls)
        if store is None:
            await super().aclear_expired()
        else:
            await store.aclear_expired()

    def _rows_of(self, using: str) -> Store | None:
        """Return a store whose connections lead to a database of Django's, to ask for its rows.

        ``None`` if Django has to ask: it cannot be reached so, or it is that of a test, which may
        be within a transaction.
        """
        state: Any = getattr(sys.modules.get("django.test.utils"), "_TestState", None)
        return None if hasattr(state, "saved_data") else _rows_store(type(self), using)

    def _taken(
        self, store: Store, step: Callable[..., StoredSession], key: str, data: Any, age: int
    ) -> StoredSession:
        """Take a step that writes. Where others were first a function is asked, if there is one."""
        try:
            return _here(step, key, data, self._stored, self._names(), age)
        except SessionConflictError:
            resolve = self._on_conflict()
            if not callable(resolve):
                raise
        with turn(key):
            for _ in range(MAX_SAVE_TRIES):
                self._bring_in_latest(_here(store.load_latest, key), resolve)
                with suppress(SessionConflictError):
                    return _here(step, key, data, self._stored, self._names(), age)
        raise SessionConflictError

    async def _ataken(
        self,
        store: Store,
        step: Callable[..., Awaitable[StoredSession]],
        key: str,
        data: Any,
        age: int,
    ) -> StoredSession:
        """See ``_taken()``."""
        try:
            return await step(key, data, self._stored, self._names(), age)
        except SessionConflictError:
            resolve = self._on_conflict()
            if not callable(resolve):
                raise
        for _ in range(MAX_SAVE_TRIES):
            self._bring_in_latest(await store.aload_latest(key), resolve)
            with suppress(SessionConflictError):
                return await step(key, data, self._stored, self._names(), age)
        raise SessionConflictError

    def _bring_in_latest(self, latest: StoredSession | None, resolve: Any) -> None:
        # The next try says what it means if there is none.
        if latest is None:
            return
        # A copy in a cache may have what the table turns into something else, as tuples.
        loaded = {} if self._stored is None else self._plain(self._stored.data())
        self._merge(loaded, self._plain(latest.data()), resolve, self._plain)
        self._stored = latest

    def _plain(self, data: Any) -> Any:
        store = _store(type(self), self._rule)
        return super()._plain(data) if store is None else store.as_stored(data)

    def _names(self) -> list[str]:
        """Return the names that were set or removed here."""
        # A name that is no Unicode is found by comparing.
        return [name for name in map(str, self._touched) if name.isascii() or _is_unicode(name)]

    def _written(self, data: dict[str, Any], stored: StoredSession) -> None:
        self._forget()
        self._stored = stored
        if stored.merged:
            bring_in(data, stored.data(), data, {})

    def _moved(self, data: dict[str, Any], stored: StoredSession) -> None:
        self._session_key = stored.session_key
        self.modified = True
        self._written(data, stored)

    def _forget(self) -> None:
        super()._forget()
        self._stored = None


def _is_unicode(name: str) -> bool:
    return name.encode("utf-8", "ignore").decode() == name


@async_unsafe
def _here(step: Callable[..., _Found], *arguments: Any) -> _Found:
    """Take a step and wait for it, which must not be done where an event loop runs."""
    return step(*arguments)


# One store per class, which has a salt and a serializer of its own, and per rule for conflicts.

_MISSING = object()
_stores: dict[tuple[type[SessionStore], str | None], Store | None] = {}
#: Where rows of Django's databases are asked for: those of sessions, if they are there.
_row_stores: dict[tuple[type[SessionStore], str], Store | None] = {}
_lock = threading.Lock()
#: Of the process that this one was forked from; to touch them would be to touch its connections.
_inherited: list[Any] = []


def _store(cls: type[SessionStore], rule: str | None = None) -> Store | None:
    found: Any = _stores.get((cls, rule), _MISSING)
    return _new_store(cls, rule) if found is _MISSING else found


@sensitive_variables()
def _new_store(cls: type[SessionStore], rule: str | None) -> Store | None:
    with _lock:
        if (cls, rule) not in _stores:
            url = store_url(cls.get_model_class)
            # A function is asked here, about what others have saved.
            asks = rule is None and callable(on_conflict())
            own = "error" if asks else rule
            found = None if url is None else Store(url, _settings(cls, own), merges=not asks)
            _stores[cls, rule] = found
        return _stores[cls, rule]


#: Others may be at another schema in each request.
ENGINES = {
    "django.contrib.gis.db.backends.mysql",
    "django.contrib.gis.db.backends.postgis",
    "django.db.backends.mysql",
    "django.db.backends.postgresql",
}


def _rows_store(cls: type[SessionStore], using: str) -> Store | None:
    found: Any = _row_stores.get((cls, using), _MISSING)
    if found is not _MISSING:
        store: Store | None = found
        return store
    # Before its lock is taken.
    sessions = _store(cls)
    with _lock:
        if (cls, using) not in _row_stores:
            _row_stores[cls, using] = _new_rows_store(cls, using, sessions)
        return _row_stores[cls, using]


@sensitive_variables()
def _new_rows_store(cls: type[SessionStore], using: str, sessions: Store | None) -> Store | None:
    connection = connections[using]
    values = connection.settings_dict
    if values["ENGINE"] not in ENGINES:
        return None
    is_beside = getattr(settings, "SESSION_STORE_URL", "db") in ("db", "cached_db")
    if is_beside and router.db_for_write(cls.get_model_class()) == using:
        return sessions
    if connection.vendor == "mysql" and values["HOST"] in {"", "localhost"}:
        # To its own library that is a socket.
        return None
    for (_, other), store in _row_stores.items():
        if other == using and store not in _stores.values():
            return store
    try:
        # The table is not asked for sessions.
        url = connection_url(connection, table="django_session")
    except ImproperlyConfigured:
        return None
    return Store(url, _settings(cls, None))


@sensitive_variables()
def _settings(cls: type[SessionStore], rule: str | None) -> str:
    """Return the settings of the site as the Rust side reads them."""
    try:
        found = exported_store(include_secret=True)
    except CommandError as error:
        raise ImproperlyConfigured(str(error)) from error
    if rule is not None:
        found["SESSION_ON_CONFLICT"] = rule
    session = cls()
    found["SESSION_SALT"] = session.key_salt
    serializer = session.serializer
    if serializer is not import_string(settings.SESSION_SERIALIZER):
        found["SESSION_SERIALIZER"] = f"{serializer.__module__}.{serializer.__qualname__}"
    return json.dumps(found)


def _close(**_: Any) -> None:
    """End all connections, when the process ends or a setting changes."""
    with _lock:
        found = {*_stores.values(), *_row_stores.values()}
        stores = [store for store in found if store is not None]
        _stores.clear()
        _row_stores.clear()
    for store in stores:
        store.close()


def _start_anew() -> None:
    """Forget what belongs to the process that this one was forked from."""
    # Somebody there may hold or be changing them.
    global _lock, _row_stores, _stores  # noqa: PLW0603
    _inherited.extend((_stores, _row_stores))
    _row_stores, _stores = {}, {}
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
atexit.register(_close)
setting_changed.connect(_close, dispatch_uid="django_session_rs.backends.native")
