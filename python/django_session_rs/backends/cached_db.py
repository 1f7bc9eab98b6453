"""The cached_db engine: the database engine with a cache before it, whose copies end with rows.

Mirrors ``django.contrib.sessions.backends.cached_db`` of Django 4.2 to 6.1 and is a subclass of it.
The row is the session; what is in the cache is a copy that readers trust without a look at the row.
So a copy must never outlive its row, nor hide a later state of it:

* A copy is **added** only by who has just created the row, or who holds the row's lock. A delete,
  by Django too, waits for the lock, and takes the copy away afterwards.
* A copy is **replaced** only if it is the very one that was there before the row was changed.
  Otherwise it is taken away.

The reasons are in ``docs/adr/0012-a-copy-in-the-cache.md``. A cache that is away is an error where
a copy might stay behind; where it is only read, the row answers. A cache without an operation that
compares and sets (see ``cache_entries``) has its copies taken away where others have them replaced.
What stock Django does beside it is its own: its readers put a session into the cache without
holding the row.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.cached_db import KEY_PREFIX
from django.contrib.sessions.backends.cached_db import SessionStore as DjangoSessionStore
from django.core.cache.backends.base import InvalidCacheKey
from django.db import DatabaseError, transaction
from django.utils import timezone

from django_session_rs.backends import db
from django_session_rs.backends.cache_entries import (
    Entries,
    Entry,
    Written,
    entries_of,
    without_keys,
)
from django_session_rs.backends.conflicts import notes_outage
from django_session_rs.backends.session_table import fetch, plan_of
from django_session_rs.exceptions import (
    CorruptSessionError,
    SessionConflictError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_session_rs.backends.session_table import Plan

__all__ = ["KEY_PREFIX", "SessionStore"]

# Where Django reports the same.
logger = logging.getLogger("django.contrib.sessions")


class SessionStore(db.SessionStore, DjangoSessionStore):  # pyright: ignore
    """A session in the database and the cache, as Django's ``cached_db.SessionStore``.

    Subclass it as Django's: ``cache_key_prefix``, and what the ``db`` engine has.
    """

    # The copy that was read or written last; nothing if there was none, or none is known.
    _copy: Entry | None = None
    # Whether that is what was loaded, so that nobody knows what the row is.
    _is_copy: bool = False

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._entries: Entries = entries_of(self._cache)

    if TYPE_CHECKING:
        # Django's own, which its type stubs leave out.
        _cache: Any

    def _copy_key(self, session_key: str) -> str:
        return f"{self.cache_key_prefix}{session_key}"

    def _forget(self) -> None:
        super()._forget()
        self._is_copy = False

    # Reading.

    @notes_outage
    def exists(self, session_key: str | None) -> bool:
        """Tell whether there is a copy or a row with this key."""
        if not session_key:
            return False
        try:
            if self._entries.has_key(self._copy_key(session_key)):
                return True
        except InvalidCacheKey:
            pass
        except StoreUnavailableError as error:
            _warn(error)
        return super().exists(session_key)

    def _load(self) -> Any:
        if self.session_key is None:
            return {}
        try:
            entry = self._entries.get(self._copy_key(self.session_key))
        except (CorruptSessionError, InvalidCacheKey):
            # The row knows better. The copy goes at the next save.
            return self._load_row(None)
        except StoreUnavailableError as error:
            _warn(error)
            return self._load_row(None)
        if entry is None:
            return self._fill(self.session_key)
        if "_session_cache" not in self.__dict__:
            self._forget()
            self._copy, self._is_copy = entry, True
        return entry.value

    def _load_row(self, copy: Entry | None) -> Any:
        if "_session_cache" not in self.__dict__:
            self._copy = copy
        return super()._load()

    def _fill(self, session_key: str) -> Any:
        """Load the row, and put a copy into the cache while nobody can delete it."""
        plan = plan_of(self.model)
        connection = plan.connection_for_write(session_key)
        if not self._can_hold(plan, connection):
            return self._load_row(None)
        if connection.in_atomic_block:
            # A lock would last as long as the transaction around, and stop others.
            def later() -> None:
                # Its name is what Django logs, which a partial has none of.
                self._fill_later(session_key, plan, connection)

            transaction.on_commit(later, using=connection.alias, robust=True)
            return self._load_row(None)
        try:
            found = self._read_held(session_key, plan, connection)
        except DatabaseError:
            # It has one try, and may wait for whoever writes the row. To read it takes neither.
            return self._load_row(None)
        if found is None:
            # There is none, or it has another spelling, or nobody waits for who is writing it.
            return self._load_row(None)
        stored, data, entry = found
        if "_session_cache" not in self.__dict__:
            self._forget()
            self._loaded, self._copy = stored, entry
        return data

    def _can_hold(self, plan: Plan, connection: BaseDatabaseWrapper) -> bool:
        if self._reads_instance or not plan.plain_read(connection):
            return False
        # Whoever ends transactions by hand holds a lock for as long as it pleases.
        return connection.in_atomic_block or connection.get_autocommit()

    def _fill_later(self, session_key: str, plan: Plan, connection: BaseDatabaseWrapper) -> None:
        if connection.in_atomic_block:
            return
        try:
            self._read_held(session_key, plan, connection)
        except Exception as error:  # noqa: BLE001 - what was committed is done without a copy, too
            logger.debug("No copy of a session was made: %s", type(error).__name__)

    def _read_held(
        self, session_key: str, plan: Plan, connection: BaseDatabaseWrapper
    ) -> tuple[str, Any, Entry | None] | None:
        """Return the text of the row, its data, and the copy that was made of it."""
        sql = plan.statements(connection).load_held
        parameters = (
            plan.expire_date(timezone.now(), connection),
            plan.key(session_key, connection),
        )
        with _holding(connection):
            for key, stored, expires, alive in fetch(connection, sql, parameters):
                # To MySQL other spellings are equal, under which nobody would take a copy away.
                if alive and str(key) == session_key:
                    data = self.decode(stored)
                    expire_date = plan.python_date(expires, connection)
                    timeout = self.get_expiry_age(expiry=expire_date)
                    return stored, data, self._add_copy(session_key, data, timeout)
        return None

    def _add_copy(self, session_key: str, data: Any, timeout: int) -> Entry | None:
        if timeout <= 0:
            return None
        try:
            return self._entries.add(self._copy_key(session_key), data, timeout)
        except InvalidCacheKey:
            return None
        except StoreUnavailableError as error:
            _warn(error)
            return None

    # Writing.

    def _knows_row(self) -> bool:
        return not self._is_copy

    def _loaded_data(self) -> Any:
        if not self._is_copy or self._copy is None:
            return super()._loaded_data()
        data = self._entries.loads(self._copy.snapshot)
        # As the row has it: a copy may hold what JSON has no form for.
        return self._plain(data) if isinstance(data, dict) else None

    def _adopt(self, stored: str) -> None:
        super()._adopt(stored)
        self._is_copy = False

    def _saved(self, session_data: str, connection: BaseDatabaseWrapper) -> None:
        super()._saved(session_data, connection)
        self._is_copy = False

    def _write(self, data: Any, must_create: bool) -> None:  # noqa: FBT001 - as `save`
        with self._without_row(must_create=must_create):
            super()._write(data, must_create)

    def _write_instance(
        self,
        instance: Any,
        must_create: bool,  # noqa: FBT001 - as `save`
        build: Callable[[Any], Any],
    ) -> None:
        with self._without_row(must_create=must_create):
            super()._write_instance(instance, must_create, build)

    @contextmanager
    def _without_row(self, *, must_create: bool) -> Iterator[None]:
        """Take away a copy that has outlived its row."""
        key = self.session_key
        if not must_create and key is not None:
            self._look_at_copy(key)
        try:
            yield
        except UpdateError:
            if key is not None:
                try:
                    self._forget_copy(key)
                except StoreUnavailableError as error:
                    _warn(error)
            raise

    def _look_at_copy(self, session_key: str) -> None:
        """Ask which state the copy is of, where the server did not say when it was written."""
        if self._copy is None or self._copy.revision is not None:
            return
        try:
            self._copy = self._entries.get(self._copy_key(session_key))
        except (CorruptSessionError, InvalidCacheKey):
            self._copy = None
        except StoreUnavailableError as error:
            _warn(error)
            self._copy = None

    def _row_written(self, connection: BaseDatabaseWrapper, *, must_create: bool) -> None:
        key = str(self.session_key)
        if must_create:
            self._copy_new(key)
        else:
            self._renew(key, connection)

    def _row_moved(self, old: str, connection: BaseDatabaseWrapper) -> None:  # noqa: ARG002
        # Once more, for who has read the row meanwhile.
        self._forget_copy(old)
        self._copy_new(str(self.session_key))

    def _copy_new(self, session_key: str) -> None:
        """Make a copy of a session whose key nobody knows, so that nobody can have deleted it."""
        self._copy = None
        key, timeout = self._copy_key(session_key), self.get_expiry_age()
        try:
            if not self._entries.compares:
                self._cache.set(key, self._session_cache, timeout)
                return
            self._copy = self._entries.add(key, self._session_cache, timeout)
        except InvalidCacheKey:
            return
        except Exception as error:
            # There is no copy then, and the row answers.
            shown = without_keys(error, session_key)
            logger.exception("Error saving to cache (%s)", self._cache, exc_info=shown)
            return
        if self._copy is None:
            # Left behind by somebody else.
            self._entries.delete(key)

    def _renew(self, session_key: str, connection: BaseDatabaseWrapper) -> None:
        """Put what is stored now in place of the copy that was there before, or take it away."""
        key, before = self._copy_key(session_key), self._copy
        self._copy = None
        timeout = self.get_expiry_age()
        replaceable = (
            before is not None
            and before.revision is not None
            and self._entries.compares
            and timeout > 0
            # What is not committed is not to be seen, and may be undone.
            and not connection.in_atomic_block
        )
        try:
            if replaceable and before is not None:
                written, entry = self._entries.replace(
                    key, self._session_cache, timeout, before.revision
                )
                if written is Written.DONE:
                    self._copy = entry
                if written is not Written.CHANGED:
                    return
            self._entries.delete(key)
        except InvalidCacheKey:
            return

    def _forget_copy(self, session_key: str) -> None:
        try:
            self._entries.delete(self._copy_key(session_key))
        except InvalidCacheKey:
            return

    def _rotate(self, old: str, plan: Plan, connection: BaseDatabaseWrapper) -> None:
        # First what may fail and change nothing: a copy that came back with the cache would be the
        # session.
        self._forget_copy(old)
        super()._rotate(old, plan, connection)

    def _delete_row(self, session_key: str) -> None:
        # Before the row, so that nothing has happened if the cache is away. After the row, because
        # a reader may have made another one.
        self._forget_copy(session_key)
        super()._delete_row(session_key)
        self._forget_copy(session_key)

    @notes_outage
    def delete_loaded(self) -> bool:
        """See ``db``: the row, and its copy."""
        key = self.session_key
        return key is not None and self._delete_loaded_row(key)

    def _delete_loaded_row(self, session_key: str) -> bool:
        if not self._knows_row():
            plan = plan_of(self.model)
            try:
                connection = plan.connection_for_write(session_key)
                self._reconcile(session_key, None, "error", plan, connection)
            except (SessionConflictError, UpdateError):
                return False
        if self._loaded is None:
            return False
        self._forget_copy(session_key)
        deleted = super()._delete_loaded_row(session_key)
        self._forget_copy(session_key)
        return deleted


def _warn(error: StoreUnavailableError) -> None:
    """Say that the cache is away, which costs time and nothing else as long as it is only read."""
    logger.warning("The cache before the sessions failed (%s)", error.reason)


@contextmanager
def _holding(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Have a transaction in which nobody changes or deletes the row that is read."""
    if connection.vendor != "sqlite":
        with transaction.atomic(using=connection.alias):
            yield
        return
    # A transaction of Django's would not lock the database before it writes.
    with connection.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            cursor.execute("COMMIT")
