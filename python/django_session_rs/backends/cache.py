"""The cache engine: Django's, which writes only what it has read, and says when the cache is away.

Mirrors ``django.contrib.sessions.backends.cache`` of Django 4.2 to 6.1 and is a subclass of it.
It goes through the cache that ``SESSION_CACHE_ALIAS`` names, and shares keys and values with
Django's engine.

Three things differ on purpose. Each step is one round trip, where a save of Django's reads first
and then brings a session back that was deleted in between. A cache that does not answer raises
``StoreUnavailableError``, where Django answers with an empty session and takes the cookie away. And
a save replaces the value that was loaded: if others have saved the session since, both keep what
they changed (``SESSION_ON_CONFLICT``). How that is done with which cache is in ``cache_entries``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.backends.cache import KEY_PREFIX
from django.contrib.sessions.backends.cache import SessionStore as DjangoSessionStore
from django.core.cache.backends.base import InvalidCacheKey

from django_session_rs.backends.cache_entries import Entries, Entry, Written, entries_of
from django_session_rs.backends.conflicts import (
    MAX_SAVE_TRIES,
    USER_ID_KEY,
    OneHopSession,
    SessionEndedError,
    notes_outage,
    turn,
)
from django_session_rs.exceptions import CorruptSessionError, SessionConflictError
from django_session_rs.merge import same_value

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KEY_PREFIX", "SessionStore"]


class SessionStore(OneHopSession, DjangoSessionStore):
    """A session in a cache, as ``django.contrib.sessions.backends.cache.SessionStore``.

    Subclass it as Django's: ``cache_key_prefix``, ``cache_key`` and ``get_session_cookie_age`` keep
    their meaning. The asynchronous methods do their work in one hop to Django's thread each, and in
    none where the cache is the memory of the process.
    """

    # What was loaded or written last.
    _loaded: Entry | None = None

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._entries: Entries = entries_of(self._cache)

    if TYPE_CHECKING:
        # Django's own, which its type stubs leave out.
        _cache: Any

    def _plain(self, data: Any) -> Any:
        return self._entries.loads(self._entries.dumps(data))

    def _key_of(self, session_key: str) -> str:
        return f"{self.cache_key_prefix}{session_key}"

    # Reading.

    @notes_outage
    def load(self) -> Any:
        """Return the cached session; ``{}`` and no key any more if there is none."""
        entry = None if self.session_key is None else self._read()
        # Somebody may load a session that is loaded already, only to look at it.
        if "_session_cache" not in self.__dict__:
            self._forget()
            self._loaded = entry
        if entry is None:
            self._session_key = None
            return {}
        return entry.value

    @notes_outage
    def exists(self, session_key: str | None) -> bool:
        """Tell whether there is a session with this key."""
        try:
            return bool(session_key) and self._entries.has_key(self._key_of(str(session_key)))
        except InvalidCacheKey:
            return False

    def _read(self, *, latest: bool = False) -> Entry | None:
        try:
            return self._entries.get(self.cache_key, latest=latest)
        except (CorruptSessionError, InvalidCacheKey):
            # As in Django: what nobody can read, and what a cache has no name for, is none.
            return None

    # Writing.

    @notes_outage
    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Store the session.

        Raises ``CreateError`` if ``must_create`` and the key is taken, ``UpdateError`` if not
        ``must_create`` and the session is gone, and ``StoreUnavailableError``. If others have saved
        the session since it was loaded, ``SESSION_ON_CONFLICT`` says what happens.
        """
        if self.session_key is None:
            self.create()
        elif must_create:
            data = self._get_session(no_load=True)
            entry = self._entries.add(self.cache_key, data, self.get_expiry_age())
            if entry is None:
                raise CreateError
            self._saved(entry)
        else:
            if "_session_cache" not in self.__dict__:
                found = self._read()
                if found is None:
                    raise UpdateError
                self._forget()
                self._session_cache, self._loaded = found.value, found
            self._replace()

    @notes_outage
    def delete(self, session_key: str | None = None) -> None:
        """Delete the session of this key, or this one; a missing one is fine."""
        key = self.session_key if session_key is None else session_key
        if key is not None:
            self._delete(key)

    @notes_outage
    def delete_loaded(self) -> bool:
        """Delete the session if it still is what was loaded or saved last; tell whether it was."""
        key, loaded = self.session_key, self._loaded
        if key is None or loaded is None:
            return False
        try:
            if loaded.revision is None:
                loaded = self._reconcile("error")
            return self._entries.delete(self._key_of(key), loaded.revision) is Written.DONE
        except (InvalidCacheKey, SessionConflictError, UpdateError):
            return False

    @notes_outage
    def cycle_key(self) -> None:
        """Move the session to a new key, which makes a stolen one useless.

        What others save under the old key in the meantime moves along. Raises an ``UpdateError`` if
        the session of a user was deleted meanwhile: somebody has logged out, and there is no
        session under the new key either.
        """
        self._get_session()
        if self.session_key is None:
            self.create()
        elif self._rotates:
            self._rotate(self.session_key)
        else:
            super().cycle_key()

    def _saved(self, entry: Entry | None) -> None:
        self._touched = frozenset()
        self._loaded = entry

    def _delete(self, session_key: str) -> None:
        try:
            self._entries.delete(self._key_of(session_key))
        except InvalidCacheKey:
            # There is nothing under it.
            return

    def _replace(self) -> None:
        mode = self._on_conflict()
        loaded = None if mode == "overwrite" else self._loaded
        if loaded is None:
            # Whatever there is, but nothing if there is nothing.
            written, entry = self._write(None)
            if written is not Written.DONE:
                raise UpdateError
            self._saved(entry)
            return
        if loaded.revision is not None and self._write_over(loaded):
            return
        with turn(str(self.session_key)):
            for _ in range(MAX_SAVE_TRIES):
                if self._write_over(self._reconcile(mode)):
                    return
        raise SessionConflictError

    def _write(self, revision: Any) -> tuple[Written, Entry]:
        try:
            return self._entries.replace(
                self.cache_key, self._session_cache, self.get_expiry_age(), revision
            )
        except InvalidCacheKey:
            # Its text has the key.
            raise UpdateError from None

    def _write_over(self, found: Entry) -> bool:
        written, entry = self._write(found.revision)
        if written is Written.DONE:
            self._saved(entry)
        return written is Written.DONE

    def _reconcile(self, mode: Any) -> Entry:
        """Bring the session together with what is stored by now, which it returns."""
        try:
            found = self._entries.get(self.cache_key, latest=True)
        except CorruptSessionError:
            # Nobody can read it, so nobody loses anything.
            found = Entry(None, None, None)
        if found is None:
            raise UpdateError
        self._adopt(found, mode)
        return found

    def _adopt(self, found: Entry, mode: Any) -> None:
        before = None if self._loaded is None else self._value_of(self._loaded)
        if isinstance(found.value, dict) and not same_value(before, found.value):
            if mode == "error":
                raise SessionConflictError
            resolve = mode if callable(mode) else None
            self._merge(before or {}, found.value, resolve, self._plain)
        self._loaded = found

    def _value_of(self, entry: Entry) -> Any:
        value = None if entry.snapshot is None else self._entries.loads(entry.snapshot)
        return value if isinstance(value, dict) else None

    # Rotation.

    def _rotate(self, old: str) -> None:
        mode = self._on_conflict()
        # There is nothing to be said against moving what others have saved.
        merging = "merge" if mode == "error" else mode
        before = None if self._loaded is None else self._value_of(self._loaded)
        of_user = before is not None and USER_ID_KEY in before
        for _ in range(MAX_SAVE_TRIES):
            loaded = None if mode == "overwrite" else self._loaded
            if loaded is not None and loaded.revision is None and loaded.snapshot is not None:
                break
            moved = self._moved(old, None if loaded is None else loaded.revision)
            if moved is None:
                break
            written, entry = moved
            if written is Written.DONE:
                self._saved(entry)
                self.modified = True
                return
            self._session_key = old
            try:
                if loaded is None:
                    raise UpdateError
                self._reconcile(merging)
            except UpdateError as error:
                if loaded is None or not of_user:
                    # Another request has moved it, as two clicks on one button do.
                    self.create()
                    return
                self._end()
                raise SessionEndedError from error
        self._rotate_in_two_steps(old, merging, before, of_user=of_user)

    def _moved(self, old: str, revision: Any) -> tuple[Written, Entry] | None:
        """Move the entry to a new key, which is then the session's, in one step."""
        self._session_key = self._get_new_session_key()
        key, new_key = self._key_of(old), self.cache_key
        try:
            moved = self._entries.rotate(
                key, new_key, self._session_cache, self.get_expiry_age(), revision
            )
        except BaseException:
            self._session_key = old
            raise
        if moved is None:
            self._session_key = old
        return moved

    def _rotate_in_two_steps(self, old: str, mode: Any, before: Any, *, of_user: bool) -> None:
        """Store the session under a new key, and remove what is under the old one.

        It is removed once everything in it is under the new key.
        """
        left, touched = self._loaded, self._touched
        self.create()
        for _ in range(MAX_SAVE_TRIES):
            if left is None or mode == "overwrite":
                self._delete(old)
                return
            if left.revision is not None:
                written = self._entries.delete(self._key_of(old), left.revision)
                if written is Written.DONE:
                    return
            try:
                found = self._entries.get(self._key_of(old), latest=True)
            except CorruptSessionError:
                # Nobody can read it, so there is nothing in it to be moved.
                left = None
                continue
            if found is None:
                if not of_user:
                    # Another request has moved it, as two clicks on one button do.
                    return
                self._delete(str(self.session_key))
                self._end()
                raise SessionEndedError
            if isinstance(found.value, dict) and not same_value(before, found.value):
                self._touched = touched
                resolve = mode if callable(mode) else None
                self._merge(before or {}, found.value, resolve, self._plain)
                self._replace()
                before = self._entries.loads(found.snapshot)
            left = found
        raise SessionConflictError

    # The asynchronous twins.

    async def _run(self, method: Callable[..., Any], *args: Any) -> Any:
        return await super()._run(method, *args) if self._entries.blocks else method(*args)

    @classmethod
    async def aclear_expired(cls) -> None:
        """See ``clear_expired()``: the cache does so by itself."""
