"""The database engine: Django's, with the codec in Rust and plain SQL in place of the ORM.

Mirrors ``django.contrib.sessions.backends.db`` of Django 4.2 to 6.1 and is a subclass of it, so
that everything about a session that is not storage (expiry, test cookie, flags) stays Django's
own. It uses Django's connections through ``connection.cursor()``: routers, transactions,
``TestCase``, query logging and execute wrappers all see its statements.

Three things differ on purpose. Each step is one statement, without a transaction of its own.
``UpdateError`` means that the row is gone; any other database failure is raised as itself, where
Django reports a deadlock or a lost connection as a deleted session. And a save replaces the text
that was loaded: if others have saved the session since, both keep what they changed
(``SESSION_ON_CONFLICT``).

Where plain SQL would skip what the ORM does (signals, an overridden ``Model.save``, table
inheritance, a custom queryset, another database), the ORM does it.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import async_to_sync
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore as DjangoSessionStore
from django.core.exceptions import SuspiciousOperation
from django.db import (
    DEFAULT_DB_ALIAS,
    IntegrityError,
    connections,
    router,
)
from django.utils import timezone

from django_session_rs.backends.conflicts import (
    ASYNC_BASE,
    MAX_SAVE_TRIES,
    USER_ID_KEY,
    SessionEndedError,
    in_thread,
    keeping_key,
    notes_outage,
    noting_outage,
    turn,
)
from django_session_rs.backends.keys import new_session_key
from django_session_rs.backends.session_table import (
    execute,
    fetch,
    insert,
    plan_of,
    save_by_orm,
)
from django_session_rs.backends.signed_text import SignedTextSession
from django_session_rs.exceptions import SessionConflictError
from django_session_rs.merge import same_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.contrib.sessions.base_session import AbstractBaseSession
    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_session_rs.backends.session_table import Plan

__all__ = ["SessionStore"]


class SessionStore(SignedTextSession, DjangoSessionStore):  # pyright: ignore
    """A session in the database, as ``django.contrib.sessions.backends.db.SessionStore``.

    It reads and writes the same rows: the two engines can serve one table together. Subclass it as
    Django's: ``get_model_class``, ``create_model_instance``, ``key_salt``, ``serializer`` and
    ``get_session_cookie_age`` keep their meaning. The asynchronous methods do their database work
    in one hop to Django's database thread each; with Django older than 5.1 only those named here
    exist.
    """

    # The texts that saves within a transaction have replaced: they are back if it is undone.
    _replaced: tuple[str, ...] = ()

    # What this class has replaced of Django's hooks, worked out once.
    _builds_instance: ClassVar[bool] = False
    _reads_instance: ClassVar[bool] = False
    _stock: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._builds_instance = cls._replaces("create_model_instance")
        cls._reads_instance = cls._replaces("_get_session_from_db")
        cls._stock = not cls._replaces(*HOOKS)

    if TYPE_CHECKING:
        # Django's own, which its type stubs leave out.
        def _get_session_from_db(self) -> Any: ...

    @classmethod
    def get_model_class(cls) -> type[AbstractBaseSession]:
        """Return the model that holds the sessions."""
        return _session_model()

    # Reading.

    @notes_outage
    def load(self) -> Any:
        """Return the stored session; ``{}`` and no key any more if there is none or it expired."""
        return self._load()

    @notes_outage
    def exists(self, session_key: str | None) -> bool:
        """Tell whether there is a row with this key, expired or not."""
        if not session_key:
            return False
        plan = plan_of(self.model)
        connection = plan.connection_for_read()
        if not plan.plain_read(connection):
            return bool(DjangoSessionStore.exists(self, session_key))
        sql = plan.statements(connection).exists
        return bool(fetch(connection, sql, (plan.key(session_key, connection),)))

    def _load(self) -> Any:
        stored = self._read()
        # Somebody may load a session that is loaded already, only to look at it.
        if "_session_cache" not in self.__dict__:
            self._forget()
            self._loaded = stored
        return {} if stored is None else self.decode(stored)

    def _read(self) -> str | None:
        key = self.session_key
        if key is None:
            return None
        plan = plan_of(self.model)
        connection = plan.connection_for_read()
        if self._reads_instance or not plan.plain_read(connection):
            row = self._get_session_from_db()
            return row.session_data if row else None
        try:
            rows = self._select(plan.statements(connection).load, plan, connection, key)
        except SuspiciousOperation as error:
            logger = logging.getLogger(f"django.security.{type(error).__name__}")
            logger.warning(str(error))
            rows = []
        for stored, alive in rows:
            if alive:
                return stored  # type: ignore[no-any-return]
        self._session_key = None
        return None

    def _select(self, sql: str, plan: Plan, connection: BaseDatabaseWrapper, key: str) -> list[Any]:
        now = plan.expire_date(timezone.now(), connection)
        return fetch(connection, sql, (now, plan.key(key, connection)))

    # Writing.

    @notes_outage
    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Store the session.

        Raises ``CreateError`` if ``must_create`` and the key is taken, ``UpdateError`` if not
        ``must_create`` and the row is gone, and ``django.db`` exceptions as they are. If others
        have saved the session since it was loaded, ``SESSION_ON_CONFLICT`` says what happens.
        """
        if self.session_key is None:
            self.create()
            return
        self._write(self._get_session(no_load=must_create), must_create)

    @notes_outage
    def delete(self, session_key: str | None = None) -> None:
        """Delete the row of this key, or of the session's own; a missing one is fine."""
        key = self.session_key if session_key is None else session_key
        if key is not None:
            self._delete_row(key)

    @notes_outage
    def delete_loaded(self) -> bool:
        """Delete the row if it still holds what was loaded or saved last; tell whether it did."""
        key = self.session_key
        return key is not None and self._loaded is not None and self._delete_loaded_row(key)

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
            return
        plan = plan_of(self.model)
        connection = connections[DEFAULT_DB_ALIAS]
        plain = (
            self._rotates
            and not router.routers
            and plan.plain_save(connection)
            and plan.plain_delete(connection)
        )
        if plain:
            self._rotate(self.session_key, plan, connection)
        else:
            super().cycle_key()

    @classmethod
    def clear_expired(cls) -> None:
        """Delete all rows that have expired, a thousand by each statement.

        In a transaction it is one statement: the rows would stay locked until it ends anyway.
        """
        plan = plan_of(cls.get_model_class())
        connection = plan.connection_for_write()
        if not plan.plain_delete(connection):
            super().clear_expired()
            return
        statements = plan.statements(connection)
        now = timezone.now()
        # From the beginning, the index of a database leads past all that was deleted just now.
        reached = None
        while not connection.in_atomic_block:
            until = plan.expired_after(reached, now, CLEARED_ROWS, connection)
            if until is None:
                break
            dates = [until] if reached is None else [until, reached]
            sql = statements.clear_until if reached is None else statements.clear_between
            execute(connection, sql, [plan.expire_date(date, connection) for date in dates])
            reached = until
        execute(connection, statements.clear_expired, (plan.expire_date(now, connection),))

    def _write(self, data: Any, must_create: bool) -> None:  # noqa: FBT001 - as `save`
        plan = plan_of(self.model)
        connection = connections[DEFAULT_DB_ALIAS]
        if self._is_row(plan) and not router.routers and plan.plain_save(connection):
            row = functools.partial(self._row, plan, connection, must_create)
            self._write_row(row(data), must_create, plan, connection, row)
        else:
            build = self.create_model_instance
            self._write_instance(build(data), must_create, build)

    def _write_instance(
        self,
        instance: Any,
        must_create: bool,  # noqa: FBT001 - as `save`
        build: Callable[[Any], Any],
    ) -> None:
        plan = plan_of(self.model)
        connection = connections[router.db_for_write(self.model, instance=instance)]
        values = None
        if plan.plain_save(connection) and type(instance) is self.model:
            values = plan.values(instance, connection, must_create)
        if values is None:
            save_by_orm(instance, connection.alias, must_create)
            self._forget()
            self._row_written(connection, must_create=must_create)
            return

        def row(data: Any) -> Sequence[Any] | None:
            return plan.values(build(data), connection, add=False)

        self._write_row(values, must_create, plan, connection, row)

    def _is_row(self, plan: Plan) -> bool:
        """Whether Django's three columns are all that is stored."""
        return plan.three_columns and not self._builds_instance

    def _row(
        self,
        plan: Plan,
        connection: BaseDatabaseWrapper,
        add: bool,  # noqa: FBT001 - Field.pre_save's
        data: Any,
    ) -> Sequence[Any]:
        """Return the columns to write, the key first."""
        if self._is_row(plan):
            key = plan.key(self._get_or_create_session_key(), connection)
            session_data = self.encode(data)
            return key, session_data, plan.expire_date(self.get_expiry_date(), connection)
        values = plan.values(self.create_model_instance(data), connection, add)
        if values is None:
            # Rarely known before; two statements take SQL expressions too.
            raise _NeedsOrmError
        return values

    def _write_row(
        self,
        values: Sequence[Any],
        must_create: bool,  # noqa: FBT001 - as `save`
        plan: Plan,
        connection: BaseDatabaseWrapper,
        row: Callable[[Any], Sequence[Any] | None],
    ) -> None:
        statements = plan.statements(connection)
        if must_create:
            insert(connection, statements.insert, values)
            self._saved(values[plan.data_index], connection)
        else:
            mode = self._on_conflict()
            if mode == "overwrite":
                self._loaded = None
                matched = self._update(values, plan, connection)
            else:
                matched = self._knows_row() and self._update(values, plan, connection)
            if not matched:
                self._write_merged(mode, values, plan, connection, row)
        self._row_written(connection, must_create=must_create)

    def _update(self, values: Sequence[Any], plan: Plan, connection: BaseDatabaseWrapper) -> bool:
        """Replace what was loaded, or if that is not known, what there is."""
        statements = plan.statements(connection)
        key, *rest = values
        if self._loaded is None:
            if not execute(connection, statements.update, (*rest, key)):
                raise UpdateError
        elif not execute(connection, statements.update_loaded, (*rest, key, self._loaded)):
            return False
        self._saved(values[plan.data_index], connection)
        return True

    def _write_merged(
        self,
        mode: Any,
        values: Sequence[Any],
        plan: Plan,
        connection: BaseDatabaseWrapper,
        row: Callable[[Any], Sequence[Any] | None],
    ) -> None:
        """Go on with a save that others have overtaken."""
        session_key = self.session_key or ""
        # What was not tried yet cannot be there already: the same text is somebody else's.
        tried = self._knows_row()
        with turn(session_key):
            for _ in range(MAX_SAVE_TRIES):
                written = values[plan.data_index]
                own = written if tried else None
                tried = True
                if not self._reconcile(session_key, own, mode, plan, connection):
                    self._saved(written, connection)
                    return
                found = row(self._session_cache)
                if found is None:
                    break
                values = found
                if self._update(values, plan, connection):
                    return
        raise SessionConflictError

    def _reconcile(
        self,
        session_key: str,
        written: str | None,
        mode: Any,
        plan: Plan,
        connection: BaseDatabaseWrapper,
    ) -> bool:
        """Bring the session together with what is stored by now; false if that is what was written.

        Raises ``UpdateError`` if it is gone, and ``SessionConflictError``.
        """
        sql = plan.statements(connection).load_latest
        found = self._select(sql, plan, connection, session_key)
        stored = next((text for text, alive in found if alive), None)
        if stored is None:
            raise UpdateError
        if stored == written and (self._loaded in {None, stored} or not callable(mode)):
            # The answer was lost, or nothing is to be changed and the server counts changes. Or
            # somebody wrote the same in the same second, of which a function has to know.
            return False
        latest = self._decode_stored(stored)
        loaded = self._loaded_data()
        if latest is None:
            # Nobody can read it, so nobody loses anything.
            self._forget()
        elif stored in self._replaced:
            # The transaction in which it was replaced has been undone.
            self._adopt(stored)
        elif mode == "error" and not same_value(latest, loaded):
            raise SessionConflictError
        else:
            if mode != "error":
                resolve = mode if callable(mode) else None
                self._merge(loaded or {}, latest, resolve, self._plain)
            self._adopt(stored)
        return True

    def _adopt(self, stored: str) -> None:
        """Take what is stored for what was loaded."""
        self._loaded = stored

    def _knows_row(self) -> bool:
        """Whether what was loaded came from the row, or nothing was."""
        return True

    def _loaded_data(self) -> Any:
        """Return what was loaded; ``None`` if nothing was, or nothing that anybody can read."""
        return None if self._loaded is None else self._decode_stored(self._loaded)

    def _row_written(self, connection: BaseDatabaseWrapper, *, must_create: bool) -> None:
        """Go on after the row was written."""

    def _row_moved(self, old: str, connection: BaseDatabaseWrapper) -> None:
        """Go on after the row was moved to another key."""

    def _rotate(self, old: str, plan: Plan, connection: BaseDatabaseWrapper) -> None:
        mode = self._on_conflict()
        if mode == "overwrite":
            self._forget()
        before = self._loaded_data()
        of_user = before is not None and USER_ID_KEY in before
        for _ in range(MAX_SAVE_TRIES):
            if self._knows_row():
                loaded = self._loaded
                try:
                    if self._move_row(old, plan, connection):
                        self._row_moved(old, connection)
                        self.modified = True
                        return
                except _NeedsOrmError:
                    super().cycle_key()
                    return
                if loaded is None:
                    # It is gone, and whatever it was would have been replaced.
                    self.create()
                    return
            try:
                with turn(old):
                    # There is nothing to be said against moving what others have saved.
                    merging = "merge" if mode == "error" else mode
                    self._reconcile(old, None, merging, plan, connection)
            except UpdateError as error:
                if not of_user:
                    # Another request has moved it, as two clicks on one button do.
                    self.create()
                    return
                self._end()
                raise SessionEndedError from error
        raise SessionConflictError

    def _move_row(self, old: str, plan: Plan, connection: BaseDatabaseWrapper) -> bool:
        """Give the row of a key another one, and what is to be saved, if it is what was loaded."""
        statements = plan.statements(connection)
        loaded = self._loaded
        sql = statements.rotate if loaded is None else statements.rotate_loaded
        where = (plan.key(old, connection), *(() if loaded is None else (loaded,)))
        while True:
            moved = False
            values: Sequence[Any] = ()
            self._session_key = self._get_new_session_key()
            try:
                values = self._row(plan, connection, True, self._session_cache)  # noqa: FBT003
                moved = bool(execute(connection, sql, (*values, *where)))
            except IntegrityError:
                # Another column may be unique too, and another key would not help.
                taken = statements.exists
                if connection.in_atomic_block or not fetch(connection, taken, values[:1]):
                    raise
                continue
            finally:
                if not moved:
                    self._session_key = old
            if moved:
                self._saved(values[plan.data_index], connection)
            return moved

    def _saved(self, session_data: str, connection: BaseDatabaseWrapper) -> None:
        """Take note of what is stored now."""
        if not connection.in_atomic_block:
            self._replaced = ()
        elif self._loaded is not None:
            self._replaced = (*self._replaced, self._loaded)
        self._touched = frozenset()
        self._loaded = session_data

    def _delete_row(self, session_key: str) -> None:
        plan = plan_of(self.model)
        connection = plan.connection_for_write(session_key)
        if plan.plain_delete(connection):
            sql = plan.statements(connection).delete
            execute(connection, sql, (plan.key(session_key, connection),))
        else:
            DjangoSessionStore.delete(self, session_key)

    def _delete_loaded_row(self, session_key: str) -> bool:
        plan = plan_of(self.model)
        connection = plan.connection_for_write(session_key)
        if plan.plain_delete(connection):
            sql = plan.statements(connection).delete_loaded
            parameters = (plan.key(session_key, connection), self._loaded)
            return bool(execute(connection, sql, parameters))
        if self._read() != self._loaded:
            return False
        DjangoSessionStore.delete(self, session_key)
        return True

    # The asynchronous twins: the same work in one hop.

    async def aload(self) -> Any:
        """See ``load()``."""
        with noting_outage(self):
            if self._stock or not ASYNC_BASE:
                return await in_thread(self.load)
            return await in_thread(self._load)

    async def aexists(self, session_key: str | None) -> bool:
        """See ``exists()``."""
        with noting_outage(self):
            return bool(session_key) and await in_thread(self.exists, session_key)

    async def acreate(self) -> None:
        """See ``create()``."""
        with noting_outage(self):
            if self._stock or not ASYNC_BASE:
                await in_thread(self.create)
                return
            with keeping_key(self):
                await super().acreate()

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
        """See ``save()``."""
        with noting_outage(self):
            if self._stock or not ASYNC_BASE:
                await in_thread(self.save, must_create)
                return
            if self.session_key is None:
                await self.acreate()
                return
            data = await self._aget_session(no_load=must_create)
            if self._replaces(*ASYNC_INSTANCE_HOOKS):
                build = self.acreate_model_instance
                instance = await build(data)
                await in_thread(self._write_instance, instance, must_create, async_to_sync(build))
            else:
                await in_thread(self._write, data, must_create)

    async def adelete(self, session_key: str | None = None) -> None:
        """See ``delete()``."""
        with noting_outage(self):
            key = self.session_key if session_key is None else session_key
            if key is not None:
                await in_thread(self._delete_row, key)

    async def adelete_loaded(self) -> bool:
        """See ``delete_loaded()``."""
        with noting_outage(self):
            return bool(await in_thread(self.delete_loaded))

    async def acycle_key(self) -> None:
        """See ``cycle_key()``."""
        with noting_outage(self):
            if self._stock or not ASYNC_BASE:
                await in_thread(self.cycle_key)
            else:
                await super().acycle_key()

    @classmethod
    async def aclear_expired(cls) -> None:
        """See ``clear_expired()``."""
        await in_thread(cls.clear_expired)

    async def _aget_new_session_key(self) -> str:
        if self._replaces("aexists"):
            return await super()._aget_new_session_key()  # type: ignore[misc, no-any-return]
        return new_session_key()


# With none of these replaced, an asynchronous method may run its whole sync twin in the thread.
HOOKS = (
    "_aget_session",
    "_get_session",
    "_get_session_from_db",
    "acreate",
    "acreate_model_instance",
    "acycle_key",
    "aexists",
    "aget_expiry_date",
    "aload",
    "asave",
    "create",
    "create_model_instance",
    "cycle_key",
    "delete",
    "adelete",
    "exists",
    "get_expiry_date",
    "load",
    "save",
)
# With one of these, only the instance it leads to holds what the project wants stored.
ASYNC_INSTANCE_HOOKS = ("acreate_model_instance", "aget_expiry_date", "create_model_instance")


#: How many rows that have expired one statement deletes, if each expired at a time of its own.
CLEARED_ROWS = 1000


class _NeedsOrmError(Exception):
    """A column is filled by an SQL expression."""


def _import_session() -> type[AbstractBaseSession]:
    # Imported late, as Django does: the app registry must be ready, the app not installed.
    from django.contrib.sessions.models import Session  # noqa: PLC0415

    return Session


# Each store asks for its model, and even a repeated import costs as much as a signature.
_session_model: Callable[[], type[AbstractBaseSession]] = functools.cache(_import_session)
