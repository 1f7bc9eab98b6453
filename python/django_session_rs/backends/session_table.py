# ruff: noqa: S608, SLF001 - names are quoted by the backend; `_meta` is how Django shows a model
"""The table of a session model: which SQL reads and writes it, and where only the ORM may."""

from __future__ import annotations

from datetime import datetime
from datetime import timezone as datetime_timezone
from typing import TYPE_CHECKING, Any

from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.core import exceptions
from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    IntegrityError,
    connections,
    models,
    router,
    transaction,
)
from django.db.models import signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.contrib.sessions.base_session import AbstractBaseSession
    from django.db.backends.base.base import BaseDatabaseWrapper

INIT_SIGNALS = (signals.pre_init, signals.post_init)
SAVE_SIGNALS = (*INIT_SIGNALS, signals.pre_save, signals.post_save)
DELETE_SIGNALS = (*INIT_SIGNALS, signals.pre_delete, signals.post_delete)

# `django.core.exceptions.ObjectNotUpdated`, from Django 6.0 on.
OBJECT_NOT_UPDATED: tuple[type[Exception], ...] = tuple(
    filter(None, [getattr(exceptions, "ObjectNotUpdated", None)])
)

UTC = datetime_timezone.utc

# Databases whose SQL is known here.
VENDORS = frozenset({"mysql", "postgresql", "sqlite"})

#: The columns of Django's own model. A field of another class may store something else than what it
#: is given.
STOCK_FIELDS = {
    "session_key": models.CharField,
    "session_data": models.TextField,
    "expire_date": models.DateTimeField,
}


class Statements:
    """The SQL of one model for one kind of database; parameters in the order of the columns."""

    def __init__(self, model: type[AbstractBaseSession], connection: BaseDatabaseWrapper) -> None:
        quote = connection.ops.quote_name
        table, key, data, expires = map(
            quote, (model._meta.db_table, *(_column(model, name) for name in STOCK_FIELDS))
        )
        columns = [quote(field.column) for field in _stored_fields(model)]
        holes = ", ".join(["%s"] * len(columns))
        assignments = ", ".join(f"{column} = %s" for column in columns[1:])
        # The key finds at most one row. PostgreSQL takes longer to plan a query than to run it, and
        # weighs everything in the condition, but nothing that is selected.
        self.load = f"SELECT {data}, {expires} > %s FROM {table} WHERE {key} = %s"
        self.exists = f"SELECT 1 FROM {table} WHERE {key} = %s"
        self.insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({holes})"
        if connection.vendor != "mysql":
            self.insert += f" ON CONFLICT ({key}) DO NOTHING"
        self.update = f"UPDATE {table} SET {assignments} WHERE {key} = %s"
        # Byte by byte: to the collations of MySQL, and of columns that somebody changed, texts are
        # equal that differ in case.
        is_loaded = {
            "mysql": f" AND CAST({data} AS BINARY) = CAST(%s AS BINARY)",
            "postgresql": f' AND {data} COLLATE "C" = %s',
        }.get(connection.vendor, f" AND {data} COLLATE BINARY = %s")
        self.update_loaded = self.update + is_loaded
        self.rotate = f"UPDATE {table} SET {columns[0]} = %s, {assignments} WHERE {key} = %s"
        self.rotate_loaded = self.rotate + is_loaded
        # Even in a transaction that has looked at the row before, a row is locked as it is now.
        self.load_held = (
            f"SELECT {key}, {data}, {expires}, {expires} > %s FROM {table} WHERE {key} = %s"
        )
        self.load_held += _share_lock(connection)
        self.load_latest = self.load + ("" if connection.vendor == "sqlite" else " FOR UPDATE")
        self.delete = f"DELETE FROM {table} WHERE {key} = %s"
        self.delete_loaded = self.delete + is_loaded
        self.clear_expired = f"DELETE FROM {table} WHERE {expires} < %s"
        self.clear_until = f"DELETE FROM {table} WHERE {expires} <= %s"
        self.clear_between = self.clear_until + f" AND {expires} >= %s"


def _column(model: type[models.Model], name: str) -> str:
    field: Any = model._meta.get_field(name)
    return str(field.column)


def _share_lock(connection: BaseDatabaseWrapper) -> str:
    """Return what keeps others from writing the selected rows, and passes over those that are held.

    SQLite locks the whole database beforehand.
    """
    if connection.vendor == "sqlite":
        return ""
    mysql: Any = connection
    is_mariadb = connection.vendor == "mysql" and mysql.mysql_is_mariadb
    lock = " LOCK IN SHARE MODE" if is_mariadb else " FOR SHARE"
    if connection.features.has_select_for_update_skip_locked:
        return f"{lock} SKIP LOCKED"
    return lock


def _stored_fields(model: type[models.Model]) -> list[Any]:
    """Return the columns to write, the key first."""
    fields = [f for f in model._meta.concrete_fields if not getattr(f, "generated", False)]
    return sorted(fields, key=lambda field: not field.primary_key)


class Plan:
    """How the rows of one session model are reached, worked out once per model."""

    def __init__(self, model: type[AbstractBaseSession]) -> None:
        meta = model._meta
        self.model = model
        self.fields = _stored_fields(model)
        self._statements: dict[str, Statements] = {}
        names = {field.name for field in meta.concrete_fields}
        usual = (
            names.issuperset(STOCK_FIELDS)
            and meta.pk.name == "session_key"
            and not meta.parents
            and not meta.proxy
            and _is_stock(model, ("__init__", "from_db"))
            and not hasattr(meta.get_field("session_data"), "from_db_value")
        )
        objects = getattr(model, "objects", None)
        self._reads = usual and _is_plain_manager(objects)
        self._saves = (
            usual
            and _is_plain_manager(model._base_manager)
            and _is_stock(model, ("save", "save_base", "_save_table", "_do_insert", "_do_update"))
        )
        self._deletes = (
            self._reads
            and _is_stock(model, ("delete",))
            and not _leads_elsewhere(meta)
            and not meta.private_fields
        )
        kinds = {field.name: type(field) for field in meta.concrete_fields}
        self.three_columns = kinds == STOCK_FIELDS
        # Where the text is among the columns.
        self.data_index = (
            [field.name for field in self.fields].index("session_data") if usual else 0
        )
        if usual:
            self._key_field: Any = meta.get_field("session_key")
            self._expire_field: Any = meta.get_field("expire_date")
            self._expires_as_usual = type(self._expire_field) is models.DateTimeField

    def plain_read(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether plain SQL does all that loading by the ORM would do."""
        return self._reads and connection.vendor in VENDORS and not self._heard(INIT_SIGNALS)

    def plain_save(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether plain SQL does all that ``Model.save`` would do."""
        return self._saves and connection.vendor in VENDORS and not self._heard(SAVE_SIGNALS)

    def plain_delete(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether plain SQL does all that ``Model.delete`` would do."""
        return self._deletes and connection.vendor in VENDORS and not self._heard(DELETE_SIGNALS)

    def _heard(self, wanted: Sequence[signals.ModelSignal]) -> bool:
        for signal in wanted:  # noqa: SIM110 - a generator costs more than what it would look at
            if signal.receivers and signal.has_listeners(self.model):
                return True
        return False

    def connection_for_read(self) -> BaseDatabaseWrapper:
        """Return the connection that Django would read from."""
        if not router.routers:
            return connections[DEFAULT_DB_ALIAS]
        return connections[router.db_for_read(self.model)]

    def connection_for_write(self, session_key: str | None = None) -> BaseDatabaseWrapper:
        """Return the connection that Django would delete on."""
        if not router.routers:
            return connections[DEFAULT_DB_ALIAS]
        if session_key is None:
            return connections[router.db_for_write(self.model)]
        instance = self.model(session_key=session_key)
        instance._state.db = router.db_for_read(self.model)
        return connections[router.db_for_write(self.model, instance=instance)]

    def statements(self, connection: BaseDatabaseWrapper) -> Statements:
        """Return the SQL for this connection."""
        found = self._statements.get(connection.vendor)
        if found is None:
            found = self._statements[connection.vendor] = Statements(self.model, connection)
        return found

    def key(self, session_key: str, connection: BaseDatabaseWrapper) -> Any:
        """Return the session key as a parameter."""
        if type(session_key) is str:
            return session_key
        return self._key_field.get_db_prep_value(session_key, connection)

    def expire_date(self, value: datetime, connection: BaseDatabaseWrapper) -> Any:
        """Return a point in time as a parameter, in the form in which Django stores it."""
        if value.tzinfo is UTC and self._expires_as_usual:
            # What the field and the backend arrive at for such a value, in fewer steps.
            if connection.vendor == "postgresql":
                return value.isoformat()
            if connection.timezone is UTC:
                return value.isoformat(" ")[: -len("+00:00")]
        parameter = self._expire_field.get_db_prep_save(value, connection)
        # Text is several times cheaper for psycopg to bind, and PostgreSQL reads the same from it.
        if type(parameter) is datetime and connection.vendor == "postgresql":
            return parameter.isoformat()
        return parameter

    def expired_after(
        self, reached: datetime | None, now: datetime, rows: int, connection: BaseDatabaseWrapper
    ) -> datetime | None:
        """Return when the last of so many rows expired; None if there are fewer."""
        found = self.model._base_manager.using(connection.alias).filter(expire_date__lt=now)
        if reached is not None:
            found = found.filter(expire_date__gt=reached)
        dates = found.order_by("expire_date").values_list("expire_date", flat=True)
        return next(iter(dates[rows - 1 : rows]), None)

    def python_date(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return a point in time as Django reads it from the column."""
        column = self._expire_field.get_col(self.model._meta.db_table)
        converters = connection.ops.get_db_converters(column) + column.get_db_converters(connection)
        for convert in converters:
            value = convert(value, column, connection)
        return value

    def values(
        self,
        instance: models.Model,
        connection: BaseDatabaseWrapper,
        add: bool,  # noqa: FBT001 - Field.pre_save's
    ) -> tuple[Any, ...] | None:
        """Return all columns of an instance as parameters; ``None`` if one is an SQL expression."""
        values = [field.pre_save(instance, add) for field in self.fields]
        if any(hasattr(value, "as_sql") for value in values):
            return None
        return tuple(
            field.get_db_prep_save(value, connection)
            for field, value in zip(self.fields, values, strict=True)
        )


_plans: dict[type[AbstractBaseSession], Plan] = {}


def plan_of(model: type[AbstractBaseSession]) -> Plan:
    """Return the plan of a model, which is worked out once."""
    return _plans.get(model) or _plans.setdefault(model, Plan(model))


def _is_stock(model: type[models.Model], names: Sequence[str]) -> bool:
    return all(
        getattr(getattr(model, name), "__func__", getattr(model, name))
        is getattr(getattr(models.Model, name), "__func__", getattr(models.Model, name))
        for name in names
        if hasattr(models.Model, name)
    )


def _leads_elsewhere(meta: Any) -> bool:
    """Whether rows of other tables belong to a row, hidden ones too, of which Django thinks."""
    return any(
        field.auto_created and not field.concrete and (field.one_to_one or field.one_to_many)
        for field in meta.get_fields(include_hidden=True)
    )


def _is_plain_manager(manager: Any) -> bool:
    return (
        isinstance(manager, models.Manager)
        and all(
            getattr(type(manager), name) is getattr(models.Manager, name)
            for name in ("filter", "get", "get_queryset", "using")
        )
        and getattr(manager, "_queryset_class", None) is models.QuerySet
        and manager._db is None
    )


def fetch(connection: BaseDatabaseWrapper, sql: str, parameters: Sequence[Any]) -> list[Any]:
    """Run one statement that reads, and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        # Iterated, because Django wraps `fetchone` and its like anew each time they are looked up.
        return list(cursor)


def execute(connection: BaseDatabaseWrapper, sql: str, parameters: Sequence[Any]) -> int:
    """Run one statement that writes, and return the number of rows it matched.

    Matched, not changed: Django opens MySQL connections with CLIENT.FOUND_ROWS.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return int(cursor.rowcount)
    except Exception:
        # As `Model.save` outside of a savepoint: the transaction around is spoilt.
        if connection.in_atomic_block:
            connection.needs_rollback = True
        raise


def insert(connection: BaseDatabaseWrapper, sql: str, parameters: Sequence[Any]) -> None:
    """Run one statement that adds a row; raise ``CreateError`` if there is one with its key."""
    if connection.vendor == "mysql":
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)
        except Exception as error:
            # A duplicate undoes this statement only, so the transaction around may go on.
            if isinstance(error, IntegrityError) and _is_duplicate_key(error):
                # The text has the key, which is somebody's session.
                raise CreateError from None
            if connection.in_atomic_block:
                connection.needs_rollback = True
            raise
    elif execute(connection, sql, parameters) == 0:
        raise CreateError


def _is_duplicate_key(error: IntegrityError) -> bool:
    """Whether MySQL or MariaDB refused the primary key, not some other unique column."""
    code, message = (*error.args, None, None)[:2]
    return code == 1062 and str(message).rstrip("'").endswith("PRIMARY")


def save_by_orm(instance: Any, using: str, must_create: bool) -> None:  # noqa: FBT001
    """Do what Django's engine does, but tell a vanished row from other failures."""
    try:
        with transaction.atomic(using=using):
            instance.save(force_insert=must_create, force_update=not must_create, using=using)
    except IntegrityError:
        if must_create:
            raise CreateError from None
        raise
    except DatabaseError as error:
        if not must_create and _nothing_was_updated(error):
            raise UpdateError from error
        raise


def _nothing_was_updated(error: DatabaseError) -> bool:
    """Whether ``Model.save`` found no row; drivers' errors have a cause or a class of their own."""
    if error.__cause__ is not None:
        return False
    # Django 6.0 has a class for it.
    return type(error) is DatabaseError or isinstance(error, OBJECT_NOT_UPDATED)
