"""The query for a user over the connections of a store of the Rust crate, which are not Django's.

What is asked is what Django asks (:mod:`django_session_rs.user_query`), with every column as text.
What the texts are read as is what Django's driver would have given, so that the model's own
converters go on from there. A model with a column of any other type is Django's to ask for.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections
from django.db.models import Model
from django.db.models.signals import post_init, pre_init

from django_session_rs.user_query import is_plain, query_for

if TYPE_CHECKING:
    from django_session_rs._native import Store
    from django_session_rs.user_query import UserQuery

__all__ = ["RowQuery", "row_query_for"]

Reader = Callable[[str], Any]


@dataclass(frozen=True)
class RowQuery:
    """``Model._default_manager.get(pk=…)``, awaited."""

    query: UserQuery
    sql: str
    readers: list[Reader]
    connection: Any
    """One of Django's, which knows what its server can do. It is not used as a connection."""

    async def afind(self, store: Store, value: Any, using: str) -> Model | None:
        """Return the user with this primary key.

        ``None`` if there is none, or one of whom the store does not know what Django would read.
        Raises ``StoreUnavailableError`` if the database cannot be asked.
        """
        if self.query.is_beyond(value):
            return None
        key = self.query.parameter(value, self.connection)
        texts = await store.afind_row(self.sql, str(key))
        if texts is None:
            return None
        try:
            row = [
                None if text is None else read(text)
                for text, read in zip(texts, self.readers, strict=True)
            ]
        except (ArithmeticError, ValueError):
            # As a date before the year 1.
            return None
        return self.query.user(row, using, self.connection)


_queries: dict[tuple[Any, ...], RowQuery | None] = {}


async def row_query_for(model: type[Model], using: str, value: Any) -> RowQuery | None:
    """Return the query for users of a model, or ``None`` if Django has to ask.

    ``value`` is any primary key.
    """
    if any(signal.receivers and signal.has_listeners(model) for signal in (pre_init, post_init)):
        # What they do belongs into Django's thread.
        return None
    connection = connections[using]
    zone = connection.timezone_name if settings.USE_TZ else None
    kind = (model, type(model._default_manager), type(connection), zone)
    try:
        return _queries[kind]
    except KeyError:
        # To compile it, Django may have to ask the server what it can do.
        query = await sync_to_async(query_for)(model, using, value)
        found = None if query is None else await sync_to_async(_of_texts)(query, using)
        # Where none was compiled, that may be for this value alone.
        if query is not None or not is_plain(model):
            _queries[kind] = found
        return found


def _of_texts(query: UserQuery, using: str) -> RowQuery | None:
    """Return the query with every column as text, or ``None`` if there is one of another type."""
    if query.sql.count("%") != 1 or query.sql.count("%s") != 1:
        return None
    made_by: Any = query.model
    base: Any = Model
    if (
        made_by.__init__ is not base.__init__
        or made_by.from_db.__func__ is not base.from_db.__func__
    ):
        # They may ask a database themselves, which an event loop must not.
        return None
    connection = connections[using]
    reader, bound, text = {
        "postgresql": (_reader_in_postgresql, _bound_in_postgresql, "CAST(it.{} AS text)"),
        "mysql": (_reader_in_mysql, _bound_in_mysql, "CAST(it.{} AS char)"),
    }[connection.vendor]
    columns = [field.column for field in query.fields]
    types = [str(field.db_type(connection)) for field in query.fields]
    readers = [reader(type_, connection) for type_ in types]
    parameter = bound(str(query.pk.db_type(connection)))
    if parameter is None or None in readers or len(set(columns)) != len(columns):
        return None
    selected = ", ".join(text.format(connection.ops.quote_name(column)) for column in columns)
    sql = f"SELECT {selected} FROM ({query.sql.replace('%s', parameter)}) it"  # noqa: S608
    return RowQuery(query, sql, [read for read in readers if read], connection)


def _reader_in_postgresql(type_: str, connection: Any) -> Reader | None:
    if type_ == "timestamp with time zone":
        # The driver gives times in the connection's zone, those of a store are in UTC.
        is_utc = settings.USE_TZ and connection.timezone_name == "UTC"
        return _datetime_in_utc if is_utc else None
    if type_.endswith("]"):
        # An array, of texts of a certain length for one.
        return None
    readers: dict[str, Reader] = {
        "bigint": int,
        "bigserial": int,
        "boolean": {"true": True, "false": False}.__getitem__,
        "date": datetime.date.fromisoformat,
        "double precision": float,
        "integer": int,
        "jsonb": str,
        "numeric": Decimal,
        "serial": int,
        "smallint": int,
        "smallserial": int,
        "text": str,
        "uuid": uuid.UUID,
        "varchar": str,
    }
    return readers.get(type_.partition("(")[0])


def _bound_in_postgresql(type_: str) -> str | None:
    base = type_.partition("(")[0]
    if base in ("bigint", "bigserial", "integer", "serial", "smallint", "smallserial"):
        return "$1::text::bigint"
    return {"text": "$1::text", "uuid": "$1::text::uuid", "varchar": "$1::text"}.get(base)


def _datetime_in_utc(text: str) -> datetime.datetime:
    naive, utc, rest = text.partition("+00")
    if not utc or rest:
        raise ValueError
    return _datetime(naive).replace(tzinfo=datetime.timezone.utc)


def _datetime(text: str) -> datetime.datetime:
    whole, _, fraction = text.partition(".")
    found = datetime.datetime.fromisoformat(whole)
    return found.replace(microsecond=int(fraction.ljust(6, "0"))) if fraction else found


def _reader_in_mysql(type_: str, _connection: Any) -> Reader | None:
    readers: dict[str, Reader] = {
        "bigint": int,
        "bool": int,
        "char": str,
        "date": datetime.date.fromisoformat,
        "datetime": _datetime,
        "double": float,
        "integer": int,
        "json": str,
        "longtext": str,
        "numeric": Decimal,
        "smallint": int,
        "uuid": str,
        "varchar": str,
    }
    return readers.get(type_.partition("(")[0].partition(" ")[0])


def _bound_in_mysql(type_: str) -> str | None:
    base = type_.partition("(")[0].partition(" ")[0]
    if base in ("bigint", "integer", "smallint"):
        return None if "UNSIGNED" in type_ else "CAST(? AS SIGNED)"
    return "?" if base in ("char", "uuid", "varchar") else None
