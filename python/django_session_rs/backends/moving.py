"""The moving engine: sessions that go from one engine to another while the site runs.

``SESSION_MOVING_FROM`` and ``SESSION_MOVING_TO`` name two engines, Django's or others. A session is
read from the second, and from the first if it is not there; whoever saves one that is in the first
alone moves it. With ``SESSION_MOVING_WRITE = "both"`` the first keeps it, as it is saved.
Moving back is the same with the two exchanged, and processes of both kinds may run side by side:
``docs/moving.md`` has the steps.

The rules are those of the Rust ``MovingStore`` (``docs/adr/0022``). A session is moved in two
steps: it is created in the one engine, and what was read is taken out of the other, or replaced
there, if it still is what was read. In between it is marked, and whoever reads it looks whether the
other one still has it. The two engines each keep to their own rules. Where one is
Django's, that of this package with the same name stands in for it: it reads and writes the same,
and compares before it writes.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import time
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib.sessions.backends import signed_cookies
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.backends.db import SessionStore as DjangoDatabaseStore
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router

from django_session_rs.backends import native
from django_session_rs.backends.conflicts import (
    MAX_SAVE_TRIES,
    USER_ID_KEY,
    SessionEndedError,
    keeping_key,
    notes_outage,
    noting_outage,
    setting,
)
from django_session_rs.backends.keys import new_session_key
from django_session_rs.backends.signed_text import SignedTextSession
from django_session_rs.exceptions import SessionConflictError, is_outage
from django_session_rs.merge import same_value
from django_session_rs.twins import call

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from django.db.backends.base.base import BaseDatabaseWrapper

    # What a step asks for: a method of a session of one of the engines and its arguments, or
    # nothing but a pause.
    _Steps = Generator[tuple[Any, ...], Any, Any]

__all__ = ["SessionStore"]

#: Engines of Django's, and those of ours that stand in for them.
STAND_INS = {
    f"django.contrib.sessions.backends.{name}": f"django_session_rs.backends.{name}"
    for name in ("cache", "cached_db", "db", "file")
}

logger = logging.getLogger("django.contrib.sessions")

FROM = "SESSION_MOVING_FROM"
TO = "SESSION_MOVING_TO"

#: How often a step is taken again that others have overtaken.
LOOKS = 64
#: How often to look whether somebody is done who is moving a session. One who does not come to an
#: end was killed there, or is slow.
PATIENCE = 512
#: How often neither engine has a session that is none.
MISSES = 3

#: The name that a session has where it moves to, for as long as it may still be where it was.
MARK = "_session_moving"
#: How long in seconds to wait before another look.
PAUSE = 0.002


class _Held(NamedTuple):
    """A session of one of the two engines, as it was loaded or saved last."""

    #: ``FROM`` or ``TO``.
    place: str
    session: Any
    #: What was in it, which nobody changes.
    data: Any
    #: What marks it, if it may still be where it was.
    mark: Any = None


class _OvertakenError(Exception):
    """Somebody else has changed or moved the session since it was loaded."""


class SessionStore(SignedTextSession):
    """A session in one of two engines.

    Subclass it as Django's; ``get_session_cookie_age`` is asked for both engines. Everything else
    is theirs: a custom model, a prefix, a serializer. The asynchronous methods await those of the
    engines.
    """

    #: What ``SESSION_MOVING_FROM``, ``SESSION_MOVING_TO`` and ``SESSION_MOVING_WRITE`` are for this
    #: class, if not what the settings say.
    moving_from: str | None = None
    moving_to: str | None = None
    moving_write: str | None = None

    # Where it was loaded from or saved to last.
    _loaded: _Held | None = None

    # Reading.

    @notes_outage
    def load(self) -> Any:
        """Return the stored session; ``{}`` and no key any more if neither engine has it."""
        return _taken(self._open())

    async def aload(self) -> Any:
        """See ``load()``."""
        with noting_outage(self):
            return await _awaited(self._open())

    @notes_outage
    def exists(self, session_key: str | None) -> bool:
        """Tell whether one of the engines has a session with this key."""
        return bool(session_key) and bool(_taken(self._is_there(str(session_key))))

    async def aexists(self, session_key: str | None) -> bool:
        """See ``exists()``."""
        with noting_outage(self):
            return bool(session_key) and bool(await _awaited(self._is_there(str(session_key))))

    def _open(self) -> _Steps:
        key = self.session_key
        held = None if key is None else (yield from self._find(key))
        if "_session_cache" not in self.__dict__:
            # Somebody may load a session that is loaded already, only to look at it.
            self._forget()
            self._loaded = held
        if held is None:
            self._session_key = None
            return {}
        return copy.deepcopy(held.data)

    def _is_there(self, session_key: str) -> _Steps:
        # Asked again, as in `_find`.
        for place in (TO, FROM, TO, FROM):
            if (yield self._part(place), "exists", session_key):
                return True
        return False

    def _find(self, session_key: str) -> _Steps:
        misses, seen = 0, None
        for _ in range(LOOKS):
            new = yield from self._look(TO, session_key)
            if new is not None and new.mark is None:
                return new
            old = yield from self._look(FROM, session_key)
            if old is not None and old.mark is None:
                return old
            found = new if old is None else old
            if found is None:
                # Asked again: somebody may move it between the two questions, and where both
                # directions run side by side somebody else may move it back.
                misses += 1
                if misses == MISSES:
                    return None
                continue
            # Whoever marked it is done, if it is the same after the other engine had none.
            if seen is not None and (seen.place, seen.mark) == (found.place, found.mark):
                return found
            seen = found
            yield (None,)
        raise SessionConflictError

    def _look(self, place: str, session_key: str) -> _Steps:
        session = self._part(place, session_key)
        data = yield session, "load"
        if session.session_key == session_key:
            return _Held(place, session, data, data.pop(MARK, None))
        if session.session_key is not None:
            # The file engine has made a new one in place of one that has expired.
            yield session, "delete"
        return None

    def _part(self, place: str, session_key: str | None = None, data: Any = None) -> Any:
        """Return a session of one of the engines, which has this data if any is given."""
        session: Any = self._engines()[place](session_key)
        session._rule = "error"  # noqa: SLF001 - what others have changed is brought in here
        if type(self).get_session_cookie_age is not SessionBase.get_session_cookie_age:
            session.get_session_cookie_age = self.get_session_cookie_age
        if data is not None:
            session._session_cache = data  # noqa: SLF001 - as Django's engines set it
        return session

    # Writing.

    @notes_outage
    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Store the session, and move it if it is not where it is to be.

        Raises ``CreateError`` if ``must_create`` and the key is taken in one of the engines,
        ``UpdateError`` if not ``must_create`` and the session is gone, and what the engines raise
        in an outage. If others have saved the session since it was loaded, ``SESSION_ON_CONFLICT``
        says what happens.
        """
        if self.session_key is None:
            self.create()
            return
        self._get_session(no_load=must_create)
        _taken(self._add() if must_create else self._save())

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
        """See ``save()``."""
        with noting_outage(self):
            if self.session_key is None:
                await self.acreate()
                return
            await self._aget_session(no_load=must_create)
            await _awaited(self._add() if must_create else self._save())

    def create(self) -> None:
        """Store the session under a new key."""
        with noting_outage(self):
            self._get_session(no_load=True)
            _taken(self._create())

    async def acreate(self) -> None:
        """See ``create()``."""
        with noting_outage(self):
            await self._aget_session(no_load=True)
            await _awaited(self._create())

    @notes_outage
    def delete(self, session_key: str | None = None) -> None:
        """Delete the session of this key, or this one, from both engines; a missing one is fine."""
        key = self.session_key if session_key is None else session_key
        if key is not None:
            _taken(self._remove(key))

    async def adelete(self, session_key: str | None = None) -> None:
        """See ``delete()``."""
        with noting_outage(self):
            key = self.session_key if session_key is None else session_key
            if key is not None:
                await _awaited(self._remove(key))

    @notes_outage
    def cycle_key(self) -> None:
        """Move the session to a new key, which makes a stolen one useless.

        What others save under the old key in the meantime moves along. Raises an ``UpdateError`` if
        the session of a user was deleted meanwhile: somebody has logged out, and there is no
        session under the new key either.
        """
        self._get_session()
        _taken(self._rotate())

    async def acycle_key(self) -> None:
        """See ``cycle_key()``."""
        with noting_outage(self):
            await self._aget_session()
            await _awaited(self._rotate())

    @classmethod
    def clear_expired(cls) -> None:
        """Delete what has expired in both engines."""
        for engine in cls._engines().values():
            engine.clear_expired()

    @classmethod
    async def aclear_expired(cls) -> None:
        """See ``clear_expired()``."""
        for engine in cls._engines().values():
            await call(engine(), "clear_expired")

    # The settings.

    @classmethod
    def _engines(cls) -> dict[str, type[Any]]:
        found = {}
        for name, own in ((FROM, cls.moving_from), (TO, cls.moving_to)):
            path = setting(name, None) if own is None else own
            if not isinstance(path, str) or not path:
                raise ImproperlyConfigured(
                    f"{name} must name the module of a session engine, such as "
                    "'django.contrib.sessions.backends.db'."
                )
            found[name] = _engine(name, path)
        if found[FROM] is found[TO]:
            raise ImproperlyConfigured(f"{FROM} and {TO} must be two engines.")
        return found

    @classmethod
    def _writes_both(cls) -> bool:
        own = cls.moving_write
        value = setting("SESSION_MOVING_WRITE", "new") if own is None else own
        if value not in ("new", "both"):
            raise ImproperlyConfigured("SESSION_MOVING_WRITE must be 'new' or 'both'.")
        return bool(value == "both")

    @classmethod
    def _is_bound(cls) -> bool:
        """Whether what is created is undone with a transaction, and what is taken out is not."""
        engines = cls._engines()
        connection = _connection(engines[TO])
        if connection is None or not connection.in_atomic_block:
            return False
        return _connection(engines[FROM]) is not connection

    # The steps.

    def _create(self) -> _Steps:
        with keeping_key(self):
            while True:
                self._session_key = self._get_new_session_key()
                try:
                    yield from self._add()
                except CreateError:
                    continue
                self.modified = True
                return

    def _add(self) -> _Steps:
        key, data = self._get_or_create_session_key(), self._session_cache
        beside = None
        if self._writes_both():
            # First, so that it shows that the key is taken before anybody could read another's
            # session.
            beside = self._part(FROM, key, data)
            yield beside, "save", True
        elif (yield self._part(FROM), "exists", key):
            raise CreateError
        session = self._part(TO, key, data)
        try:
            yield session, "save", True
        except Exception:
            if beside is not None:
                # If that fails too, a session is left that nobody knows the key of.
                with suppress(Exception):
                    yield from self._delete_held(_Held(FROM, beside, data))
            raise
        self._written(TO, session)

    def _save(self) -> _Steps:
        key, mode = str(self.session_key), self._on_conflict()
        if mode == "overwrite":
            self._loaded = None
        for _ in range(MAX_SAVE_TRIES):
            try:
                yield from self._write(key)
            except _OvertakenError:
                pass
            else:
                return
            found = yield from self._find(key)
            if found is None:
                raise UpdateError
            before = self._data_before()
            if not self._is_same(before, found.data):
                if mode == "error":
                    raise SessionConflictError
                self._bring_together(before, found.data, mode)
            self._loaded = found
        raise SessionConflictError

    def _write(self, key: str) -> _Steps:
        held = self._loaded
        if held is None:
            yield from self._write_whatever(key)
        elif held.place == TO:
            beside = yield from self._copy_beside(key)
            yield from self._replace(held)
            yield from self._keep_copy(key, beside)
            self._written(TO, held.session)
        elif self._is_bound():
            # What is created there goes again if the transaction is undone, and what was taken out
            # here would not come back. It moves another time.
            yield from self._replace(held)
            self._written(FROM, held.session)
        else:
            yield from self._bring_over(key, held)

    def _replace(self, held: _Held, data: Any = None) -> _Steps:
        """Save this session, or what is given, where that is held which is replaced."""
        held.session._session_cache = self._session_cache if data is None else data  # noqa: SLF001
        try:
            yield held.session, "save"
        except (SessionConflictError, UpdateError):
            raise _OvertakenError from None

    def _bring_over(self, key: str, held: _Held) -> _Steps:
        marked = {**self._session_cache, MARK: new_session_key()}
        session = self._part(TO, key, marked)
        try:
            yield session, "save", True
        except CreateError:
            taken = yield from self._take_over(key)
            # Should he wake up after all, this is not what he has read. From here on it is saved.
            yield from self._replace(held)
            try:
                yield from self._replace(taken)
            except _OvertakenError:
                # Somebody has gone on from what is where it was.
                self._written(FROM, held.session)
            else:
                self._written(TO, taken.session)
            return
        if (yield from self._take_out(held)):
            session._session_cache = self._session_cache  # noqa: SLF001
            try:
                yield session, "save"
            except Exception:  # noqa: BLE001
                # It is moved, and somebody has gone on from here. Or the mark stays, which costs
                # those a look who read it.
                logger.debug("A mark is left on a session that was moved")
            self._written(TO, session)
            return
        if (yield from self._look(FROM, key)) is None:
            # It was deleted. Whatever others have made of what was created here goes too.
            yield from self._remove(key)
        elif not (
            # If somebody has saved it by now, that stays.
            (yield from self._delete_held(_Held(TO, session, marked)))
            or (yield self._part(TO), "exists", key)
        ):
            # Somebody has moved it the other way, where there was nothing in its way: what was
            # there had been deleted.
            yield from self._remove(key)
        raise _OvertakenError

    def _take_over(self, key: str) -> _Steps:
        """Put another mark on a marked session that nobody goes on with, and return it.

        Whoever moved it was killed, or is slow; nobody else takes it over then. It stays what it
        was: he may still take his second step, and then it is the session.
        """
        before: Any = None
        for _ in range(PATIENCE):
            found = yield from self._look(TO, key)
            if found is None or found.mark is None:
                raise _OvertakenError
            if before is not None and before.mark != found.mark:
                raise _OvertakenError
            before = found
            yield (None,)
        yield from self._replace(before, {**before.data, MARK: new_session_key()})
        return before

    def _take_out(self, held: _Held) -> _Steps:
        if not self._writes_both():
            return (yield from self._delete_held(held))
        try:
            yield from self._replace(held)
        except _OvertakenError:
            return False
        return True

    def _delete_held(self, held: _Held) -> _Steps:
        """Delete a session that still is what is held, and tell whether it was."""
        session = held.session
        if hasattr(session, "delete_loaded") and (yield session, "delete_loaded"):
            return True
        if not _is_unread(session):
            return False
        # An engine that does not compare, or a session that it cannot read.
        found = yield from self._look(held.place, session.session_key)
        if found is None or not self._is_same(found.data, held.data):
            return False
        yield session, "delete"
        return True

    def _copy_beside(self, key: str) -> _Steps:
        """Return the copy beside a session that is where sessions move to."""
        beside = yield from self._look(FROM, key)
        if beside is not None and beside.mark is not None and not self._writes_both():
            # Whoever moves it the other way sees to it himself.
            return None
        return beside

    def _keep_copy(self, key: str, beside: _Held | None) -> _Steps:
        """See to the copy of a session that was saved.

        Where there is none there will be none, also if both are written: somebody may just be
        deleting the session, who has begun with the copy, and another one would bring it back.
        """
        for _ in range(LOOKS):
            if beside is None:
                return
            with suppress(_OvertakenError):
                yield from self._replace(beside)
                return
            # It was another one. Whoever saved the session last sees to the copy. In this order: a
            # copy that was there before is none of somebody who has saved it later.
            beside = yield from self._copy_beside(key)
            now = yield from self._look(TO, key)
            if now is None or not self._is_same(now.data, self._session_cache):
                return
            yield (None,)
        raise SessionConflictError

    def _write_whatever(self, key: str) -> _Steps:
        """Save the session whatever it is by now, wherever it is."""
        for _ in range(LOOKS):
            beside = yield from self._copy_beside(key)
            session = self._part(TO, key, self._session_cache)
            try:
                yield session, "save"
            except UpdateError:
                if beside is None:
                    raise
                with suppress(_OvertakenError):
                    yield from self._bring_over(key, beside)
                    return
            else:
                yield from self._keep_copy(key, beside)
                self._written(TO, session)
                return
        raise SessionConflictError

    def _remove(self, key: str) -> _Steps:
        # First where it is moved from: whoever brings it over looks there afterwards. And once
        # more, for those who move it the other way meanwhile, and back again.
        for place in (FROM, TO, FROM, TO):
            yield self._part(place), "delete", key

    def _rotate(self) -> _Steps:
        old, left, touched = self.session_key, self._loaded, self._touched
        if old is None:
            yield from self._create()
            return
        mode = self._on_conflict()
        if left is not None and left.place == FROM and self._is_bound():
            # As in `_write`.
            left.session._session_cache = self._session_cache  # noqa: SLF001
            yield left.session, "cycle_key"
            self._session_key = left.session.session_key
            self.modified = True
            self._written(FROM, left.session)
            return
        before = self._data_before()
        of_user = isinstance(before, dict) and USER_ID_KEY in before
        yield from self._create()
        if left is None or mode == "overwrite":
            yield from self._remove(old)
            return
        for _ in range(MAX_SAVE_TRIES):
            if (yield from self._leave(old, left)):
                return
            left = yield from self._find(old)
            if left is None:
                if not of_user:
                    # Another request has moved it, as two clicks on one button do.
                    return
                yield from self._remove(str(self.session_key))
                self._end()
                raise SessionEndedError
            if not self._is_same(before, left.data):
                self._touched = touched
                # There is nothing to be said against moving what others have saved.
                self._bring_together(before, left.data, "merge" if mode == "error" else mode)
                yield from self._save()
                before = left.data
        raise SessionConflictError

    def _leave(self, key: str, held: _Held) -> _Steps:
        """Remove a session that still is what is held, and tell whether it was."""
        if held.place == TO:
            # The copy first: it would be the session as soon as the other one is gone.
            yield self._part(FROM), "delete", key
            return (yield from self._delete_held(held))
        if (yield self._part(TO), "exists", key):
            try:
                yield from self._take_over(key)
            except _OvertakenError:
                return False
        if not (yield from self._delete_held(held)):
            return False
        # Whoever is bringing it over finds that it is gone, if nobody kills him before.
        try:
            yield self._part(TO), "delete", key
        except Exception as error:
            if not is_outage(error):
                raise
            logger.warning("A session that was being moved may be left")
        return True

    # What was loaded, and what is there.

    def _data_before(self) -> Any:
        return None if self._loaded is None else self._loaded.data

    def _written(self, place: str, session: Any) -> None:
        self._touched = frozenset()
        self._loaded = _Held(place, session, copy.deepcopy(self._session_cache))

    def _bring_together(self, before: Any, stored: Any, mode: Any) -> None:
        """Bring what others have stored into the session."""
        resolve = mode if callable(mode) else None
        self._merge(self._plain(before or {}), self._plain(stored), resolve, self._plain)

    def _plain(self, data: Any) -> Any:
        # Both engines may have stored it, so this is what the one that it is for would make of it.
        plain = getattr(self._part(TO), "_plain", copy.deepcopy)
        try:
            return plain(data)
        except Exception:  # noqa: BLE001 - a serializer may raise anything, and saving tells
            return copy.deepcopy(data)

    def _is_same(self, one: Any, other: Any) -> bool:
        if not isinstance(one, dict) or not isinstance(other, dict):
            return one is other
        return same_value(one, other) or same_value(self._plain(one), self._plain(other))


# Taking the steps: here, or awaited.


def _taken(steps: _Steps) -> Any:
    """Take steps one after the other, and return what comes of them."""
    answer, failure = None, None
    while True:
        try:
            asked = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration as end:
            return end.value
        answer, failure = None, None
        target, *method = asked
        try:
            if target is None:
                time.sleep(PAUSE)
            else:
                answer = getattr(target, method[0])(*method[1:])
        except Exception as error:  # noqa: BLE001 - whoever asked knows what to do about it
            failure = error


async def _awaited(steps: _Steps) -> Any:
    """As ``_taken``, by the asynchronous methods."""
    answer, failure = None, None
    while True:
        try:
            asked = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration as end:
            return end.value
        answer, failure = None, None
        target, *method = asked
        try:
            if target is None:
                await asyncio.sleep(PAUSE)
            else:
                answer = await call(target, *method)
        except Exception as error:  # noqa: BLE001 - as in `_taken`
            failure = error


def _is_unread(session: Any) -> bool:
    """Whether an engine does not know what it loaded: it never compares, or cannot read it."""
    return getattr(session, "_loaded", None) is None and getattr(session, "_stored", None) is None


def _import_engine(name: str, path: str) -> type[Any]:
    try:
        found: type[Any] = import_module(STAND_INS.get(path, path)).SessionStore
    except (AttributeError, ImportError) as error:
        raise ImproperlyConfigured(f"{name} names a module without a session engine.") from error
    if issubclass(found, (SessionStore, signed_cookies.SessionStore)):
        raise ImproperlyConfigured(f"{name} must name an engine that keeps sessions itself.")
    return found


# Asked several times in each request.
_engine: Callable[[str, str], type[Any]] = functools.lru_cache(maxsize=16)(_import_engine)


def _connection(engine: type[Any]) -> BaseDatabaseWrapper | None:
    """Return Django's connection to which an engine writes, if it has one."""
    if not issubclass(engine, DjangoDatabaseStore):
        return None
    if issubclass(engine, native.SessionStore) and native._store(engine, "error") is not None:  # noqa: SLF001
        return None
    return connections[router.db_for_write(engine.get_model_class())]
