"""The file engine: Django's files, replaced whole and only if they are unchanged.

Mirrors ``django.contrib.sessions.backends.file`` of Django 4.2 to 6.1 and is a subclass of it; the
names and the content of the files are Django's.

Three things differ on purpose. Writers lock the file and compare before they replace it: of
parallel requests both keep what they changed (``SESSION_ON_CONFLICT``), and a save that meets a
logout does not bring the session back. A failure of the file system raises
``StoreUnavailableError``, where Django answers with an empty session or forgets the write. And a
new session is in its file whole from the first moment.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime, timedelta
from datetime import timezone as datetime_timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import VALID_KEY_CHARS, CreateError, UpdateError
from django.contrib.sessions.backends.file import SessionStore as DjangoSessionStore
from django.core.exceptions import SuspiciousOperation

from django_session_rs.backends import session_files
from django_session_rs.backends.conflicts import (
    MAX_SAVE_TRIES,
    USER_ID_KEY,
    OneHopSession,
    SessionEndedError,
    notes_outage,
)
from django_session_rs.backends.signed_text import SignedTextSession
from django_session_rs.exceptions import SessionConflictError, StoreUnavailableError
from django_session_rs.merge import same_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_session_rs.backends.session_files import Found, Locked

__all__ = ["SessionStore"]


class SessionStore(SignedTextSession, OneHopSession, DjangoSessionStore):  # pyright: ignore
    """A session in a file, as ``django.contrib.sessions.backends.file.SessionStore``.

    Subclass it as Django's. The asynchronous methods work in a thread, one hop each: a disk may
    keep them waiting, and another writer may.
    """

    # The content that was loaded or written last.
    _loaded: bytes | None = None

    if TYPE_CHECKING:
        # Django's own, which its type stubs leave out.
        file_prefix: str
        storage_path: str

        @classmethod
        def _get_storage_path(cls) -> str: ...
        def _key_to_file(self, session_key: str | None = ...) -> str: ...

    def _path(self, session_key: str | None = None) -> Path:
        return Path(self._key_to_file(session_key))

    # Reading.

    @notes_outage
    def load(self) -> Any:
        """Return the stored session; ``{}`` and no key any more if there is none.

        One that has expired is replaced by a new one without data, as in Django.
        """
        data, content, expired = self._read()
        if expired:
            self.create()
            return {}
        # Somebody may load a session that is loaded already, only to look at it.
        if "_session_cache" not in self.__dict__:
            self._forget()
            self._loaded = content
        if content is None:
            self._session_key = None
        return data

    def _read(self) -> tuple[Any, bytes | None, bool]:
        """Return the data, the content of the file, and whether it was removed as expired."""
        if self.session_key is None:
            return {}, None, False
        try:
            path = self._path()
            found = session_files.read(path)
        except SuspiciousOperation:
            return {}, None, False
        if found is None:
            return {}, None, False
        data = self._data_of(found)
        if not self._is_expired(data, found):
            return data, found.content, False
        with session_files.locked(path) as locked:
            if locked is not None and locked.found == found:
                locked.remove()
        return {}, None, True

    def _data_of(self, found: Found) -> Any:
        # Django's placeholder, which it makes before it writes.
        return self.decode(_text(found.content)) if found.content else {}

    def _is_expired(self, data: Any, found: Found) -> bool:
        expiry = data.get("_session_expiry") if isinstance(data, dict) else None
        if not expiry:
            zone = datetime_timezone.utc if settings.USE_TZ else None
            modified = datetime.fromtimestamp(found.modified, tz=zone)
            expiry = modified + timedelta(seconds=self.get_session_cookie_age())
        return bool(self.get_expiry_age(expiry=expiry) <= 0)

    @notes_outage
    def exists(self, session_key: str | None) -> bool:
        """Tell whether there is a file for this key, expired or not."""
        return session_files.exists(self._path(session_key))

    # Writing.

    @notes_outage
    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Store the session.

        Raises ``CreateError`` if ``must_create`` and the key is taken, ``UpdateError`` if not
        ``must_create`` and the file is gone, and ``StoreUnavailableError``. If others have saved
        the session since it was loaded, ``SESSION_ON_CONFLICT`` says what happens.
        """
        if self.session_key is None:
            self.create()
            return
        data = self._get_session(no_load=must_create)
        path = self._path()
        if not must_create:
            self._replace(path)
            return
        content = self.encode(data).encode()
        if not session_files.create(path, content):
            raise CreateError
        self._saved(content)

    @notes_outage
    def delete(self, session_key: str | None = None) -> None:
        """Remove the file of this key, or of the session's own; a missing one is fine."""
        key = self.session_key if session_key is None else session_key
        if key is None:
            return
        with session_files.locked(self._path(key)) as locked:
            if locked is not None:
                locked.remove()

    @notes_outage
    def delete_loaded(self) -> bool:
        """Remove the file if it still is what was loaded or saved last; tell whether it was."""
        if self.session_key is None or self._loaded is None:
            return False
        with session_files.locked(self._path()) as locked:
            if locked is None or locked.found.content != self._loaded:
                return False
            locked.remove()
            return True

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
            self._rotate(self._path())
        else:
            super().cycle_key()

    def _saved(self, content: bytes) -> None:
        self._touched = frozenset()
        self._loaded = content

    def _replace(self, path: Path) -> None:
        mode = self._on_conflict()
        if mode == "overwrite":
            self._loaded = None
        for _ in range(MAX_SAVE_TRIES):
            with session_files.locked(path) as locked:
                if locked is None:
                    raise UpdateError
                self._reconcile(locked, mode)
                content = self.encode(self._session_cache).encode()
                replaced = locked.replace(content, whatever=self._loaded is None)
            if replaced is None:
                raise UpdateError
            if replaced:
                self._saved(content)
                return
        raise SessionConflictError

    def _reconcile(self, locked: Locked, mode: Any) -> None:
        """Bring the session together with what is stored by now."""
        content = locked.found.content
        if self._loaded is None or content == self._loaded:
            return
        latest = self._decode_content(content)
        if latest is None:
            # Nobody can read it, so nobody loses anything.
            self._loaded = None
            return
        if self._is_expired(latest, locked.found):
            raise UpdateError
        before = self._decode_content(self._loaded)
        if mode == "error":
            if not same_value(before, latest):
                raise SessionConflictError
        else:
            resolve = mode if callable(mode) else None
            self._merge(before or {}, latest, resolve, self._plain)
        self._loaded = content

    def _decode_content(self, content: bytes) -> Any:
        return self._decode_stored(_text(content)) if content else {}

    def _rotate(self, old: Path) -> None:
        mode = self._on_conflict()
        if mode == "overwrite":
            self._loaded = None
        before = None if self._loaded is None else self._decode_content(self._loaded)
        of_user = before is not None and USER_ID_KEY in before
        with session_files.locked(old) as locked:
            try:
                if locked is None:
                    raise UpdateError
                # There is nothing to be said against moving what others have saved.
                self._reconcile(locked, "merge" if mode == "error" else mode)
            except UpdateError as error:
                if not of_user:
                    # Another request has moved it, as two clicks on one button do.
                    self.create()
                    return
                self._end()
                raise SessionEndedError from error
            self.create()
            if locked is not None:
                locked.remove()

    @classmethod
    def clear_expired(cls) -> None:
        """Remove the files that have expired, and those that a writer who was killed has left."""
        directory, prefix = Path(cls._get_storage_path()), settings.SESSION_COOKIE_NAME
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(prefix)]
        for name in names:
            key, temporary, _ = name.removeprefix(prefix).partition(session_files.TEMPORARY)
            if not set(key).issubset(VALID_KEY_CHARS):
                continue
            if temporary:
                session_files.remove_abandoned(directory / name)
                continue
            # One of another user, or one that is being written, is not for us to judge.
            with suppress(StoreUnavailableError, TypeError, ValueError):
                cls(key)._read()  # noqa: SLF001 - its own

    # The asynchronous twins.

    async def _run(self, method: Callable[..., Any], *args: Any) -> Any:
        # No connection of Django's is needed, so neither is its one thread.
        return await sync_to_async(method, thread_sensitive=False)(*args)

    @classmethod
    async def aclear_expired(cls) -> None:
        """See ``clear_expired()``."""
        await sync_to_async(cls.clear_expired, thread_sensitive=False)()


def _text(content: bytes) -> str:
    # What is not even text does not become signed by a replaced character.
    return content.decode("ascii", "replace")
